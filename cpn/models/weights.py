"""Pretrained weights: read, rename, check, convert. `python -m cpn.weights --help` is the command.

Three kinds of file are read, told apart by their first bytes: MXNet `.params`, torch files (with weights_only: a
pickle with code inside is refused) and safetensors. Nothing is written into a network before everything fits.
The command also takes whole networks that the authors of CPN and SEAM released (`cpn.stages.released`).
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile, is_zipfile

from cpn.core.checked import side_digest, side_file, verified, write_side
from cpn.core.errors import InputError
from cpn.core.files import DamagedFile, write_bytes
from cpn.core.plain_file import file_there, folder_there, refuse_irregular
from cpn.models.backbone import BACKBONES, build_backbone
from cpn.models.mxnet_params import MAGIC, read_params

if TYPE_CHECKING:  # torch is imported where it is used, so that --help answers at once
    from torch import Tensor, nn

RESNET38_FILE = "ilsvrc-cls_rna-a1_cls1000_ep-0001.params"
RESNET38_MD5 = "ff21f45d6bf03284100dcbec571edfad"  # models/checksum.md5 of itijyou/ademxapp
RESNET38_SOURCE = f"get {RESNET38_FILE} (Model A1) from the links in the README of github.com/itijyou/ademxapp"
RESNET50_SOURCE = (
    "get resnet50-0676ba61.pth or resnet50-11ad3fa6.pth (torchvision's ResNet50_Weights.IMAGENET1K_V1 or _V2) from "
    "download.pytorch.org/models"
)
WHERE_FROM = {
    "conv1a.weight": f"for ResNet38 {RESNET38_SOURCE}",
    "layer1.0.conv1.weight": f"for ResNet-50 {RESNET50_SOURCE}",
    "_conv_stem.weight": "for EfficientNet-Lite0 set network.weights to imagenet",
}
"""A layer that tells a network by its names, and where its ImageNet weights are had."""
ANYWHERE = ", ".join(WHERE_FROM.values())
BATCH_NORM_NAMES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}
MXNET_BLOCK = re.compile(r"(res|bn)(\d)(a|b\d)_(branch[12][ab12]*)_(weight|gamma|beta|moving_mean|moving_var)")
MXNET_TOP = re.compile(r"bn7_(gamma|beta|moving_mean|moving_var)")


@dataclass(frozen=True)
class WeightsReport:
    """What a file has for a network, by the network's names.

    `loaded` fit; `missing` are asked for and absent; `misfits` say in words why a tensor cannot be used (other shape,
    no numbers, NaN, a bias that its layer lacks); `unexpected` are in the file and not asked for, such as a classifier.
    `surplus`, some of them, lie in parts that the network has, such as the blocks of ResNet-101 that ResNet-50 lacks.
    """

    path: Path
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    misfits: tuple[str, ...]
    unexpected: tuple[str, ...]
    surplus: tuple[str, ...] = ()

    def warning(self) -> str | None:
        """Say in one line that the file is probably of a larger network; None where nothing speaks for it."""
        if not self.surplus:
            return None
        return (
            f"{self.path}: {len(self.surplus)} layers that the network lacks are left out: {_some(self.surplus)}; the "
            "file is of a larger or another network: make sure that network.backbone is the one it was trained with"
        )

    def sentence(self) -> str:
        """Return the report in one line for a log."""
        left = f"not used: {_some(self.unexpected)}" if self.unexpected else "nothing left over"
        return f"{self.path}: {len(self.loaded)} tensors fit; {left}"


def read_weights(path: Path, cure: str = ANYWHERE) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name, on the CPU: ours for a `.params` file, else as they stand.

    A torch file may wrap them in `state_dict` or `model`; of it and of safetensors the prefix `module.` of DataParallel
    is taken off.
    Raises InputError, with `cure`, when the file is absent, damaged, or holds anything but named tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from cpn.models.checkpoint import check_tensors

    refuse_irregular(path)
    if not file_there(path):
        raise InputError(f"{path}: {'is a folder, ' if folder_there(path) else ''}no such weights file; {cure}")
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if start[:8] == MAGIC.to_bytes(8, "little"):
        return convert_mxnet_names({name: torch.from_numpy(array) for name, array in read_params(path).items()}, path)
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        return _read_torch(path)
    if start[8:9] == b"{":
        recorded = side_digest(path)
        if recorded is not None and not verified(path, recorded):
            raise DamagedFile(path, "copy or convert it again", f"it is not what {side_file(path).name} tells")
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: a damaged safetensors file ({error}); copy or convert it again") from error
        check_tensors(path, tensors, "copy or convert it again")
        return _without_prefix(tensors, "module.")
    raise InputError(f"{path}: neither MXNet .params, torch nor safetensors; {cure}")


def _read_torch(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torch's own formats; what matters is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
        damaged = _damaged_part(path)
    except Exception as error:  # a foreign pickle stream fails in as many ways as it has opcodes
        code = re.search("GLOBAL|Unsupported class|Trying to", str(error)) is not None
        reason = "it holds more than tensors, and code in a file is not run" if code else "it is damaged or none"
        raise InputError(
            f"{path}: not loaded as a torch file: {reason}; save its state dict alone with torch.save, or copy it again"
        ) from error
    if damaged is not None:
        raise InputError(f"{path}: a damaged torch file ({damaged} is not what its checksum says); copy it again")
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if (
        not isinstance(content, Mapping)
        or not all(isinstance(v, torch.Tensor) for v in content.values())
        or not content
    ):
        raise InputError(f"{path}: not a state dict of named tensors; save network.state_dict() alone with torch.save")
    return _without_prefix({str(name): tensor for name, tensor in content.items()}, "module.")


def _damaged_part(path: Path) -> str | None:
    """Return the first part of a torch file that has not its checksum: torch writes them and does not read them."""
    if not is_zipfile(path):  # the form of before torch 1.6 has none
        return None
    with ZipFile(path) as file:
        return file.testzip()


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    if not all(name.startswith(prefix) for name in tensors):
        return tensors
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def mxnet_name(name: str) -> str:
    """Our name of an array of the MXNet ResNet38, e.g. `arg:res4b2_branch2a_weight` -> `b4_2.conv_branch2a.weight`.

    A name that is no layer of the backbone (the ImageNet classifier `linear1000`) stays as it is, without arg: or aux:.
    """
    bare = name.removeprefix("arg:").removeprefix("aux:")
    if bare == "conv1a_weight":
        return "conv1a.weight"
    if top := MXNET_TOP.fullmatch(bare):
        return f"bn7.{BATCH_NORM_NAMES[top[1]]}"
    block = MXNET_BLOCK.fullmatch(bare)
    if block is None or (block[1] == "res") != (block[5] == "weight"):
        return bare
    kind, stage, place, branch, value = block.groups()
    number = "" if place == "a" else f"_{place[1:]}"
    if kind == "res":
        return f"b{stage}{number}.conv_{branch}.weight"
    return f"b{stage}{number}.bn_{branch}.{BATCH_NORM_NAMES[value]}"


def convert_mxnet_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors under our names. Raises InputError when two arrays of the file `path` mean one layer."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        ours = mxnet_name(name)
        if ours in renamed:
            raise InputError(f"{path}: two arrays for the layer {ours}; {RESNET38_SOURCE}")
        renamed[ours] = tensor
    return renamed


def compare(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> WeightsReport:
    """Return how `tensors` of the file `path` fit the state dict `expected` (which may lie on the meta device).

    The counters `num_batches_tracked`, which many files lack and nothing here reads, are left out on both sides.
    """
    wanted = {name: value for name, value in expected.items() if not name.endswith("num_batches_tracked")}
    problems = {name: _misfit(name, wanted[name], tensors[name]) for name in wanted if name in tensors}
    others = [name for name in tensors if name not in wanted and not name.endswith("num_batches_tracked")]
    parts = {name.split(".")[0] for name in wanted}
    layers = {name.rpartition(".")[0] for name in wanted}
    more = [name for name in others if name.rpartition(".")[0] in layers]  # a bias, without which a layer is another
    return WeightsReport(
        path=path,
        loaded=tuple(name for name, problem in problems.items() if problem is None),
        missing=tuple(name for name in wanted if name not in tensors),
        misfits=tuple(problem for problem in problems.values() if problem is not None)
        + tuple(f"{name} belongs to a layer that has no such tensor here" for name in more),
        unexpected=tuple(name for name in others if name not in more),
        surplus=tuple(name for name in others if name not in more and name.split(".")[0] in parts),
    )


def _misfit(name: str, wanted: Tensor, tensor: Tensor) -> str | None:
    if (odd := not_plain(tensor)) is not None:
        return f"{name} {odd}"
    if tensor.shape != wanted.shape:
        return f"{name} is {tuple(tensor.shape)} and should be {tuple(wanted.shape)}"
    if (poison := poisoned(name, tensor)) is not None:
        return f"{name} {poison}"
    if tensor.ndim > 1 and not bool(tensor.any()):
        return f"{name} holds nothing but zeros"
    return None


def not_plain(tensor: Tensor) -> str | None:
    """Say in words why a file's tensor is no plain array of floating point numbers; None where it is one.

    Integers, booleans and numbers of 8 bits and fewer are parts of a quantized layer, whose scale lies elsewhere: taken
    as they stand they are other weights.
    """
    import torch

    if tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != "cpu":
        return f"is a nested, sparse or empty tensor ({tensor.layout}, {tensor.device}) without plain numbers"
    if tensor.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        return f"is {tensor.dtype} and not float16, bfloat16, float32 or float64"
    return None


def poisoned(name: str, tensor: Tensor) -> str | None:
    """Say in words what makes plain numbers unfit for the layer `name` in single precision; None where nothing does."""
    import torch

    numbers = tensor.float()
    if not torch.isfinite(numbers).all():
        return "contains NaN or infinity"
    if name.endswith("running_var") and bool((numbers < 0).any()):
        return "has negative variances"
    return None


def load_backbone_weights(backbone: nn.Module, path: Path) -> WeightsReport:
    """Put the weights of a file into a backbone (read by `read_weights`; also a file of a whole CPN of this product).

    Tensors that the backbone doesn't have, such as a classifier or the further blocks of a deeper network, are reported
    and not used; `WeightsReport.warning` is for the user to see. Raises InputError when the file is absent or damaged
    or when a layer is missing or does not fit; the backbone is then unchanged.
    """
    state = backbone.state_dict()
    cure = where_from(state)
    return _load(state, of_backbone(read_weights(path, cure), state), path, cure)


def where_from(names: Iterable[str]) -> str:
    """Return where weights with these layers are had, in words."""
    there = set(names)
    return next((text for layer, text in WHERE_FROM.items() if layer in there), "give a file of this network.backbone")


def of_backbone(tensors: dict[str, Tensor], wanted: Collection[str] = ()) -> dict[str, Tensor]:
    """Backbone names: a whole CPN of this product has them under `backbone.`, every other file plainly.

    `wanted` are the backbone's own names. Some may start with `backbone.` themselves: what fits more of them counts. A
    layer beside the backbone that is called like one of its own is not taken for it.
    """
    inner = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    bare = {name: tensor for name, tensor in tensors.items() if not name.startswith("backbone.")} | inner
    return tensors if len(tensors.keys() & set(wanted)) > len(bare.keys() & set(wanted)) else bare


def _load(state: Mapping[str, Tensor], tensors: dict[str, Tensor], path: Path, cure: str) -> WeightsReport:
    import torch

    report = compare(state, tensors, path)
    refuse_unless_whole(report, cure)
    with torch.no_grad():
        for name in report.loaded:
            state[name].copy_(tensors[name])
    return report


def refuse_unless_whole(report: WeightsReport, cure: str) -> None:
    """InputError in one line, with `cure`, when a layer is missing or does not fit."""
    problems = []
    if report.misfits:
        problems.append(f"{len(report.misfits)} layers do not fit: {_some(report.misfits)}")
    if report.missing:
        problems.append(f"{len(report.missing)} layers are missing: {_some(report.missing)}")
    if problems:
        raise InputError(f"{report.path}: {'; '.join(problems)}; {cure}")


def _some(names: tuple[str, ...], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as float32 safetensors, whole or absent, with the file's digest beside it: in it, the same weights
    converted by an earlier version would be other weights to a sweep.
    """
    from safetensors.torch import save

    data = save({name: tensor.float().contiguous() for name, tensor in tensors.items()})
    side_file(path).unlink(missing_ok=True)
    write_bytes(path, data)
    write_side(path, hashlib.sha256(data).hexdigest())


