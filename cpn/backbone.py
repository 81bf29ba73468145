"""The interface between a backbone and everything above it, and the way to get one by name."""

import importlib
from typing import Protocol, cast, runtime_checkable

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


BACKBONES = {"scene": "cpn.scene_backbone:SceneBackbone", "resnet38": "cpn.resnet38d:ResNet38"}


def build_backbone(name: str) -> nn.Module:
    """The backbone called `name`: `scene`, `resnet38`, or a user's own as `package.module:factory`.

    Raises InputError (key network.backbone) when there is no such thing, or when it isn't a backbone.
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
    backbone = factory()
    if not isinstance(backbone, nn.Module) or not isinstance(backbone, Backbone):
        raise InputError(
            f"network.backbone: {name!r} makes a {type(backbone).__name__}; it needs to be an nn.Module with "
            "`channels`, `stride` and `frozen_parameters()`"
        )
    return cast(nn.Module, backbone)
