from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cpn.config.cam import CamConfig
from cpn.config.data import ScenesConfig
from cpn.config.network import NetworkConfig
from cpn.core.errors import InputError
from cpn.data.map_files import present_classes
from cpn.data.transforms import MEAN, STD
from cpn.data.voc import Pack
from cpn.models.losses import Branch
from cpn.models.network import CPN, build_network
from cpn.scoring.cam import (
    RELEASED_BETAS,
    halved,
    image_counts,
    multi_scale_maps,
    normalise_as_released,
    normalise_sum,
    scale_maps,
    scale_sums,
    shown_size,
    sum_passes,
    to_halved,
)
from cpn.scoring.metrics import BETAS, curve_counts, hard_counts
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

REFERENCE = Path(__file__).parents[2] / "reference" / "miou_eval.npz"
SMALL = {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8}


@pytest.fixture(scope="module")
def network() -> CPN:
    torch.manual_seed(0)
    return build_network(NetworkConfig.model_validate(SMALL), 7).eval()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (21, 27, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(REFERENCE, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_the_sum_by_hand() -> None:
    # ReLU, below min + 1e-5 -> 0, then (x - min - 1e-5) / (max - min + 1e-5), method.md (g).
    summed = torch.tensor([[[-3.0, 2.0], [0.0, 4.0]], [[1.0, 1.000009], [3.0, 2.0]], [[-1.0, -2.0], [0, -5.0]]])
    expected = [
        [[0, (2 - 1e-5) / (4 + 1e-5)], [0, (4 - 1e-5) / (4 + 1e-5)]],
        [[0, 0], [(3 - 1 - 1e-5) / (2 + 1e-5), (2 - 1 - 1e-5) / (2 + 1e-5)]],
        [[0, 0], [0, 0]],
    ]
    got = normalise_sum(summed)
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-6, atol=1e-7)
    assert got[1, 0].tolist() == [0, 0] and got[2].abs().max() == 0  # exactly
    assert torch.equal(summed[0, 0], torch.tensor([-3.0, 2.0]))  # the argument is not written into


def test_a_flat_map_is_zero_and_no_map_leaves_the_range() -> None:
    assert normalise_sum(torch.full((1, 2, 2), 5.0)).tolist() == [[[0, 0], [0, 0]]]
    maps = normalise_sum(torch.randn(4, 9, 9, generator=torch.Generator().manual_seed(0)) * 100)
    assert maps.min() == 0 and maps.max() <= 1 and (maps.amax(dim=(1, 2)) > 0.999).all()


def bilinear(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(K, h, w) -> (K, *size) in float64: pixel centres are aligned, beyond the outermost ones the border repeats."""
    resized = np.asarray(maps, np.float64)
    for axis, length in ((1, size[0]), (2, size[1])):
        old = resized.shape[axis]
        at = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
        below = np.floor(at).astype(int)
        above = np.minimum(below + 1, old - 1)
        weight = (at - below).reshape([-1 if a == axis else 1 for a in range(3)])
        resized = (1 - weight) * resized.take(below, axis) + weight * resized.take(above, axis)
    return resized


def aggregated(
    passes: list[np.ndarray], mirrored: list[bool], labels: np.ndarray, size: tuple[int, int]
) -> dict[int, np.ndarray]:
    """Method.md (g) pass by pass in float64, masking as it is written: raw (F, h, w) each -> maps by class 1..F."""
    total = np.zeros((len(labels), *size))
    for maps, flipped in zip(passes, mirrored, strict=True):
        big = bilinear(maps, size) * labels[:, None, None]
        total += big[:, :, ::-1] if flipped else big
    found = {}
    for index in np.flatnonzero(labels):
        row = np.where(total[index] < 0, 0, total[index])
        low, high = row.min(), row.max()
        row = np.where(row < low + 1e-5, 0, row)
        found[int(index) + 1] = np.maximum((row - low - 1e-5) / (high - low + 1e-5), 0)
    return found


def slow(network: CPN, image: np.ndarray, present: list[int], config: CamConfig) -> np.ndarray:
    """The whole inference, one network call per pass."""
    height, width = image.shape[:2]
    passes, mirrored = [], []
    for scale in config.scales:
        size = (round(width * scale), round(height * scale))
        for flipped in (False, True) if config.flip else (False,):
            scaled = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
            scaled = scaled[:, ::-1] if flipped else scaled
            inputs = ((scaled / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
            with torch.no_grad():
                branch = network(torch.from_numpy(inputs.transpose(2, 0, 1)[None].copy()))
            maps = branch.refined_cam if config.map == "refined" else branch.cam.clamp(min=0)
            passes.append(maps[0, 1:].numpy())
            mirrored.append(flipped)
    labels = np.isin(np.arange(1, 7), present).astype(float)
    maps = aggregated(passes, mirrored, labels, (height, width))
    assert sorted(maps) == present
    return np.stack([maps[index] for index in present])


def test_two_passes_by_hand() -> None:
    # A pass of 1 x 2 at the image's size and a mirrored one of 1 x 1, two classes; the second has nothing positive.
    plain = torch.tensor([[[1.0, 3.0]], [[-2.0, -1.0]]])
    mirrored = torch.tensor([[[1.0, 0.0]], [[0.5, 0.0]]])
    single = torch.tensor([[[1.0]], [[0.0]]])
    summed = sum_passes([plain, mirrored, single], [False, True, True], (1, 2))
    assert summed.tolist() == [[[1 + 0 + 1, 3 + 1 + 1]], [[-2.0, -0.5]]]
    maps = normalise_sum(summed)
    assert maps[0, 0].tolist() == pytest.approx([0, (5 - 2 - 1e-5) / (5 - 2 + 1e-5)]) and maps[1].tolist() == [[0, 0]]


def test_centres_are_aligned_when_a_pass_is_resized() -> None:
    # align_corners False: 2 -> 4 takes the pixels at -.25, .25, .75 and 1.25 of the small map, the outer ones cut off.
    row = sum_passes([torch.tensor([[[0.0, 4.0], [8.0, 12.0]]])], [False], (2, 4))
    assert row.tolist() == [[[0, 1, 3, 4], [8, 9, 11, 12]]]
    assert bilinear(np.array([[[0, 4], [8, 12]]]), (2, 4)).tolist() == row.tolist()


def test_passes_of_any_size_add_up_as_the_formula_says() -> None:
    rng = np.random.default_rng(5)
    sizes = [(6, 9), (11, 18), (17, 27), (22, 36)]
    passes = [rng.normal(0.2, 1, (5, *size)) for size in sizes for _ in range(2)]
    mirrored = [False, True] * 4
    labels = np.array([0, 1, 0, 1, 1.0])
    summed = sum_passes([torch.from_numpy(maps) for maps in passes], mirrored, (11, 18))
    maps = normalise_sum(summed)
    expected = aggregated(passes, mirrored, labels, (11, 18))
    assert list(expected) == [2, 4, 5]
    for index, one in expected.items():
        np.testing.assert_allclose(maps[index - 1], one, rtol=0, atol=1e-12)
    assert min(np.ptp(one) for one in expected.values()) > 0.9


def test_the_numerator_is_cut_off_where_the_minimum_is_positive() -> None:
    # To the letter the pixel at the minimum, 2, becomes (0 - 2 - e) / (2 + e), about -1. Kept maps lie in [0, 1], and
    # a score of 0 loses to every background score just as -1 does.
    summed = torch.tensor([[[2.0, 4.0, 2.5]]], dtype=torch.float64)
    maps, letter = normalise_sum(summed).numpy(), normalise_as_released(summed).numpy()
    np.testing.assert_allclose(letter, np.array([[[-2 - 1e-5, 2 - 1e-5, 0.5 - 1e-5]]]) / (2 + 1e-5))
    np.testing.assert_allclose(maps, np.maximum(letter, 0))
    assert letter.min() < -0.9 and maps.min() == 0
    truth = np.array([[0, 1, 1]], np.uint8)
    ours, theirs = (curve_counts(m, np.array([1]), truth, 2) for m in (maps, letter))
    np.testing.assert_array_equal(ours, theirs)


def test_halved_maps_and_thresholds_give_the_same_counts(stored: dict[str, np.ndarray]) -> None:
    assert RELEASED_BETAS[0] == 0.4 and RELEASED_BETAS[-1] == 1.18 and len(RELEASED_BETAS) == 40
    thresholds = [step / 100 for step in range(20, 60)]
    assert [to_halved(beta) for beta in RELEASED_BETAS] == pytest.approx(thresholds)
    for name in "abcd":
        scores = (np.clip(stored[f"cams_{name}"], 0, None) * 1.8).astype(np.float32)  # in [0, 1]
        present, truth = stored[f"camkeys_{name}"] + 1, stored[f"gt_{name}"]
        for maps in (scores, np.round(50 * scores) / np.float32(50)):  # the second lies on the thresholds
            ours = curve_counts(maps, present, truth, 21, RELEASED_BETAS)
            assert halved(maps).dtype == np.float32 and np.array_equal(2 * halved(maps), maps)
            np.testing.assert_array_equal(curve_counts(halved(maps), present, truth, 21, thresholds), ours)


def test_a_score_on_a_threshold_is_on_it_in_both_conventions() -> None:
    # Every threshold as a score: the doubled threshold in single precision is exactly the double of the single one.
    maps = np.array(RELEASED_BETAS, np.float32).reshape(1, 1, -1)
    truth = np.ones((1, 40), np.uint8)
    thresholds = [step / 100 for step in range(20, 60)]
    one = curve_counts(halved(maps), np.array([1]), truth, 2, thresholds)
    np.testing.assert_array_equal(one, curve_counts(maps, np.array([1]), truth, 2, RELEASED_BETAS))
    assert one[:, 0, 1].tolist() == list(range(39, -1, -1))  # strictly above: a tie goes to the background


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"map": "plain"},
        {"flip": False, "scales": (1.0,)},
        {"scales": (0.5,)},
        {"scales": (1.5, 1.0)},
        {"flip": False, "map": "plain", "scales": (2.0, 0.7)},
    ],
)
def test_the_maps_equal_a_slow_loop(network: CPN, image: np.ndarray, values: dict[str, object]) -> None:
    config = CamConfig.model_validate(values)
    present = [2, 5, 6]
    maps = multi_scale_maps(network, image, np.array(present), config)
    assert maps.shape == (3, 21, 27) and maps.dtype == np.float32 and maps.min() >= 0 and maps.max() <= 1
    np.testing.assert_allclose(maps, slow(network, image, present, config), atol=2e-5)
    assert maps.std() > 0.01


class Sizes(nn.Module):
    """Notes the sizes it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Branch:
        self.seen.append(tuple(images.shape))
        maps = images.mean(1, keepdim=True).repeat(1, 3, 1, 1)
        return Branch(maps, maps)


def test_sizes_are_rounded_as_python_does() -> None:
    sizes = Sizes()
    image = np.zeros((21, 27, 3), np.uint8)
    multi_scale_maps(cast(CPN, sizes), image, np.array([1]), CamConfig(scales=(0.5, 1.0, 1.5, 0.01)))
    # Halves go to the even neighbour: 10.5 -> 10, 13.5 -> 14, 31.5 -> 32, 40.5 -> 40.
    assert sizes.seen == [(2, 3, 10, 14), (2, 3, 21, 27), (2, 3, 32, 40), (2, 3, 1, 1)]


def test_at_aligned_sizes_a_shifted_image_has_shifted_maps(network: CPN) -> None:
    """What `aligned` is for: on k * 4 + 1 pixels the map of an image moved by a cell is the map moved by a cell."""
    wide = np.random.default_rng(1).integers(0, 256, (41, 53, 3), dtype=np.uint8)

    def drift(config: CamConfig, side: int) -> float:
        first, second = (
            scale_maps(network, part, shown_size(network, part, 1.0, config), config)[0, :, 18:23, 18:23]
            for part in (wide[:, :side], wide[:, 4 : side + 4])
        )
        whole = scale_maps(network, wide, shown_size(network, wide, 1.0, config), config)
        return float((first - whole[0, :, 18:23, 18:23]).abs().max() + (second - whole[0, :, 18:23, 22:27]).abs().max())

    plain = CamConfig(map="plain", flip=False)
    aligned = plain.model_copy(update={"sizes": "aligned"})
    assert shown_size(network, wide[:, :48], 1.0, plain) == (41, 48)
    assert shown_size(network, wide[:, :48], 1.0, aligned) == (41, 49)
    assert drift(plain, 49) < 1e-5 < drift(plain, 48), "the corners of 48 pixels are no corners of 12 cells"
    assert drift(aligned, 49) == drift(plain, 49)


def test_aligned_maps_are_those_of_the_aligned_passes(network: CPN, image: np.ndarray) -> None:
    present, config = np.array([1, 4]), CamConfig(sizes="aligned", scales=(0.5, 1.0))
    passes = [scale_maps(network, image, size, config)[:, [1, 4]] for size in ((9, 13), (21, 25))]
    expected = sum(sum_passes(list(each), [False, True], (21, 27)) for each in passes)
    assert np.array_equal(
        multi_scale_maps(network, image, present, config), normalise_sum(cast(Tensor, expected)).numpy()
    )


def test_a_mirrored_image_has_mirrored_maps(network: CPN, image: np.ndarray) -> None:
    present = np.array([1, 3, 6])
    for config in (CamConfig(), CamConfig(map="plain", scales=(1.0, 0.7))):
        maps = multi_scale_maps(network, image, present, config)
        mirrored = multi_scale_maps(network, np.ascontiguousarray(image[:, ::-1]), present, config)
        np.testing.assert_allclose(mirrored[:, :, ::-1], maps, atol=2e-5)
        assert np.abs(mirrored - maps).max() > 0.1


def test_one_scale_without_flip_is_the_raw_map_normalised(network: CPN, image: np.ndarray) -> None:
    config = CamConfig(scales=(1.0,), flip=False)
    raw = scale_maps(network, image, (21, 27), config)
    assert raw.shape == (1, 7, 21, 27) and not raw.requires_grad
    present = np.array([2, 5])
    assert np.array_equal(multi_scale_maps(network, image, present, config), normalise_sum(raw[0, [2, 5]]).numpy())


def test_the_sums_of_single_scales_add_up_to_all(network: CPN, image: np.ndarray) -> None:
    present, config = np.array([4, 2]), CamConfig(scales=(1.5, 0.5))
    sums = list(scale_sums(network, image, present, config))
    assert [tuple(summed.shape) for summed in sums] == [(2, 21, 27)] * 2
    assert np.array_equal(multi_scale_maps(network, image, present, config), normalise_sum(sums[0] + sums[1]).numpy())
    for scale, summed in zip(config.scales, sums, strict=True):
        alone = multi_scale_maps(network, image, present, config.model_copy(update={"scales": (scale,)}))
        assert np.array_equal(alone, normalise_sum(summed).numpy())


def test_without_a_present_class_the_network_is_not_asked() -> None:
    sizes = Sizes()
    sums = list(scale_sums(cast(CPN, sizes), np.zeros((4, 5, 3), np.uint8), np.array([], np.int64), CamConfig()))
    assert [tuple(summed.shape) for summed in sums] == [(0, 4, 5)] * 4 and sizes.seen == []


def test_absent_classes_are_never_in_the_output(network: CPN, image: np.ndarray) -> None:
    config = CamConfig(scales=(1.0,))
    every = multi_scale_maps(network, image, np.arange(1, 7), config)
    for present in ([4], [1, 6]):
        maps = multi_scale_maps(network, image, np.array(present), config)
        assert len(maps) == len(present)
        np.testing.assert_array_equal(maps, every[np.array(present) - 1])
    none = multi_scale_maps(network, image, np.array([], np.int64), config)
    assert none.shape == (0, 21, 27) and none.dtype == np.float32


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("cam") / "scenes"
    write_scenes(root, ScenesConfig(train=3, val=1, size=32))
    (sorted((root / "SegmentationClass").glob("*.png"))[0]).unlink()
    return prepare(root, ["train"], scored=[])


def test_counts_of_an_image_are_those_of_its_maps(network: CPN, pack: Pack) -> None:
    split, config = pack.split("train"), CamConfig(scales=(1.0,), map="plain")
    index = next(i for i in range(len(split)) if split.mask(i) is not None)
    counts = image_counts(network, split, index, config, 7)
    assert counts.shape == (len(BETAS), 3, 7)
    present = present_classes(split.labels[index])
    maps, truth = multi_scale_maps(network, split.image(index), present, config), split.mask(index)
    assert truth is not None
    for step in (0, 10, 36, 60):
        background = np.full((1, *truth.shape), BETAS[step], np.float32)
        prediction = np.concatenate([[0], present])[np.concatenate([background, maps]).argmax(axis=0)]
        np.testing.assert_array_equal(counts[step], hard_counts(prediction, truth, 7))


def test_an_image_without_mask_cannot_be_scored(network: CPN, pack: Pack) -> None:
    split = pack.split("train")
    index = next(i for i in range(len(split)) if split.mask(i) is None)
    with pytest.raises(InputError) as refused:
        image_counts(network, split, index, CamConfig(), 7)
    message = str(refused.value)
    assert split.ids[index] in message and "'train'" in message and "data.score" in message and "\n" not in message


def test_maps_above_the_limit_still_have_the_images_size(network: CPN, image: np.ndarray) -> None:
    large = np.tile(image, (4, 4, 1))
    limited = CamConfig(scales=(0.5, 1.0, 2.0), max_pixels=1200)
    sizes = [shown_size(network, large, scale, limited) for scale in limited.scales]
    assert all(height * width <= 1200 for height, width in sizes) and sizes[1] == sizes[2] != (84, 108)
    assert multi_scale_maps(network, large, np.array([1, 4]), limited).shape == (2, 84, 108)
    within = CamConfig(scales=(0.5, 1.0), max_pixels=10_000)
    free = multi_scale_maps(network, large, np.array([1, 4]), CamConfig(scales=(0.5, 1.0)))
    np.testing.assert_array_equal(multi_scale_maps(network, large, np.array([1, 4]), within), free)
