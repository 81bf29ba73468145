"""Backbones of users that are none: what they raise and what they return, in every command that meets them."""

import torch
from torch import Tensor, nn

from tests.bad_input.case import Case, spec, voc


class Plain(nn.Module):
    """A backbone without fault at stride 4, which the others spoil."""

    channels = (4, 5, 6)
    stride = 4

    def __init__(self) -> None:
        super().__init__()
        self.stage3 = nn.Conv2d(3, 4, 3, 4, 1)
        self.stage4, self.top = nn.Conv2d(4, 5, 1), nn.Conv2d(5, 6, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stage3 = self.stage3(images)
        stage4 = self.stage4(stage3)
        return stage3, stage4, self.top(stage4)

    def frozen_parameters(self) -> list[nn.Parameter]:
        return [self.stage3.weight]


class WrongSize(Plain):
    """Says stride 8 and has 4."""

    stride = 8


class Raises(Plain):
    """Its forward divides by zero."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(images / (0 // int(images.shape[0] - 1)))


class Mismatched(Plain):
    """Two layers that do not fit, which torch finds."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(torch.cat([images, images], dim=1))


class HalfPrecision(Plain):
    """Its maps are of another precision than the layers above."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stage3, stage4, top = super().forward(images)
        return stage3.half(), stage4.half(), top.half()


class OneOfABatch(Plain):
    """Gives the maps of the first image alone."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(images[:1])


class InPlace(Plain):
    """Changes the images, which PCM looks at afterwards."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(images.sub_(0.5))


class Sparse(Plain):
    """Its top is a sparse tensor."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stage3, stage4, top = super().forward(images)
        return stage3, stage4, top.to_sparse()


class Elsewhere(Plain):
    """Its top lies on another device."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stage3, stage4, top = super().forward(images)
        return stage3, stage4, top.to("meta")


class Untrainable(Plain):
    """Its train(), which eval() calls too, raises."""

    def train(self, mode: bool = True) -> "Untrainable":
        raise ValueError("never")


def elsewhere() -> nn.Module:
    """A factory that makes its layers on another device than it is asked to."""
    return Plain().to("meta")


def seeded() -> nn.Module:
    """A factory that seeds: every run would start from the same numbers, whatever its seed."""
    torch.manual_seed(torch.initial_seed() ^ 1)
    return Plain()


def broken() -> nn.Module:
    """A factory that raises."""
    raise KeyError("layers")


def nothing() -> None:
    """A factory that makes nothing."""


HERE = "tests.bad_input.backbones"
FILE = "tests/bad_input/backbones.py, line "


def rows(name: str, factory: str, *words: str) -> list[Case]:
    """The backbone in a sweep, its dry run, a single run, the conversion of weights, and the check."""
    backbone = factory if ":" in factory else f"{HERE}:{factory}"
    sets = f"--set network.backbone={backbone} --set network.weights=null"
    commands = {
        "sweep": f"platform.sweep s.yaml --set data.root=data {sets}",
        "dry run": f"platform.sweep s.yaml --dry-run --run-code {sets}",
        "train": f"platform.train --set preset=scenes {sets}",
    }
    made = [
        Case(f"backbone: {name}, {kind}", command, ("network.backbone: ", *words), voc() if kind == "sweep" else spec())
        for kind, command in commands.items()
    ]
    return [*made, Case(f"backbone: {name}, check", f"cpn.backbone --check {backbone}", ("network.backbone: ", *words))]


CASES = [
    *rows("no module of that name", "no.such.module:make", "cannot be imported (No module named 'no'"),
    *rows("no factory of that name", "absent", "cannot be imported", "has no attribute 'absent'"),
    *rows("a factory that makes nothing", "nothing", "makes a NoneType; it needs to be an nn.Module with"),
    *rows("a factory that raises", "broken", "its factory raised KeyError: 'layers'", FILE, "--check"),
    *rows("a forward that raises", "Raises", "its forward raised ZeroDivisionError", FILE, "correct it there"),
    *rows("maps of half precision", "HalfPrecision", "returns maps of torch.float16 and not of torch.float32"),
    *rows("maps of one image", "OneOfABatch", "turns (2, 3, 33, 50) into [(1, 4, 9, 13)"),
    *rows("sparse maps", "Sparse", "returns maps as torch.sparse_coo and not dense ones on cpu"),
    *rows("maps on another device", "Elsewhere", "returns maps on meta and not dense ones on cpu"),
    *rows("layers on another device", "elsewhere", "has parameters on meta and not on cpu, where its factory"),
    *rows("a train() that raises", "Untrainable", "methods raised ValueError: never", FILE, "correct it there"),
    *rows("a factory that seeds", "seeded", "its factory changes torch's seed, which everything else in the process"),
    *rows("images that are changed", "InPlace", "changes the images that it is given, which are used after it"),
    *rows("layers that do not fit", "Mismatched", "its forward raised RuntimeError: Given groups=1", FILE),
    *rows("maps of another size", "WrongSize", "turns (1, 3, 33, 50) into [(1, 4, 9, 13)"),
    Case("backbone: no name to check", "cpn.backbone", ("the following arguments are required: --check",), usage=True),
    Case("backbone: no classes", f"cpn.backbone --check {HERE}:Plain --classes 0", ("--classes 0", "give 1 or more")),
    Case("backbone: no weights file", f"cpn.backbone --check {HERE}:Plain --weights absent.pth",
         ("weights: absent.pth: no such weights file",)),
    Case("backbone: a name of ours misspelt", "cpn.backbone --check resnet5", ("'resnet5' is unknown; use",)),
    Case("backbone: a name that timm cannot have", "cpn.backbone --check timm:../resnet18",
         ("network.backbone: 'timm:../resnet18'",)),
]  # fmt: skip
