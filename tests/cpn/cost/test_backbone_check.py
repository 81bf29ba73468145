"""Each check of `python -m cpn.backbone --check` sees its fault and names a cure; the page's example passes all."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cpn.cost.backbone_check import (
    Check,
    Subject,
    batch_norm,
    cost,
    frozen,
    gradients,
    layers,
    meta,
    pyramid,
    repeatable,
    run_checks,
    shapes,
    tap_scale,
    weights,
)
from cpn.models.backbone import make_backbone
from tests.bad_input.backbones import Plain


class InPlace(Plain):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(images.mul_(2))


class Restless(Plain):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(nn.functional.dropout(images, 0.5))


class Mixing(Plain):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(images - images.mean(dim=0, keepdim=True))


class NotANumber(Plain):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(images.log())


class Copies(Plain):
    def frozen_parameters(self) -> list[nn.Parameter]:
        return [nn.Parameter(self.stage3.weight.detach().clone())]


class AllFrozen(Plain):
    def frozen_parameters(self) -> list[nn.Parameter]:
        return list(self.parameters())


class Quietly(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.stage4.weight.requires_grad_(False)


class Detached(Plain):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stage3, stage4, top = super().forward(images)
        return stage3, stage4, top.detach()


class MiddleDetached(Plain):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stage3, stage4, top = super().forward(images)
        return stage3, stage4.detach(), top


class Beside(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Conv2d(1, 1, 1)


class Tied(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.also = self.stage4


class Lazy(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.stage4 = nn.LazyConv2d(5, 1)  # type: ignore[assignment]


class Growing(Plain):
    made = 0

    def __init__(self) -> None:
        super().__init__()
        Growing.made += 1
        self.more = nn.Linear(Growing.made, 1)


class Loud(Plain):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stage3, stage4, top = super().forward(images)
        return stage3 * 1e4, stage4, top


class Silent(Plain):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stage3, stage4, top = super().forward(images)
        return stage3, stage4 * 0, top


class Looks(Plain):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(images if float(images.sum()) > 1e9 else images)


class Normed(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.stage4 = nn.Sequential(nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5))  # type: ignore[assignment]


class HalfAPyramid(Plain):
    pyramid_channels = (4, 4, 4, 5, 6)
    pyramid_strides = (4, 4, 4, 4, 4)

    def pyramid(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.forward(images)


class TrainsOnly(Plain):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.training:
            raise ValueError("no labels were given")
        return super().forward(images)


def checks(kind: type[nn.Module], weights: str | None = None) -> dict[str, Check]:
    return {each.check: each for each in run_checks(f"{kind.__module__}:{kind.__qualname__}", weights, 3)}


def test_a_sound_backbone_passes_every_check() -> None:
    done = checks(Plain)
    assert [each.check for each in done.values() if each.result == "failed"] == []
    assert list(done) == [
        "interface", "layers", "shapes", "weights", "maps", "batch norm", "frozen", "gradients", "scale",
        "meta device", "cost at 448", "pyramid",
    ]  # fmt: skip
    assert done["frozen"].finding == "1 of 6 parameters"
    assert done["gradients"].finding == "of 5 trained parameters: stage 3 1, stage 4 3, top 5"
    assert "crop 449 fits the stride" in done["cost at 448"].finding
    assert all(each.cure for each in done.values() if each.result == "note")


@pytest.mark.parametrize(
    ("kind", "step", "result", "words"),
    [
        (InPlace, repeatable, "failed", "writes into the images"),
        (Restless, repeatable, "failed", "other maps the second time"),
        (Mixing, repeatable, "failed", "depend on the other images of its batch"),
        (NotANumber, repeatable, "failed", "NaN or infinity"),
        (Copies, frozen, "failed", "1 of 1 are no parameters of the module"),
        (AllFrozen, frozen, "note", "6 of 6 parameters"),
        (Quietly, frozen, "note", "1 more have requires_grad False, e.g. stage4.weight"),
        (Detached, gradients, "failed", "top 0"),
        (MiddleDetached, gradients, "note", "stage 4 0, top 5"),
        (Beside, gradients, "failed", "not from the top, which alone trains it: unused.weight"),
        (AllFrozen, gradients, "note", "nothing is trained"),
        (Tied, layers, "failed", "cannot be saved"),
        (Lazy, layers, "failed", "lazy layers have no shape yet"),
        (Growing, layers, "failed", "a second backbone has other layers: more.weight"),
        (Loud, tap_scale, "note", "stage 3 "),
        (Silent, tap_scale, "failed", "stage 4 0,"),
        (Looks, meta, "note", "its forward raised RuntimeError: "),
        (Looks, cost, "passed", "memory unknown"),
        (Normed, batch_norm, "note", "1 of 1 would train"),
        (HalfAPyramid, pyramid, "failed", "turns (1, 3, 33, 50) into"),
    ],
)
def test_each_fault_is_seen_by_its_check(
    kind: type[nn.Module], step: Callable[[Subject], Check], result: str, words: str
) -> None:
    name = f"{__name__}:{kind.__qualname__}"
    found = step(Subject(name, make_backbone(name), None, 3))
    assert (found.result, words in found.finding) == (result, True), found
    assert (found.cure != "") == (result != "passed")


def test_what_is_raised_is_a_failed_check_and_the_others_go_on() -> None:
    done = checks(TrainsOnly)
    assert [each.check for each in done.values() if each.result == "failed"] == ["gradients"]
    assert "its forward raised ValueError: no labels were given" in done["gradients"].finding


def test_after_wrong_shapes_nothing_else_is_asked() -> None:
    from tests.bad_input.backbones import WrongSize

    done = checks(WrongSize)
    assert list(done) == ["interface", "layers", "shapes"] and "stride (is 8)" in done["shapes"].cure


def test_weights_are_loaded_and_what_was_left_out_is_a_note(tmp_path: Path) -> None:
    network, path, name = Plain(), tmp_path / "plain.pth", f"{Plain.__module__}:Plain"
    subject = Subject(name, make_backbone(name), str(path), 3)
    torch.save(network.state_dict(), path)
    found = weights(subject)
    assert found.result == "passed" and "6 tensors fit" in found.finding
    assert torch.equal(subject.module.state_dict()["top.weight"], network.top.weight), "the later checks see them"
    torch.save(network.state_dict() | {"top.1.weight": torch.ones(1)}, path)
    found = weights(subject)
    assert found.result == "note" and "left out: top.1.weight" in found.finding
    torch.save({"stage3.weight": network.stage3.weight}, path)
    assert weights(subject).result == "failed"


@pytest.mark.parametrize("name", ["scene", "resnet50", "efficientnet_lite0_stride8"])
def test_ours_keep_the_contract(name: str) -> None:
    subject = Subject(name, make_backbone(name), None, 20)
    for step in (layers, shapes, repeatable, batch_norm, frozen, gradients):
        found = step(subject)
        assert found.result == "passed", found


def test_published_weights_have_a_scale() -> None:
    subject = Subject("efficientnet_lite0", make_backbone("efficientnet_lite0"), "imagenet", 20)
    assert weights(subject).result == "passed"
    assert re.search(r"image 1\.1, stage 3 [\d.]+, stage 4 [\d.]+, top [\d.]+$", tap_scale(subject).finding)