def noise_features(backbone: nn.Module) -> list[tuple[float, float]]:
    """Return mean and standard deviation of each tap on a fixed noise image of 3 x 64 x 64, in eval mode.

    NaN or infinity there betrays weights of the right shapes and wrong numbers.
    """
    import torch

    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        taps = backbone.eval()(noise)
    return [(float(tap.mean()), float(tap.std())) for tap in taps]


def refuse_overflow(
    network: nn.Module,
    path: Path,
    what: str = "scores",
    cure: str = "give a checkpoint of a training that went well",
) -> None:
    """Raise InputError, with `cure`, when a trained network's or backbone's maps of the fixed noise image, called
    `what`, are not finite.

    Finite weights can be too large for their sums, and a map of NaN would silently read as a mask of background.
    """
    import torch

    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = network.eval()(noise)
    if not all(bool(torch.isfinite(each).all()) for each in maps):
        raise InputError(f"{path}: its network's {what} are NaN or infinite; {cure}")


def check_features(backbone: nn.Module, path: Path, cure: str) -> None:
    """Print `noise_features`. Raises InputError when one of them is NaN or infinite."""
    features = noise_features(backbone)
    for name, (mean, deviation) in zip(("stage 3", "stage 4", "top"), features, strict=True):
        print(f"{name}: mean {mean:.4g}, standard deviation {deviation:.4g} on noise")
    if not all(math.isfinite(deviation) for _, deviation in features):
        raise InputError(f"{path}: the network's features are not finite; {cure}")


def guess_backbone(tensors: Mapping[str, Tensor], path: Path) -> str:
    """Return the name of our backbone that shares most layers with the file `path`. Raises InputError when none shares
    any.
    """
    import torch

    with torch.device("meta"):
        shared = {name: len(build_backbone(name).state_dict().keys() & tensors.keys()) for name in BACKBONES}
    best = max(shared, key=lambda name: shared[name])
    if not shared[best]:
        raise InputError(
            f"{path}: holds no layer of {', '.join(shared)}; name your network with --backbone, or {ANYWHERE}"
        )
    return best
