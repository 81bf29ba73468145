"""The interface between a backbone and everything above it, and the way to get one by name.

`python -m cpn.backbone --check NAME` holds a backbone to all of it (cpn/cost/backbone_check.py).
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from cpn.core.code_files import check_code
from cpn.core.contents import TIMM, own_modules
from cpn.core.errors import InputError
from cpn.core.own_code import own_code

if TYPE_CHECKING:  # torch is imported where it is used, so that --help answers at once
    from torch import Tensor, nn


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
        """Return the parameters that stay at their pretrained values."""
        ...


BACKBONES = {
    "scene": "cpn.models.scene_backbone:SceneBackbone",
    "resnet38": "cpn.models.resnet38d:ResNet38",
    "resnet50": "cpn.models.resnet50:ResNet50",
    "efficientnet_lite0": "cpn.models.efficientnet_lite0:EfficientNetLite0",
    "efficientnet_lite0_stride8": "cpn.models.efficientnet_lite0:stride_8",
}

EXAMPLE = "python -m cpn.backbone --check my_networks.mobile:backbone"


def is_known(name: str) -> bool:
    """Return whether a backbone is one of `BACKBONES` or timm's, so that no code of the user's makes it."""
    return name in BACKBONES or name.startswith(TIMM)


def build_backbone(name: str) -> nn.Module:
    """Build the backbone called `name`: of `BACKBONES`, timm's as `timm:NAME`, or a user's as `package.module:factory`.

    A factory is called without arguments. What is not in `BACKBONES` is run once on a small image, so that a map of
    another size than it promises is said here and not by a loss. Raises InputError (key network.backbone) when there is
    no such thing, when it isn't a backbone, when somebody else could have written its code, or when that raises
    anything.
    """
    module = make_backbone(name)
    if name in BACKBONES:
        return module
    with own_code(name, "one of its attributes or methods"):
        fault = interface_fault(module) or maps_fault(module, name, 33, 50)
    if fault:
        raise InputError(f"network.backbone: {name!r} {fault}; python -m cpn.backbone --check {name} shows all faults")
    return module


def make_backbone(name: str) -> nn.Module:
    """Make the backbone called `name` as its factory does, an nn.Module with the interface's names; nothing is run.

    Raises InputError like `build_backbone`.
    """
    from torch import nn

    if name.startswith(TIMM):
        from cpn.models.timm_backbone import timm_backbone

        return timm_backbone(name)
    factory = find_factory(name)
    with own_code(name, "its factory"):
        backbone = factory()
        fits = isinstance(backbone, nn.Module) and isinstance(backbone, Backbone)
    if not fits:
        raise InputError(
            f"network.backbone: {name!r} makes a {type(backbone).__name__}; it needs to be an nn.Module with "
            "`channels`, `stride` and `frozen_parameters()`"
        )
    return cast("nn.Module", backbone)


def find_factory(name: str) -> Callable[[], object]:
    """Return what makes the backbone called `name` when it is called. Raises InputError when there is no such thing."""
    target = BACKBONES.get(name, name)
    module_name, _, factory_name = target.partition(":")
    if not factory_name or not all(part.isidentifier() for part in module_name.split(".")):
        known = ", ".join(sorted(BACKBONES))
        raise InputError(
            f"network.backbone: {name!r} is unknown; use {known}, timm:NAME, or your own as 'package.module:factory'"
        )
    if name not in BACKBONES:
        check_code(name)
        if module_name.partition(".")[0] in sys.stdlib_module_names and not own_modules(name):
            raise InputError(f"network.backbone: {name!r} is of Python's own and no backbone; name a module of yours")
    try:
        with own_code(name, "its module"):
            try:
                module = importlib.import_module(module_name)
            except ModuleNotFoundError as error:
                if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                    raise  # the module is there and asks for another that is not
                raise _not_imported(name, error) from error
        factory: Callable[[], object] = getattr(module, factory_name)
    except AttributeError as error:
        raise _not_imported(name, error) from error
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise InputError(
            f"network.backbone: {name!r} cannot be called without arguments ({error}); name a factory that needs none"
        ) from error
    return factory


def _not_imported(name: str, error: Exception) -> InputError:
    return InputError(f"network.backbone: {name!r} cannot be imported ({error}); check the module's name")


def interface_fault(module: nn.Module) -> str | None:
    """Return what is wrong with a backbone's `channels`, `stride` and device, in words; None when nothing is."""
    import torch

    backbone = cast(Backbone, module)
    numbers = (*backbone.channels, backbone.stride) if isinstance(backbone.channels, tuple | list) else ()
    if len(numbers) != 4 or not all(isinstance(n, int) and n > 0 for n in numbers):
        return f"has channels {backbone.channels} and stride {backbone.stride}, not three whole numbers and one"
    here = torch.empty(0).device
    if away := next((str(p.device) for p in module.parameters() if p.device != here), None):
        return f"has parameters on {away} and not on {here}, where its factory is called"
    return None


