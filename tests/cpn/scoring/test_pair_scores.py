"""The maps of a complementary pair beside the image's own: their weights, what they score, and that they repeat."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cpn.config.data import ScenesConfig
from cpn.config.network import NetworkConfig
from cpn.config.patches import PatchesConfig
from cpn.core.progress import silent
from cpn.data.map_files import present_classes
from cpn.data.voc import Pack
from cpn.models.losses import Branch
from cpn.models.network import CPN, build_network
from cpn.scoring.metrics import BETAS, hard_counts
from cpn.scoring.pair_scores import pair_counts, pair_maps, pair_row
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes


class Brightness(torch.nn.Module):
    """Stands for a network: every class map is the sum of the channels of what it is shown."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.one = torch.nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> Branch:
        maps = images.sum(dim=1, keepdim=True).expand(-1, self.classes, -1, -1) * self.one
        return Branch(maps, maps)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, ScenesConfig(train=4, val=2, extra=0, seed=5))
    return prepare(root)


@pytest.fixture(scope="module")
def network() -> CPN:
    torch.manual_seed(0)
    sizes = {"stage3_channels": 4, "stage4_channels": 4, "correlation_channels": 8}
    return build_network(NetworkConfig(backbone="scene", pcm=False, prcm=False, **sizes), 7).eval()


def test_the_pair_is_weighted_by_what_each_half_shows() -> None:
    image = np.full((4, 4, 3), 255, np.uint8)
    image[0, 0] = 200
    hidden = np.zeros((4, 4), bool)
    hidden[:, 3] = True  # I_h shows three quarters
    original, shown, rest, pair = pair_maps(Brightness(3), image, np.array([2]), hidden)[:, 0]  # type: ignore[arg-type]
    assert original.shape == (4, 4) and original[1, 1] == pytest.approx(1, abs=1e-4) and original[0, 0] == 0
    assert (shown[:, 3] == 0).all() and (rest[:, :3] == 0).all()
    assert shown[1, 1] == pytest.approx(1, abs=1e-4) and rest[1, 3] == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(pair, 0.75 * shown + 0.25 * rest, atol=1e-6)


def test_the_pair_shows_what_the_patches_say(pack: Pack, network: CPN) -> None:
    """Lambda weighs the pair alone; a hidden value changes both halves, and the whole image never."""
    split, patches = pack.split("train"), PatchesConfig(kind="grid", K=(24,), guard=True)  # 24 does not divide 64
    plain, weighed, filled = (
        pair_counts(network, split, patches.model_copy(update=change), 3, 7, silent)
        for change in ({}, {"lambda_by": "patches"}, {"hidden_value": "blur"})
    )
    assert [(plain[i] == weighed[i]).all() for i in range(4)] == [True, True, True, False]
    assert [(plain[i] == filled[i]).all() for i in range(4)] == [True, False, False, False]


def test_a_given_lambda_and_filling_are_used() -> None:
    image, hidden = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool)
    image[0], hidden[:, 3] = 90, True
    white = np.full_like(image, 255)
    maps = pair_maps(Brightness(3), image, np.array([2]), hidden, 0.25, white)[:, 0]  # type: ignore[arg-type]
    _, shown, rest, pair = maps
    assert shown[1, 3] == pytest.approx(1, abs=1e-4) == rest[1, 0] and shown[1, 0] < 1e-4 > rest[1, 3]
    np.testing.assert_allclose(pair, 0.25 * shown + 0.75 * rest, atol=1e-6)


def test_counts_are_those_of_the_four_maps_and_repeat(pack: Pack, network: CPN) -> None:
    split, patches = pack.split("train"), PatchesConfig(kind="grid", K=(16,))
    counts = pair_counts(network, split, patches, 3, 7, silent)
    assert counts.shape == (4, len(BETAS), 3, 7)
    np.testing.assert_array_equal(counts, pair_counts(network, split, patches, 3, 7, silent))
    other = pair_counts(network, split, patches, 4, 7, silent)
    np.testing.assert_array_equal(counts[0], other[0])  # the whole image knows no patches
    assert (counts[1] != other[1]).any()
    from cpn.data.patches import hidden_mask

    wanted = np.zeros((3, 7), np.int64)
    for index in range(len(split)):
        present, truth = present_classes(split.labels[index]), split.mask(index)
        assert truth is not None
        hidden, _ = hidden_mask(split.image(index), patches, np.random.default_rng([3, index]))
        maps = pair_maps(network, split.image(index), present, hidden)[3]
        best = np.where(maps.max(axis=0) > np.float32(BETAS[10]), present[maps.argmax(axis=0)], 0)
        wanted += hard_counts(best, truth, 7)
    np.testing.assert_array_equal(counts[3, 10], wanted)


def test_recall_is_at_the_threshold_of_the_whole_image() -> None:
    counts = np.zeros((4, len(BETAS), 3, 2), np.int64)
    counts[:, :, 2] = (60, 40)  # true pixels
    counts[:, :, 1] = (100, 0)
    counts[:, :, 0] = (60, 0)
    counts[0, 7, :2] = [[60, 20], [80, 20]]  # the best beta of Y_o is the eighth
    counts[3, 7, :2] = [[50, 30], [60, 40]]
    counts[3, 9, :2] = [[60, 40], [60, 40]]
    found = pair_row(counts)
    assert found["recall_o"] == 50 and found["recall_pair"] == 75 and found["recall_h"] == 0
    assert found["miou_pair"] == pytest.approx(100) and found["miou_o"] == pytest.approx(100 * (60 / 80 + 20 / 40) / 2)


def test_a_list_without_masks_is_refused(tmp_path: Path, network: CPN) -> None:
    from cpn.core.errors import InputError

    write_scenes(tmp_path / "scenes", ScenesConfig(train=4, val=2, extra=0, seed=5))
    for mask in (tmp_path / "scenes" / "SegmentationClass").glob("*.png"):
        mask.unlink()
    split = prepare(tmp_path / "scenes").split("train")
    with pytest.raises(InputError, match="has no mask"):
        pair_counts(network, split, PatchesConfig(kind="grid"), 0, 7, silent)
