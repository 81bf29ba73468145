"""Check and convert pretrained weights: `python -m cpn.weights --help`."""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cpn.config.next_command import yaml_value
from cpn.core.errors import InputError, run_command
from cpn.core.files import check_file
from cpn.models.backbone import build_backbone
from cpn.stages.released import convert_released, is_released

if TYPE_CHECKING:  # torch is imported where it is used, so that --help answers at once
    from torch import Tensor
from cpn.models.weights import (
    ANYWHERE,
    RESNET38_FILE,
    RESNET38_MD5,
    _load,
    check_features,
    compare,
    guess_backbone,
    of_backbone,
    read_weights,
    refuse_unless_whole,
    where_from,
    write_tensors,
)


def convert_backbone(source: Path, tensors: dict[str, Tensor], name: str, check: bool, out: Path | None) -> None:
    """Say how the file's tensors fit the backbone `name`, and write it to `out`. Raises InputError unless all fit."""
    import torch

    with torch.device("meta"):
        expected = build_backbone(name).state_dict()
    tensors = of_backbone(tensors, expected)
    report = compare(expected, tensors, source)
    cure = where_from(expected)
    refuse_unless_whole(report, cure)
    if warning := report.warning():
        print(f"warning: {warning}", file=sys.stderr)
    if published := _published(source):
        print(published)
    print(f"{report.sentence()}; backbone {name}")
    if check:
        backbone = build_backbone(name)
        _load(backbone.state_dict(), tensors, source, cure)
        check_features(backbone, source, cure)
    if out is not None:
        write_tensors(out, {layer: tensors[layer] for layer in report.loaded})
        sets = shlex.join(["--set", f"network.backbone={name}", "--set", f"network.weights={yaml_value(str(out))}"])
        print(f"wrote {out}: {sets}")


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m cpn.weights",
        usage=f"python -m cpn.weights {RESNET38_FILE} --out resnet38.safetensors",
        description="Read pretrained weights, say what fits, and convert them to safetensors: ImageNet weights of a "
        "backbone, or a whole network that the authors of CPN or SEAM released.",
        epilog=f"Where from: {ANYWHERE}.",
    )
    command.add_argument("source", type=Path, metavar="SOURCE", help="MXNet .params, torch .pth or .safetensors")
    command.add_argument("--out", type=Path, metavar="FILE", help="write the network to this .safetensors file")
    command.add_argument(
        "--backbone", metavar="NAME", help="resnet38, resnet50 or your own; without it the layers' names tell"
    )
    command.add_argument(
        "--classes", type=Path, metavar="classes.txt", help="of a released network's data set; without it those of VOC"
    )
    command.add_argument(
        "--check", action="store_true", help="also run the network once on noise and print its features"
    )
    return command


def main(arguments: list[str] | None = None) -> int:
    """Run the command: see --help."""
    options = parser().parse_args(arguments)

    if options.out is not None and options.out.suffix != ".safetensors":
        raise InputError(f"{options.out}: --out writes safetensors only; end the name in .safetensors")
    if options.out is not None:
        check_file(options.out, "--out")
    tensors = read_weights(options.source)
    if options.backbone is None and is_released(tensors):
        convert_released(options.source, tensors, options.classes, options.check, options.out)
        return 0
    if options.classes is not None:
        raise InputError(
            f"--classes {options.classes}: a backbone has no classes; leave it out, or give a released network"
        )
    name = options.backbone or guess_backbone(of_backbone(tensors), options.source)
    convert_backbone(options.source, tensors, name, options.check, options.out)
    return 0


def _published(path: Path) -> str | None:
    """Return whether the file is byte for byte the published one; another copy (saved again) may be as good. None:
    unknown.
    """
    named = re.search(r"-([0-9a-f]{8})\.pth$", path.name)  # torchvision's names end in the start of their SHA-256
    if path.suffix != ".params" and named is None:
        return None
    with open(path, "rb") as file:
        if named is not None:
            same = hashlib.file_digest(file, "sha256").hexdigest().startswith(named[1])
            return f"{path}: " + ("the published file (SHA-256 agrees)" if same else "not what its name says (SHA-256)")
        same = hashlib.file_digest(file, "md5").hexdigest() == RESNET38_MD5
    return f"{path}: " + ("the published file (MD5 agrees)" if same else "not the published file (other MD5)")


if __name__ == "__main__":
    run_command(main)
