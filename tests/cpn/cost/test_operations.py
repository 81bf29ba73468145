"""Counted operations: by hand for a backbone of one convolution, in proportion for everything above it."""

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cpn.config import Config, config_from, with_values
from cpn.core.errors import InputError
from cpn.cost.operations import (
    edge_training_operations,
    forward_operations,
    run_operations,
    step_operations,
    stored_bytes,
)
from cpn.cost.training_memory import step_bytes
from cpn.models.efficientnet_lite0 import EfficientNetLite0

C = 5
CONV = 2 * 3 * 8 * 9  # FLOP a cell of a 3x3 convolution from 3 to 8 channels


class OneConvolution(nn.Module):
    """Three times the same map, (B, 8, h, w) at stride 4."""

    channels = (8, 8, 8)
    stride = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 4, 1, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        top = self.conv(images)
        return top, top, top

    def frozen_parameters(self) -> list[nn.Parameter]:
        return []


class Broken(OneConvolution):
    """A backbone that fails wherever it runs."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise ValueError("nowhere")


class Looks(OneConvolution):
    """A backbone that looks at its numbers, which the meta device has not."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(images if float(images.sum()) > 1e9 else images)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module: Any = types.ModuleType("own_backbones")
    module.one, module.looks, module.broken = OneConvolution, Looks, Broken
    monkeypatch.setitem(sys.modules, "own_backbones", module)
    yield


def config(**values: Any) -> Config:
    network = {"backbone": "own_backbones:one", "pcm": False, "prcm": False}
    made = config_from({"network": network, "data": {"crop": 32}, "cam": {"scales": [1.0], "flip": False}}, "-")
    return with_values(made, {name.replace("__", "."): value for name, value in values.items()}, "-")


@pytest.mark.usefixtures("own")
def test_one_convolution_and_the_classifier_by_hand() -> None:
    """32 x 32 at stride 4 is 64 cells; the classifier is a product of 8 by C in each."""
    assert forward_operations(config().network, C, 32, 32) == 64 * (CONV + 2 * 8 * C)
    assert forward_operations(config().network, C, 64, 32) == 2 * 64 * (CONV + 2 * 8 * C)


@pytest.mark.usefixtures("own")
def test_what_needs_numbers_is_counted_on_the_cpu() -> None:
    looks = config(network__backbone="own_backbones:looks").network
    assert forward_operations(looks, C, 448, 448) == forward_operations(config().network, C, 448, 448)


@pytest.mark.usefixtures("own")
def test_what_fails_on_the_cpu_too_is_said() -> None:
    broken = config(network__backbone="own_backbones:broken")
    with pytest.raises(InputError, match="its forward raised ValueError: nowhere"):
        forward_operations(broken.network, C, 32, 32)
    with pytest.raises(InputError, match="its forward raised ValueError: nowhere"):
        step_bytes(broken, C)
    assert step_bytes(config(network__backbone="own_backbones:looks"), C) is None


@pytest.mark.parametrize(("backbone", "gmac"), [("resnet38", 399.06), ("resnet50", 76.31), ("scene", 1.172)])
def test_backbones_as_counted_apart(backbone: str, gmac: float) -> None:
    """GMAC of each backbone at 448 x 448, counted with FlopCounterMode on real tensors; the classifier comes on top."""
    network = config_from({"network": {"backbone": backbone, "pcm": False, "prcm": False}}, "-").network
    top, stride = {"resnet38": (4096, 8), "resnet50": (2048, 8), "scene": (96, 4)}[backbone]
    classifier = top * C * (448 // stride) ** 2
    assert forward_operations(network, C, 448, 448) / 2 == pytest.approx(gmac * 1e9 + classifier, rel=1e-3)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("objective", "branches"), [("cpn", 3), ("pair_classification", 3), ("seam", 1.09), ("classification", 1)]
)
def test_a_step_is_batch_times_branches_times_three(objective: str, branches: float) -> None:
    made = config(train__objective=objective, train__batch_size=7)
    assert step_operations(made, C) == pytest.approx(7 * branches * 3 * 64 * (CONV + 2 * 8 * C))


