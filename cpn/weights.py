"""Pretrained weights: read, rename, check, convert. `python -m cpn.weights --help` is the command.

Three kinds of file are read, told apart by their first bytes: MXNet `.params`, torch files (with weights_only: a
pickle with code inside is refused) and safetensors. Nothing is written into a network before everything fits.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cpn.errors import InputError, run_command
from cpn.files import write_bytes
from cpn.mxnet_params import MAGIC, read_params

if TYPE_CHECKING:  # torch is imported where it is used, so that --help answers at once
    from torch import Tensor, nn

    from cpn.network import CPN

RESNET38_FILE = "ilsvrc-cls_rna-a1_cls1000_ep-0001.params"
RESNET38_MD5 = "ff21f45d6bf03284100dcbec571edfad"  # models/checksum.md5 of itijyou/ademxapp
RESNET38_SOURCE = f"get {RESNET38_FILE} (Model A1) from the links in the README of github.com/itijyou/ademxapp"
CPN_SOURCE = "give a .pth of the authors' CPN (github.com/Ferenas/CPN), with the same classes and channel widths"
BATCH_NORM_NAMES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}
MXNET_BLOCK = re.compile(r"(res|bn)(\d)(a|b\d)_(branch[12][ab12]*)_(weight|gamma|beta|moving_mean|moving_var)")
MXNET_TOP = re.compile(r"bn7_(gamma|beta|moving_mean|moving_var)")


@dataclass(frozen=True)
class WeightsReport:
    """What a file has for a network, by the network's names.

    `loaded` fit; `missing` are asked for and absent; `misfits` say in words why a tensor cannot be used (other shape,
    no numbers, NaN); `unexpected` are in the file and not asked for. `prcm_transposed` is the PRCM view that the
    weights were trained with: False for the authors' checkpoints, None where the file doesn't settle it.
    """

    path: Path
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    misfits: tuple[str, ...]
    unexpected: tuple[str, ...]
    prcm_transposed: bool | None = None

    def sentence(self) -> str:
        """The report in one line for a log."""
        text = f"{self.path}: {len(self.loaded)} tensors loaded; {_unused(self)}"
        if self.prcm_transposed is False:
            text += "; PRCM in the released view (network.prcm_transposed: false), with which they were trained"
        return text


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU: ours for a `.params` file, else as they stand.

    A torch file may wrap them in `state_dict` or `model`; the prefix `module.` of DataParallel is taken off.
    Raises InputError when the file is absent, damaged, or holds anything but named tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path}: no such weights file; for ResNet38 {RESNET38_SOURCE}")
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
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: a damaged safetensors file ({error}); copy or convert it again") from error
    raise InputError(f"{path}: neither MXNet .params, torch nor safetensors; for ResNet38 {RESNET38_SOURCE}")


def _read_torch(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)  # said of files that load well
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign pickle stream fails in as many ways as it has opcodes
        code = re.search("GLOBAL|Unsupported class|Trying to", str(error)) is not None
        reason = "it holds more than tensors, and code in a file is not run" if code else "it is damaged or none"
        raise InputError(
            f"{path}: not loaded as a torch file: {reason}; save its state dict alone with torch.save, or copy it again"
        ) from error
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
    """The tensors under our names. Raises InputError when two arrays of the file `path` mean one layer."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        ours = mxnet_name(name)
        if ours in renamed:
            raise InputError(f"{path}: two arrays for the layer {ours}; {RESNET38_SOURCE}")
        renamed[ours] = tensor
    return renamed