def maps_fault(module: nn.Module, name: str, height: int, width: int) -> str | None:
    """Return what is wrong with the maps of an image of height x width, in words; None when nothing is.

    The backbone `name` is run in evaluation mode, where it lies or on torch's default device, and left in the mode it
    was in. Raises InputError when its forward raises anything.
    """
    import torch
    from torch import Tensor

    backbone = cast(Backbone, module)
    training = module.training
    size = (-(-height // backbone.stride), -(-width // backbone.stride))
    for count in (1, 2):
        images = torch.ones(count, 3, height, width)
        try:
            with own_code(name, "its forward"), torch.no_grad():
                maps = module.eval()(images)
        except InputError:
            if count == 1:
                raise
            return None  # of several images: said where they are first trained on
        finally:
            module.train(training)
        wanted = [(count, channels, *size) for channels in backbone.channels]
        if not isinstance(maps, tuple | list) or not all(isinstance(m, Tensor) for m in maps):
            return f"returns a {type(maps).__name__} and not three maps"
        if (shapes := [tuple(m.shape) for m in maps]) != wanted:
            return f"turns ({count}, 3, {height}, {width}) into {shapes}, not into {wanted}"
        if odd := [str(m.dtype) for m in maps if m.dtype != torch.float32]:
            return f"returns maps of {odd[0]} and not of torch.float32"
        other = next((m for m in maps if m.layout != torch.strided or m.device != images.device), None)
        if other is not None:
            kind = f"on {other.device}" if other.device != images.device else f"as {other.layout}"
            return f"returns maps {kind} and not dense ones on {images.device} as its images"
        if images.device.type != "meta" and not torch.equal(images, torch.ones_like(images)):
            return "changes the images that it is given, which are used after it"
    return None


def frozen_of(module: nn.Module) -> list[nn.Parameter]:
    """List the parameters that a backbone asks not to train. InputError where a user's own lists anything else, or
    raises.
    """
    from torch import nn

    if not is_own(module):
        return list(cast(Backbone, module).frozen_parameters())
    name = f"{type(module).__module__}:{type(module).__qualname__}"
    with own_code(name, "its frozen_parameters()"):
        listed = list(cast(Backbone, module).frozen_parameters())
    odd = next((type(item).__name__ for item in listed if not isinstance(item, nn.Parameter)), None)
    if odd is not None:
        raise InputError(
            f"network.backbone: {name!r}: its frozen_parameters() lists a {odd}; return the module's own nn.Parameter "
            "objects"
        )
    return listed


def is_own(backbone: nn.Module) -> bool:
    """Return whether a backbone is a user's own and not one of this product."""
    return type(backbone).__module__.partition(".")[0] != "cpn"


def maps_of(backbone: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run a backbone: (B, 3, H, W) -> its three maps. What a user's own raises is an InputError with file and line."""
    if not is_own(backbone):
        return cast(Backbone, backbone)(images)
    with own_code(f"{type(backbone).__module__}:{type(backbone).__qualname__}", "its forward"):
        return cast(Backbone, backbone)(images)


def hold_batch_norm(backbone: nn.Module) -> None:
    """Put the batch norms of a user's backbone into evaluation mode, as ours do by themselves (method.md (c)).

    A batch norm that trained would mix the images of a batch and their hidden halves.
    """
    for norm in training_batch_norms(backbone) if is_own(backbone) else ():
        norm.eval()


def training_batch_norms(backbone: nn.Module) -> list[nn.Module]:
    """Return the batch norms that are in training mode and keep running statistics."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return [module for module in backbone.modules() if isinstance(module, _BatchNorm) and module.training]


def batch_norm_note(backbone: nn.Module, name: str) -> str | None:
    """Return one line for a backbone whose batch norms do not stay in evaluation mode; None for any other."""
    training = backbone.training
    moving = len(training_batch_norms(backbone.train()))
    backbone.train(training)
    if not moving or not is_own(backbone):
        return None
    return (
        f"network.backbone: {moving} batch norms of {name!r} would train; the CAM network and AffinityNet keep them in "
        "evaluation mode"
    )
