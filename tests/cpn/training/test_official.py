"""`official` as its defaults stand, on the true ResNet38 with a small crop: 105 million parameters, 2.2 GB in all."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cpn.config import Config, config_from
from cpn.config.data import ScenesConfig
from cpn.data.voc import Pack
from cpn.models.network import build_network
from cpn.models.resnet38d import ResNet38
from cpn.propagation.affinity import AffinityNet, affinity_job
from cpn.scoring.cam import multi_scale_maps
from cpn.segmentation.deeplab import DeepLab, deeplab_job
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.training.cam_training import train
from cpn.training.loop import TrainingContext
from cpn.training.training_job import fit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SILENT = TrainingContext(device=torch.device("cpu"), report=lambda _: None)
SIZE = 64


def config(**sections: Any) -> Config:
    """`official` at a crop of 64 pixels (K scaled with it), two pictures a step, one step."""
    small = {
        "data": {"crop": SIZE, "long_side": [SIZE, SIZE], "train": "train", "workers": 0},
        "patches": {"kind": "grid", "K": [8, 16]},
        "train": {"epochs": 1, "batch_size": 2},
    }
    return config_from({"preset": "official", **small, **sections}, "test")


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    write_scenes(tmp_path / "scenes", ScenesConfig(train=2, val=1, size=SIZE))
    return prepare(tmp_path / "scenes", ["train"])


def test_one_step_of_cpn_and_maps_at_four_scales(pack: Pack) -> None:
    settings, split = config(), pack.split("train")
    torch.manual_seed(0)
    network = build_network(settings.network, len(pack.classes) + 1)
    assert isinstance(network.backbone, ResNet38)
    before = {name: value.clone() for name, value in network.state_dict().items() if value.numel() < 100_000}
    entry = train(network, split, settings, SILENT)[0]
    assert entry["lr"] == 0.01 and all(
        math.isfinite(entry[f"loss_{n}"]) for n in ("cls", "amp", "tcp", "cpcr", "total")
    )
    moved = {name for name, value in network.state_dict().items() if name in before and not value.equal(before[name])}
    assert {"fc8.weight", "f8_3.weight", "f9.weight", "f10.weight"} <= moved
    assert not any(name.startswith(("backbone.conv1a", "backbone.b2")) or ".bn" in name for name in moved)
    frozen = sum(p.numel() for n, p in network.named_parameters() if not p.requires_grad and n.startswith("backbone."))
    assert frozen == 105_395_648 - 104_526_976  # method.md (c)
    maps = multi_scale_maps(network.eval(), split.image(0), np.array([1, 3]), settings.cam)
    assert maps.shape == (2, SIZE, SIZE) and np.isfinite(maps).all() and 0 <= maps.min() <= maps.max() <= 1


class Two:
    """Two pictures with the scores and labels that the later networks learn from."""

    def __len__(self) -> int:
        return 2

    def image(self, index: int, /) -> NDArray[np.uint8]:
        return np.random.default_rng(index).integers(0, 255, (SIZE, SIZE, 3), np.uint8)

    def label(self, index: int, /) -> NDArray[np.uint8]:
        label = np.zeros((SIZE, SIZE), np.uint8)
        label[16:48, 16:48] = 1 + index
        return label

    def scores(self, index: int, /) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        sure = np.eye(3, dtype=np.float32)[self.label(index)].transpose(2, 0, 1)
        return sure, sure


@pytest.mark.parametrize("which", ["affinity", "deeplab"])
def test_one_step_of_the_later_networks(which: str) -> None:
    settings = config(affinity={"batch_size": 2, "epochs": 1, "radius": 3}, deeplab={"batch_size": 2, "iterations": 1})
    torch.manual_seed(0)
    backbone = ResNet38()
    if which == "affinity":
        affinity = AffinityNet(backbone, settings.affinity.widths)
        entry = fit(affinity_job(affinity, Two(), settings.affinity, settings.data, seed=0), SILENT)[0]
        assert entry["lr"] == 0.01
    else:
        deeplab = DeepLab(backbone, 21, settings.deeplab)
        entry = fit(deeplab_job(deeplab, Two(), settings.deeplab, settings.data, seed=0), SILENT)[0]
        assert entry["lr"] == 0.001
        assert backbone.conv1a.weight.requires_grad, "the released DeepLab trains the stem"
        statistics = backbone.b3.get_submodule("bn_branch2a").running_mean
        assert statistics is not None and statistics.any(), "and normalises with the statistics of the batch"
    assert math.isfinite(entry["loss_total"])
