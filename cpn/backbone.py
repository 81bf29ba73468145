"""The interface between a backbone and everything above it, and the way to get one by name."""

import importlib
import inspect
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from cpn.errors import InputError


@runtime_checkable
class Backbone(Protocol):
    """What the CAM, affinity and segmentation networks ask of a backbone, which is an `nn.Module`.

    `channels` are those of the three maps that calling it returns: two middle stages ("stage 3 and 4" of the paper,
    which feed PCM and PRCM) and the top, from which the classifier reads the CAM. All three have the same size,
    ceil(input / stride). `frozen_parameters` lists what is not trained.
    """

    channels: tuple[int, int, int]
    stride: int

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) normalised images -> three maps (B, channels[i], ceil(H/stride), ceil(W/stride))."""
        ...

    def frozen_parameters(self) -> list[nn.Parameter]:
        """The parameters that stay at their pretrained values."""
        ...


BACKBONES = {
    "scene": "cpn.scene_backbone:SceneBackbone",
    "resnet38": "cpn.resnet38d:ResNet38",
    "resnet50": "cpn.resnet50:ResNet50",
    "efficientnet_lite0": "cpn.efficientnet_lite0:EfficientNetLite0",
    "efficientnet_lite0_stride8": "cpn.efficientnet_lite0:stride_8",
}


def build_backbone(name: str) -> nn.Module:
    """Build the backbone called `name`: one of `BACKBONES`, or a user's own as `package.module:factory`.

    A factory is called without arguments. A user's own is run once on a small picture, so that a map of another size
    than it promises is said here and not by a loss. Raises InputError (key network.backbone) when there is no such
    thing, or when it isn't a backbone.
    """
    target = BACKBONES.get(name, name)
    module_name, _, factory_name = target.partition(":")
    if not factory_name or not module_name or module_name.startswith("."):
        known = ", ".join(sorted(BACKBONES))
        raise InputError(f"network.backbone: {name!r} is unknown; use {known}, or your own as 'package.module:factory'")
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"network.backbone: {name!r} cannot be imported ({error}); check the module's name") from error
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise InputError(
            f"network.backbone: {name!r} cannot be called without arguments ({error}); name a factory that needs none"
        ) from error
    backbone = factory()
    if not isinstance(backbone, nn.Module) or not isinstance(backbone, Backbone):
        raise InputError(
            f"network.backbone: {name!r} makes a {type(backbone).__name__}; it needs to be an nn.Module with "
            "`channels`, `stride` and `frozen_parameters()`"
        )
    module = cast(nn.Module, backbone)
    if name not in BACKBONES and (fault := _fault(module)):
        raise InputError(f"network.backbone: {name!r} {fault}; see `Backbone` in cpn/backbone.py")
    return module


def _fault(module: nn.Module) -> str | None:
    """What of the interface a user's backbone doesn't keep, in words; None when nothing was found."""
    backbone = cast(Backbone, module)
    numbers = (*backbone.channels, backbone.stride) if isinstance(backbone.channels, tuple | list) else ()
    if len(numbers) != 4 or not all(isinstance(n, int) and n > 0 for n in numbers):
        return f"has channels {backbone.channels} and stride {backbone.stride}, not three whole numbers and one"
    height, width = 33, 50
    training = module.training
    with torch.no_grad():
        maps = module.eval()(torch.zeros(1, 3, height, width))
    module.train(training)
    size = (-(-height // backbone.stride), -(-width // backbone.stride))
    wanted = [(1, channels, *size) for channels in backbone.channels]
    if not isinstance(maps, tuple | list) or not all(isinstance(m, Tensor) for m in maps):
        return f"returns a {type(maps).__name__} and not three maps"
    given = [tuple(m.shape) for m in maps]
    return None if given == wanted else f"turns (1, 3, {height}, {width}) into {given}, not into {wanted}"
