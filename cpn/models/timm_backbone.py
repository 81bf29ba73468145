"""Backbones of the package timm, named as `timm:NAME`: stride, taps and normalisation come from what timm says of them.

A network of stages gives its last three maps, a plain vision transformer the tokens of three of its blocks. The three
maps have one size: a finer one is averaged over the cells of the last.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from cpn.core.contents import TIMM
from cpn.core.errors import InputError
from cpn.data.transforms import MEAN, STD

NAME = re.compile(r"timm:([a-z0-9_]+(?:\.[a-z0-9_]+)?)")
STRIDE_NAME = re.compile(r"(timm:.+?)_stride(8|16|32)")
STRIDE = 16
"""Output stride of a network of stages whose name asks for no other one."""
TAPS = 3
TOKEN_TAPS = (1 / 2, 3 / 4, 1)
"""The depths of a plain transformer at which tokens are read."""


class TimmBackbone(nn.Module):
    """A network of timm behind the interface `cpn.models.backbone.Backbone`.

    `net` maps images to its maps, of `channels` channels and `reductions` pixels a cell; `mean` and `std` are those of
    the images that it was trained with. Batch norm keeps its statistics unless `freeze_batch_norm` is set to False.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        net: nn.Module,
        channels: tuple[int, int, int],
        reductions: tuple[int, int, int],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.net, self.channels, self.reductions = net, channels, reductions
        self.stride = reductions[-1]
        self.freeze_batch_norm = True
        ours, theirs = (torch.tensor(values, dtype=torch.float64) for values in ((MEAN, STD), (mean, std)))
        # Constants, which no checkpoint needs.
        self.register_buffer("scale", (ours[1] / theirs[1]).float()[:, None, None], persistent=False)
        self.register_buffer("shift", ((ours[0] - theirs[0]) / theirs[1]).float()[:, None, None], persistent=False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Like `nn.Module.train`, but batch norm keeps its running statistics while `freeze_batch_norm` is set."""
        super().train(mode)
        if self.freeze_batch_norm:
            for norm in self._batch_norms():
                norm.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) normalised as `cpn.data.transforms.normalise` does -> three maps at (ceil(H/stride), ...).

        Images are padded with the mean colour, right and below, to whole cells: without it some networks have
        floor(H / stride) of them, and others fail.
        """
        height, width = images.shape[-2:]
        padded = functional.pad(images, (0, -width % self.stride, 0, -height % self.stride))
        maps = self.net(padded * self.scale + self.shift)
        stage3, stage4, top = (
            functional.avg_pool2d(each, self.stride // reduction) if reduction < self.stride else each
            for each, reduction in zip(maps, self.reductions, strict=True)
        )
        return stage3, stage4, top

    def frozen_parameters(self) -> list[nn.Parameter]:
        """List the first convolution, and the affine parameters of every batch norm."""
        first = [module for module in self.net.modules() if isinstance(module, nn.Conv2d)][:1]
        return [parameter for module in (*first, *self._batch_norms()) for parameter in module.parameters()]

    def _batch_norms(self) -> list[nn.Module]:
        return [module for module in self.net.modules() if isinstance(module, _BatchNorm)]


class Tokens(nn.Module):
    """A plain transformer of timm as a module that gives the tokens behind its blocks `blocks`, each layer-normed."""

    def __init__(self, inner: nn.Module, blocks: Sequence[int]) -> None:
        super().__init__()
        self.inner = inner
        self.blocks = cast(Any, inner).prune_intermediate_layers(list(blocks), prune_norm=False, prune_head=True)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), whole patches -> a map (B, D, H/patch, W/patch) for each block."""
        maps: list[Tensor] = cast(Any, self.inner).forward_intermediates(
            images, indices=self.blocks, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return maps


def timm_backbone(name: str, pretrained: bool = False) -> TimmBackbone:
    """Build the backbone `timm:NAME`, or `timm:NAME_strideN` with N 8, 16 or 32, from random numbers.

    With `pretrained` timm gets its weights from the network; a run never does. InputError (key network.backbone) where
    timm is not installed, has no such network, or cannot build it for images of any size at this stride.
    """
    stride, plain = None, name
    if match := STRIDE_NAME.fullmatch(name):
        plain, stride = match[1], int(match[2])
    timm = import_timm(name)
    known = NAME.fullmatch(plain)
    if known is None or not timm.is_model(known[1]):
        near = difflib.get_close_matches(plain.removeprefix(TIMM), timm.list_models(), 1)
        hint = f"did you mean {TIMM}{near[0]}?" if near else "print(timm.list_models()) lists them"
        raise InputError(f"network.backbone: {name!r}: timm {timm.__version__} has no such network; {hint}")
    try:
        with torch.device("meta"):
            sketch = timm.create_model(known[1])
        reductions = [stage["reduction"] for stage in sketch.feature_info]
    except (RuntimeError, TypeError, AttributeError) as error:
        raise _refused(name, f"timm describes no stages of it ({_words(error)})") from error
    if len(reductions) < TAPS:
        raise _refused(name, f"timm names {len(reductions)} maps of it, and three are needed")
    if len(set(reductions)) > 1:
        if sketch.pretrained_cfg.get("fixed_input_size"):
            raise _refused(name, "timm builds it for images of one size alone")
        net, channels, strides = _stages(timm, known[1], name, stride or STRIDE, pretrained)
    elif stride not in (None, reductions[0]):
        raise _refused(name, f"its tokens are {reductions[0]} pixels wide", f"leave out _stride{stride}")
    else:
        net = _tokens(timm, known[1], name, len(reductions), pretrained)
        width, side = sketch.feature_info[-1]["num_chs"], reductions[0]
        channels, strides = (width, width, width), (side, side, side)
    return TimmBackbone(net, channels, strides, sketch.pretrained_cfg["mean"], sketch.pretrained_cfg["std"])


def import_timm(name: str) -> Any:
    """Return the package timm. InputError where it, or the torchvision that it imports, is missing or does not fit
    torch.
    """
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"network.backbone: {name!r} needs the package timm ({_words(error)}): pip install 'cpn-platform[timm]'"
        ) from error
    except RuntimeError as error:  # torchvision for another torch
        raise InputError(
            f"network.backbone: {name!r}: timm cannot be imported ({_words(error)}); install the torchvision that fits "
            f"torch {torch.__version__}"
        ) from error
    return timm


def _stages(
    timm: Any, model: str, name: str, stride: int, pretrained: bool
) -> tuple[nn.Module, tuple[int, int, int], tuple[int, int, int]]:
    """Return a network of stages with dilation in place of the strides beyond `stride`; channels and strides of its
    maps.
    """
    dilated = {} if stride == 32 else {"output_stride": stride}
    try:
        net = timm.create_model(model, pretrained=pretrained, features_only=True, out_indices=(-3, -2, -1), **dilated)
    except (TypeError, AssertionError, NotImplementedError, RuntimeError) as error:
        reason = f"timm cannot build it at stride {stride} ({_words(error)})"
        own = f"{name.removesuffix(f'_stride{stride}')}_stride32 takes its own strides"
        raise (_refused(name, reason, own) if dilated else _refused(name, reason)) from error
    channels, reductions = tuple(net.feature_info.channels()), tuple(net.feature_info.reduction())
    if reductions[-1] != stride:
        raise _refused(name, f"timm builds it at stride {reductions[-1]}, not {stride}")
    return net, channels, reductions


def _tokens(timm: Any, model: str, name: str, depth: int, pretrained: bool) -> nn.Module:
    """Return a plain transformer of `depth` blocks that gives the tokens of three of them as maps."""
    try:
        inner = timm.create_model(model, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
        return Tokens(inner, [round(part * depth) - 1 for part in TOKEN_TAPS])
    except (TypeError, AssertionError, AttributeError, NotImplementedError, RuntimeError) as error:
        raise _refused(name, f"timm builds it for images of one size alone ({_words(error)})") from error


def _refused(name: str, reason: str, cure: str = "take another network") -> InputError:
    return InputError(f"network.backbone: {name!r}: {reason}; {cure}")


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
