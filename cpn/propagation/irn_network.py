"""IRN's network (Ahn, Cho and Kwak 2019): a frozen backbone with heads for edges and for displacements.

Layer names are the released code's, whose backbone is a ResNet50 at strides 4, 4, 8, 16, 16; any pyramid will do.
"""

from typing import Protocol, Self, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cpn.core.errors import InputError
from cpn.core.own_code import own_code
from cpn.data.transforms import normalise
from cpn.models.backbone import BACKBONES, build_backbone
from cpn.propagation.irn_walk import EDGE_STRIDE

EDGE_WIDTH = 32
DISPLACEMENT_WIDTHS = (64, 128, 256, 256, 256)
DISPLACEMENT_GROUPS = (8, 16, 16, 16, 16)

Pyramid = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@runtime_checkable
class PyramidBackbone(Protocol):
    """What IRN asks of a backbone beyond `cpn.models.backbone.Backbone`: maps of five stages, from fine to coarse."""

    pyramid_channels: tuple[int, int, int, int, int]
    pyramid_strides: tuple[int, int, int, int, int]
    """Powers of two, none below the one before it."""

    def pyramid(self, images: Tensor) -> Pyramid:
        """(B, 3, H, W) normalised images -> five maps (B, pyramid_channels[i], ceil(H/stride i), ceil(W/stride i))."""
        ...


def pyramid_backbone(name: str, key: str = "network.backbone") -> nn.Module:
    """Return the backbone called `name`, if it has a pyramid. InputError if not, or if its maps are not as it says.

    What is wrong with the backbone itself is said of `key`, the name of the value that holds it.
    """
    cure = "use resnet50, resnet38, efficientnet_lite0 or scene as irn.backbone, or random_walk.kind affinity"
    try:
        backbone = build_backbone(name)
        if not isinstance(backbone, PyramidBackbone):
            raise InputError(f"random_walk.kind: irn needs five stages, but {name!r} has no `pyramid`; {cure}")
        if name not in BACKBONES:
            with own_code(name, "its pyramid"), torch.no_grad():
                fault = _pyramid_fault(backbone)
            if fault:
                raise InputError(f"random_walk.kind: irn: {name!r} {fault}; {cure}")
    except InputError as error:
        said = str(error)
        if not said.startswith("network.backbone:") or key == "network.backbone":
            raise
        raise InputError(said.replace("network.backbone", key, 1)) from error
    return cast(nn.Module, backbone)


