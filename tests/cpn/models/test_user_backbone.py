"""A user's own backbone, named as 'package.module:factory', through every stage: no stride, width or size is assumed.

A user brings first a MobileNet-like network of stride 16 whose batch norm knows nothing of freezing, and here meets
pictures of 65 x 65 pixels (16 k + 1, where stride cells and align_corners agree).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cpn.config import Config, config_from
from cpn.config.data import ScenesConfig
from cpn.core.files import read_json
from cpn.data.map_files import load_maps
from cpn.data.voc import Pack
from cpn.models.network import build_network
from cpn.propagation.walk_rule import source_shape
from cpn.run import run
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.stages.pipeline import (
    Inputs,
    load_label,
    make_affinity,
    make_cams,
    make_crf_scores,
    make_deeplab,
    make_pseudo_labels,
)

CPU = torch.device("cpu")
SIZE = 65
VALUES: dict[str, Any] = {
    "data": {"train": "train", "crop": SIZE, "long_side": [56, 80], "workers": 0},
    "patches": {"kind": "grid", "K": [13]},
    "network": {
        "backbone": "tests.cpn.models.test_user_backbone:Mobile",
        "stage3_channels": 5,
        "stage4_channels": 6,
        "correlation_channels": 7,
    },
    "train": {"epochs": 2, "batch_size": 4, "lr": 0.002, "sgd_momentum": 0.9},
    "cam": {"scales": [0.5, 1.0]},
    "affinity": {"radius": 2, "widths": [4, 5, 6], "epochs": 1, "batch_size": 4},
    "random_walk": {"radius": 2, "logt": 2},
    "deeplab": {"width": 8, "dilation": 2, "iterations": 3, "batch_size": 4, "scales": [1.0]},
}


def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """3x3 depthwise and 1x1, each with batch norm and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6(),
    )  # fmt: skip


class Mobile(nn.Module):
    """Stride 16; maps of 11, 13 and 17 channels; a frozen stem."""

    channels = (11, 13, 17)
    stride = 16

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1, bias=False)
        self.early = nn.Sequential(separable(6, 8, 2), separable(8, 9, 2))
        self.stage3, self.stage4, self.top = separable(9, 11, 2), separable(11, 13, 1), separable(13, 17, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stage3 = self.stage3(self.early(self.stem(images)))
        stage4 = self.stage4(stage3)
        return stage3, stage4, self.top(stage4)

    def frozen_parameters(self) -> list[nn.Parameter]:
        return [self.stem.weight]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("mobile") / "scenes"
    write_scenes(root, ScenesConfig(train=8, val=2, size=SIZE))
    return prepare(root, ["train", "val"])


def config(**sections: Any) -> Config:
    return config_from({**VALUES, **sections}, "test")


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"preset": "paper"},
        {"preset": "seam_prcm"},
        {"preset": "cam_baseline", "network": {**VALUES["network"], "pcm": False, "prcm": False}},
    ],
    ids=["official", "paper", "seam_prcm", "cam_baseline"],
)
def test_it_trains_and_is_scored(
    sections: dict[str, Any], pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpn.run.run_pictures", lambda *_: {})
    result = run(config(**sections), pack, tmp_path / "run", cache=tmp_path, device=CPU, report=lambda _: None)
    assert 0 < result.metrics["miou_train"] <= 100
    assert all(np.isfinite(entry["loss_total"]) for entry in result.history)


def test_every_later_stage_stands_on_it(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpn.run.run_pictures", lambda *_: {})
    run(config(), pack, tmp_path / "run", cache=tmp_path, device=CPU, report=lambda _: None)
    assert read_json(tmp_path / "run" / "result.json")["config"]["network"]["backbone"].endswith("Mobile")
    folders = {stage: tmp_path / stage for stage in ("cam", "crf", "affinity", "random_walk", "deeplab")}
    inputs = Inputs(tmp_path / "run" / "model.safetensors", config(), pack, tmp_path / "cache", CPU, folders)
    everything = list(range(8))
    make_cams(inputs, everything, folders["cam"])
    make_crf_scores(inputs, everything, folders["crf"])
    assert np.isfinite(make_affinity(inputs, folders["affinity"], lambda _: None)["loss_total"])
    make_pseudo_labels(inputs, everything, folders["random_walk"])
    for name in pack.split("train").ids:
        maps, present = load_maps(folders["cam"] / f"{name}.npz")
        label = load_label(folders["random_walk"] / f"{name}.png")
        assert maps.shape[1:] == label.shape == (SIZE, SIZE)
        assert set(np.unique(label)) <= {0, *present.tolist()}
    scores = make_deeplab(inputs, folders["deeplab"], lambda _: None)
    assert all(0 <= scores[key] <= 100 for key in ("miou_val", "miou_val_crf"))
    assert source_shape(5, 5, 2) == (4, 3), "the walk had pairs to go along"


def test_at_16_k_plus_1_pixels_cells_and_aligned_corners_agree() -> None:
    """Every 16th pixel of the map is a stride cell, untouched by the interpolation."""
    torch.manual_seed(0)
    network = build_network(config().network, 4).eval()
    images = torch.randn(1, 3, SIZE, 81)
    low = network.fc8(network.backbone(images)[2])
    assert low.shape == (1, 4, 5, 6)
    torch.testing.assert_close(network(images).cam[..., ::16, ::16], low)