@pytest.mark.usefixtures("own")
def test_a_run_by_hand() -> None:
    """10 images for 4 epochs; 6 scored: a quarter of them 4 times, all in 2 flips at 1 and 2, and 3 of the pair."""
    made = config(train__epochs=4, cam__confirm_share=0.75, cam__scales=[1.0, 2.0], cam__flip=True)
    once = 16 * (CONV + 2 * 8 * C)  # 16 x 16 pixels are 16 cells
    training = 10 * 4 * 3 * 3 * 64 * (CONV + 2 * 8 * C)
    scoring = 6 * once * (0.25 * 4 + 2 * (1 + 4) + 3)
    assert run_operations(made, C, trained=10, scored=6, height=16, width=16) == pytest.approx(training + scoring)
    thrice = made.model_copy(update={"train": made.train.model_copy(update={"epoch_images": 21})})
    expected = 3 * training + scoring
    assert run_operations(thrice, C, trained=10, scored=6, height=16, width=16) == pytest.approx(expected)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("sample", "images"), [(None, 30), (7, 7), (100, 30)])
def test_a_sample_of_the_select_images_is_priced(sample: int | None, images: int) -> None:
    """Of 40 scored images 30 are select images; 5 epochs, one scale."""
    made = config(train__epochs=5, cam__confirm_share=0.25, cam__scales=[1.0], cam__flip=False)
    made = made.model_copy(update={"cam": made.cam.model_copy(update={"epoch_images": sample})})
    once = 16 * (CONV + 2 * 8 * C)
    expected = once * (40 * (1 + 3) + 5 * images)
    assert run_operations(made, C, trained=0, scored=40, height=16, width=16) == pytest.approx(expected)


@pytest.mark.usefixtures("own")
def test_aligned_sizes_are_counted() -> None:
    """15 x 18 pixels at stride 4 are shown as 17 x 17, and at half their size as 9 x 9: 5 x 5 and 3 x 3 cells."""
    made = config(train__epochs=1, cam__confirm_share=0.75, cam__scales=[1.0, 0.5], cam__sizes="aligned")
    cell = CONV + 2 * 8 * C
    scoring = 6 * cell * (25 * (0.25 + 1 + 3) + 9)
    assert run_operations(made, C, trained=0, scored=6, height=15, width=18) == pytest.approx(scoring)


def test_pcm_costs_with_the_square_of_the_area() -> None:
    """PCM is a product of all cells with all cells: twice the side, more than four times the cost."""
    network = config_from({"preset": ["official", "scenes"]}, "-").network
    assert 4.5 < forward_operations(network, C, 256, 256) / forward_operations(network, C, 128, 128) < 16


@pytest.mark.usefixtures("own")
def test_stored_bytes_are_the_state_dicts() -> None:
    """float32: the convolution, the classifier, f8_3, f8_4, f9 and f10."""
    f9 = (3 + 64 + 128) * 192
    assert stored_bytes(config().network, C) == 4 * (3 * 8 * 9 + 8 * C + 8 * 64 + 8 * 128 + 2 * f9)


def test_no_such_backbone_is_said() -> None:
    network = config_from({"network": {"backbone": "no_such_module:thing"}}, "-").network
    with pytest.raises(InputError, match="network.backbone.*no_such_module"):
        forward_operations(network, C, 32, 32)


def test_counting_leaves_the_default_device_alone() -> None:
    forward_operations(config_from({"preset": "scenes"}, "-").network, C, 32, 32)
    assert torch.zeros(1).device.type == "cpu"


def test_irn_trains_its_heads_and_passes_its_backbone() -> None:
    """Heads are 1x1 convolutions to 32 channels, on cells of stride 4 or more, and one from 5 x 32 channels to 1."""
    side = 64
    backbone = EfficientNetLite0()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.pyramid(torch.zeros(1, 3, side, side))
    cells = [(side // max(stride, 4)) ** 2 for stride in backbone.pyramid_strides]
    heads = sum(2 * channels * 32 * n for channels, n in zip(backbone.pyramid_channels, cells, strict=True))
    heads += 2 * 5 * 32 * (side // 4) ** 2
    found = edge_training_operations("efficientnet_lite0", False, side)
    assert found == counter.get_total_flops() + 3 * heads
    assert edge_training_operations("efficientnet_lite0", True, side) > found