def _pyramid_fault(backbone: PyramidBackbone) -> str | None:
    """Return how a user's pyramid differs from what it says, in words; None where it does not."""
    for name in ("pyramid_channels", "pyramid_strides"):
        numbers = getattr(backbone, name)
        if not isinstance(numbers, tuple | list) or len(numbers) != 5 or not all(map(_counts, numbers)):
            return f"has {name} {numbers!r}, not five whole numbers from 1 on"
    strides = backbone.pyramid_strides
    if list(strides) != sorted(strides) or any(stride & (stride - 1) for stride in strides):
        return f"has pyramid_strides {strides!r}, not powers of two of which none is below the one before it"
    cast(nn.Module, backbone).eval()
    maps: object = backbone.pyramid(torch.zeros(1, 3, 33, 50))
    if not isinstance(maps, tuple | list) or not all(isinstance(each, Tensor) for each in maps):
        return f"returns a {type(maps).__name__} from its pyramid, not five maps"
    shapes = [tuple(each.shape) for each in maps]
    pairs = zip(backbone.pyramid_channels, strides, strict=True)
    wanted = [(1, channels, -(-33 // stride), -(-50 // stride)) for channels, stride in pairs]
    if shapes != wanted:
        return f"turns (1, 3, 33, 50) into {shapes}, not {wanted}"
    if odd := [str(each.dtype) for each in maps if each.dtype != torch.float32]:
        return f"returns maps of {odd[0]} from its pyramid, not of torch.float32"
    return None


def _counts(number: object) -> bool:
    return type(number) is int and number > 0


def reduction(inputs: int, outputs: int, groups: int) -> nn.Sequential:
    """1x1 convolution without bias, group norm; the ReLU comes after the upsampling."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(groups, outputs))


class MeanShift(nn.Module):
    """Takes off the running mean of each channel, at test alone: a displacement field is known up to a constant."""

    running_mean: Tensor

    def __init__(self, channels: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, field: Tensor) -> Tensor:
        """(B, C, h, w) -> the same, which in training moves the mean and is left as it is."""
        if not self.training:
            return field - self.running_mean[:, None, None]
        with torch.no_grad():
            self.running_mean.lerp_(field.mean(dim=(0, 2, 3)).to(self.running_mean.dtype), self.momentum)
        return field


def finer_to(maps: Tensor, stride: int, wanted: int) -> Tensor:
    """Return maps of a stride below `wanted` as means over its cells (a cell cut by the border counts what it has)."""
    if stride >= wanted:
        return maps
    return functional.avg_pool2d(maps, wanted // stride, ceil_mode=True)


def coarser_to(maps: Tensor, stride: int, wanted: int, size: tuple[int, int]) -> Tensor:
    """Return maps of a stride above `wanted`, bilinear by the ratio (align_corners False) and cut to `size`."""
    if stride <= wanted:
        return maps
    factor = float(stride // wanted)
    large = functional.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    return large[..., : size[0], : size[1]]


class IrnNet(nn.Module):
    """Edge logits and displacements at stride 4 from the five maps of a backbone that is never trained.

    The two heads share no trained weight, and the walk reads edges alone: without `displacement` the pseudo labels are
    the same. A pyramid map finer than stride 4 (ResNet38's first, the first two of scenes) is averaged over cells of 4
    pixels before its head sees it; coarser ones are upsampled after the group norm.
    """

    def __init__(self, backbone: nn.Module, displacement: bool = True) -> None:
        """Take over `backbone`, which has to be a PyramidBackbone, and freeze all of it."""
        super().__init__()
        self.backbone = backbone
        for parameter in backbone.parameters():
            parameter.requires_grad_(False)
        pyramid = cast(PyramidBackbone, backbone)
        self.strides = pyramid.pyramid_strides
        for at, channels in enumerate(pyramid.pyramid_channels, 1):
            self.add_module(f"fc_edge{at}", reduction(channels, EDGE_WIDTH, 4))
        self.fc_edge6 = nn.Conv2d(5 * EDGE_WIDTH, 1, 1)
        self.displacement = displacement
        if displacement:
            widths = DISPLACEMENT_WIDTHS
            layers = zip(pyramid.pyramid_channels, widths, DISPLACEMENT_GROUPS, strict=True)
            for at, (channels, width, groups) in enumerate(layers, 1):
                self.add_module(f"fc_dp{at}", reduction(channels, width, groups))
            self.fc_dp6 = reduction(sum(widths[2:]), 256, 16)
            last = [nn.ReLU(), nn.Conv2d(256, 2, 1, bias=False), MeanShift(2)]
            self.fc_dp7 = nn.Sequential(*reduction(widths[0] + widths[1] + 256, 256, 16), *last)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Like `nn.Module.train`; the backbone stays as at test."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, 3, H, W) normalised images -> edge logits (B, h, w), displacements (B, 2, h, w) as (dy, dx) in cells.

        h = ceil(H / 4), w = ceil(W / 4). None in place of displacements without that head.
        """
        with torch.no_grad():
            pyramid = cast(PyramidBackbone, self.backbone).pyramid(images)
        edge_parts = [self._reduced("fc_edge", at, pyramid, EDGE_STRIDE, images) for at in range(1, 6)]
        edges: Tensor = self.fc_edge6(torch.cat(edge_parts, dim=1))[:, 0]
        return edges, self._displacements(pyramid, images) if self.displacement else None

    def _displacements(self, pyramid: Pyramid, images: Tensor) -> Tensor:
        middle = max(EDGE_STRIDE, self.strides[2])
        fine = [self._reduced("fc_dp", at, pyramid, EDGE_STRIDE, images) for at in (1, 2)]
        coarse = [self._reduced("fc_dp", at, pyramid, middle, images) for at in (3, 4, 5)]
        joined = self.fc_dp6(torch.cat(coarse, dim=1))
        joined = torch.relu(coarser_to(joined, middle, EDGE_STRIDE, cells(images, EDGE_STRIDE)))
        field: Tensor = self.fc_dp7(torch.cat([*fine, joined], dim=1))
        return field

    def _reduced(self, head: str, at: int, pyramid: Pyramid, wanted: int, images: Tensor) -> Tensor:
        """Return the pyramid's map number `at` (1 to 5) through its layer of `head`, at stride `wanted`."""
        stride = self.strides[at - 1]
        reduced = self.get_submodule(f"{head}{at}")(finer_to(pyramid[at - 1], stride, wanted))
        return torch.relu(coarser_to(reduced, stride, wanted, cells(images, wanted)))

    @torch.no_grad()
    def image_edge(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Edge map of one image: uint8 (H, W, 3) -> float32 (ceil(H / 4), ceil(W / 4)) in [0, 1]. Needs eval mode.

        The sigmoid of the mean of the logits of the image and of its mirror image, turned back.
        """
        device = self.fc_edge6.weight.device
        shown = torch.from_numpy(np.ascontiguousarray(image)[None]).to(device, non_blocking=True)
        images = normalise(shown, None)
        logits, _ = self(torch.cat([images, images.flip(3)]))
        edge: NDArray[np.float32] = torch.sigmoid((logits[0] + logits[1].flip(1)).float() / 2).cpu().numpy()
        return edge

    def head_layers(self, head: str) -> list[nn.Module]:
        """Return the layers of one head, `fc_edge` or `fc_dp`."""
        return [module for name, module in self.named_children() if name.startswith(head)]


def cells(images: Tensor, stride: int) -> tuple[int, int]:
    """Return the size of a map of `stride` over images (B, 3, H, W)."""
    return -(-images.shape[2] // stride), -(-images.shape[3] // stride)