def compare(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> WeightsReport:
    """How `tensors` of the file `path` fit the state dict `expected` (which may lie on the meta device).

    The counters `num_batches_tracked`, which many files lack and nothing here reads, are left out on both sides.
    """
    wanted = {name: value for name, value in expected.items() if not name.endswith("num_batches_tracked")}
    problems = {name: _misfit(name, wanted[name], tensors[name]) for name in wanted if name in tensors}
    return WeightsReport(
        path=path,
        loaded=tuple(name for name, problem in problems.items() if problem is None),
        missing=tuple(name for name in wanted if name not in tensors),
        misfits=tuple(problem for problem in problems.values() if problem is not None),
        unexpected=tuple(n for n in tensors if n not in wanted and not n.endswith("num_batches_tracked")),
    )


def _misfit(name: str, wanted: Tensor, given: Tensor) -> str | None:
    import torch

    if given.shape != wanted.shape:
        return f"{name} is {tuple(given.shape)} and should be {tuple(wanted.shape)}"
    if given.layout != torch.strided or given.device.type != "cpu" or not given.is_floating_point():
        return f"{name} is {given.dtype} without plain floating point numbers"
    if not torch.isfinite(given.float()).all():
        return f"{name} contains NaN or infinity"
    if name.endswith("running_var") and bool((given < 0).any()):
        return f"{name} has negative variances"
    return None


def load_backbone_weights(backbone: nn.Module, path: Path) -> WeightsReport:
    """Put the weights of a file into a backbone (read by `read_weights`; also a file of a whole CPN of this product).

    Tensors that the backbone doesn't have, such as a classifier, are reported and not used. Raises InputError when the
    file is absent or damaged or when a layer is missing or does not fit; the backbone is then unchanged.
    """
    return _load(backbone, _of_backbone(read_weights(path)), path, f"for ResNet38 {RESNET38_SOURCE}")


def _of_backbone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Backbone names: a whole CPN of this product has them under `backbone.`, every other file plainly."""
    return {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}


def official_names(network: nn.Module) -> dict[str, str]:
    """Our name -> the released code's, for every tensor of a CPN: theirs has no `backbone.`."""
    names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    return {name: name.removeprefix("backbone.") for name in names}


def load_official_checkpoint(network: CPN, path: Path) -> WeightsReport:
    """Put a checkpoint released by CPN's authors into `network` and set its PRCM view to theirs.

    These weights were trained with the released view of PRCM, so `network.config.prcm_transposed` becomes False; the
    report says so (`prcm_transposed`, `sentence`). Raises InputError, with the network unchanged, when the file is
    absent or damaged or when a layer is missing or does not fit.
    """
    ours = {official: name for name, official in official_names(network).items()}
    tensors = {ours.get(name, name): tensor for name, tensor in read_weights(path).items()}
    report = _load(network, tensors, path, CPN_SOURCE)
    network.config = network.config.model_copy(update={"prcm_transposed": False})
    return replace(report, prcm_transposed=False)


def _load(network: nn.Module, tensors: dict[str, Tensor], path: Path, cure: str) -> WeightsReport:
    import torch

    state = network.state_dict()
    report = compare(state, tensors, path)
    _refuse_unless_whole(report, cure)
    with torch.no_grad():
        for name in report.loaded:
            state[name].copy_(tensors[name])
    return report


def _refuse_unless_whole(report: WeightsReport, cure: str) -> None:
    problems = []
    if report.misfits:
        problems.append(f"{len(report.misfits)} layers do not fit: {_some(report.misfits)}")
    if report.missing:
        problems.append(f"{len(report.missing)} layers are missing: {_some(report.missing)}")
    if problems:
        raise InputError(f"{report.path}: {'; '.join(problems)}; {cure}")


def _unused(report: WeightsReport) -> str:
    return f"not used: {_some(report.unexpected)}" if report.unexpected else "nothing left over"


def _some(names: tuple[str, ...], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as float32 safetensors, whole or absent."""
    from safetensors.torch import save

    write_bytes(path, save({name: tensor.float().contiguous() for name, tensor in tensors.items()}))


def noise_features(backbone: nn.Module) -> list[tuple[float, float]]:
    """Mean and standard deviation of each tap on a fixed noise image of 3 x 64 x 64, in eval mode.

    NaN or infinity there betrays weights of the right shapes and wrong numbers.
    """
    import torch

    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        taps = backbone.eval()(noise)
    return [(float(tap.mean()), float(tap.std())) for tap in taps]


def main(arguments: list[str] | None = None) -> int:
    """The command: see --help."""
    parser = argparse.ArgumentParser(
        prog="python -m cpn.weights",
        usage=f"python -m cpn.weights {RESNET38_FILE} --out resnet38.safetensors",
        description="Read pretrained ResNet38 weights, say what fits, and convert them to safetensors.",
        epilog=f"Where from: {RESNET38_SOURCE}.",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="MXNet .params, torch .pth or .safetensors")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the backbone to this .safetensors file")
    parser.add_argument(
        "--check", action="store_true", help="also run the network once on noise and print its features"
    )
    options = parser.parse_args(arguments)

    import torch

    from cpn.resnet38d import ResNet38

    if options.out is not None and options.out.suffix != ".safetensors":
        raise InputError(f"{options.out}: --out writes safetensors only; end the name in .safetensors")
    tensors = _of_backbone(read_weights(options.source))
    with torch.device("meta"):
        expected = ResNet38()
    report = compare(expected.state_dict(), tensors, options.source)
    _refuse_unless_whole(report, f"for ResNet38 {RESNET38_SOURCE}")
    if options.source.suffix == ".params":
        print(_published(options.source))
    print(f"{options.source}: all {len(report.loaded)} tensors of ResNet38 fit; {_unused(report)}")
    if options.check:
        backbone = ResNet38()
        _load(backbone, tensors, options.source, RESNET38_SOURCE)
        features = noise_features(backbone)
        for name, (mean, deviation) in zip(("conv4", "conv5", "conv6"), features, strict=True):
            print(f"{name}: mean {mean:.4g}, standard deviation {deviation:.4g} on noise")
        if not all(math.isfinite(deviation) for _, deviation in features):
            raise InputError(f"{options.source}: the network's features are not finite; for ResNet38 {RESNET38_SOURCE}")
    if options.out is not None:
        write_tensors(options.out, {name: tensors[name] for name in report.loaded})
        print(f"wrote {options.out}: use it as network.weights")
    return 0


def _published(path: Path) -> str:
    """Whether the file is byte for byte the published one; another copy (re-saved by MXNet) may be as good."""
    with open(path, "rb") as file:
        same = hashlib.file_digest(file, "md5").hexdigest() == RESNET38_MD5
    return f"{path}: " + ("the published file (MD5 agrees)" if same else "not the published file (other MD5)")


if __name__ == "__main__":
    run_command(main)
