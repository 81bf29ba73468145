from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cpn.cam import CamConfig, image_counts, load_maps, multi_scale_maps, normalise_sum, present_classes, save_maps
from cpn.errors import InputError
from cpn.losses import Branch
from cpn.metrics import BETAS, hard_counts
from cpn.network import CPN, NetworkConfig, build_network
from cpn.prepare import prepare
from cpn.synthetic import write_scenes
from cpn.transforms import MEAN, STD
from cpn.voc import Pack, ScenesConfig

SMALL = {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8}


@pytest.fixture(scope="module")
def network() -> CPN:
    torch.manual_seed(0)
    return build_network(NetworkConfig.model_validate(SMALL), 7).eval()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (21, 27, 3), dtype=np.uint8)


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


def slow(network: CPN, image: np.ndarray, present: list[int], config: CamConfig) -> np.ndarray:
    """The formula of method.md (g), pass by pass."""
    height, width = image.shape[:2]
    total = np.zeros((len(present), height, width))
    for scale in config.scales:
        size = (round(width * scale), round(height * scale))
        for mirrored in (False, True) if config.flip else (False,):
            scaled = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
            scaled = scaled[:, ::-1] if mirrored else scaled
            inputs = ((scaled / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
            with torch.no_grad():
                branch = network(torch.from_numpy(inputs.transpose(2, 0, 1)[None].copy()))
            maps = branch.refined_cam if config.map == "refined" else branch.cam.clamp(min=0)
            big = nn.functional.interpolate(maps, (height, width), mode="bilinear", align_corners=False)[0].numpy()
            big = big[:, :, ::-1] if mirrored else big
            for row, index in enumerate(present):
                total[row] += big[index]
    for row in total:
        row[:] = np.maximum(row, 0)
        low, high = row.min(), row.max()
        row[row < low + 1e-5] = 0
        row[:] = np.maximum((row - low - 1e-5) / (high - low + 1e-5), 0)
    return total


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
    multi_scale_maps(sizes, image, np.array([1]), CamConfig(scales=(0.5, 1.0, 1.5, 0.01)))  # type: ignore[arg-type]
    # Halves go to the even neighbour: 10.5 -> 10, 13.5 -> 14, 31.5 -> 32, 40.5 -> 40.
    assert sizes.seen == [(2, 3, 10, 14), (2, 3, 21, 27), (2, 3, 32, 40), (2, 3, 1, 1)]


def test_absent_classes_are_never_in_the_output(network: CPN, image: np.ndarray) -> None:
    config = CamConfig(scales=(1.0,))
    every = multi_scale_maps(network, image, np.arange(1, 7), config)
    for present in ([4], [1, 6]):
        maps = multi_scale_maps(network, image, np.array(present), config)
        assert len(maps) == len(present)
        np.testing.assert_array_equal(maps, every[np.array(present) - 1])
    none = multi_scale_maps(network, image, np.array([], np.int64), config)
    assert none.shape == (0, 21, 27) and none.dtype == np.float32


def test_present_classes_count_from_one() -> None:
    assert present_classes(np.array([1, 0, 0, 1], np.float32)).tolist() == [1, 4]
    assert present_classes(np.zeros(3, np.float32)).tolist() == []


def test_maps_come_back_to_half_precision(tmp_path: Path) -> None:
    maps = np.random.default_rng(1).random((3, 6, 5)).astype(np.float32)
    maps[0, 0] = [0, 1, 0.5, 2**-10, 0.25]
    save_maps(tmp_path / "cams" / "a.npz", maps, np.array([1, 7, 20]))
    loaded, present = load_maps(tmp_path / "cams" / "a.npz")
    assert loaded.dtype == np.float32 and present.dtype == np.int64 and present.tolist() == [1, 7, 20]
    np.testing.assert_array_equal(loaded, maps.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(loaded, maps, atol=2**-12)
    save_maps(tmp_path / "empty.npz", maps[:0], np.array([], np.int64))
    loaded, present = load_maps(tmp_path / "empty.npz")
    assert loaded.shape == (0, 6, 5) and present.tolist() == []


def test_no_pickle_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", maps=np.array([{"harm": 1}], dtype=object), present=np.array([1]))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_maps(tmp_path / "a.npz")


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
