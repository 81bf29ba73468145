"""Whole networks that their authors released: CPN's checkpoints and SEAM's, made into a model file of this product.

Both name their layers as we do, without `backbone.`. SEAM's have no f10, for SEAM has no PRCM (method.md (c), (d)).
`python -m cpn.weights CHECKPOINT.pth --out model.safetensors` recognises them by their layers.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cpn.config import METHOD_VERSION, Config, config_from
from cpn.core.errors import InputError
from cpn.core.files import file_digest
from cpn.core.plain_file import file_there
from cpn.data.voc import VOC_CLASSES
from cpn.models.weights import WeightsReport, check_features, compare, refuse_unless_whole
from cpn.sources.class_names import read_classes

if TYPE_CHECKING:  # torch is imported where it is used, so that --help answers at once
    from torch import Tensor

    from cpn.models.network import CPN

CURE = (
    "give a .pth of the authors' CPN (github.com/Ferenas/CPN) or SEAM (github.com/YudeWang/SEAM), "
    "or take its backbone alone with --backbone resnet38"
)


@dataclass(frozen=True)
class Method:
    """What a method's released checkpoints are here."""

    title: str
    preset: str
    network: dict[str, bool]
    """The values of the network section under which these weights were trained."""
    settings: str
    """Those values, for the reader of the command's output."""


CPN_RELEASED = Method(
    "CPN",
    "official",
    {"prcm_transposed": False},
    "network.prcm_transposed: false, the released code's view of PRCM, with which these weights were trained",
)
SEAM_RELEASED = Method(
    "SEAM",
    "seam",
    {"prcm": False},
    "network.prcm: false, for SEAM has no PRCM; f10 is not in the file and becomes zeros that nothing reads",
)


@dataclass(frozen=True)
class Released:
    """A released checkpoint as a network of ours."""

    method: Method
    config: Config
    network: CPN
    """In eval mode."""
    report: WeightsReport
    """What the file had for it, by the file's names."""


def is_released(names: Collection[str]) -> bool:
    """Return whether layers of these names are a whole CPN or SEAM as released: not a backbone, AffinityNet or run of
    ours.
    """
    if any(name.startswith("backbone.") for name in names):
        return False
    refinement = {"f8_3.weight", "f8_4.weight", "f9.weight"} & set(names)
    return "f10.weight" in names or ("fc8.weight" in names and bool(refinement))


def method_of(names: Collection[str]) -> Method:
    """Whose released network the layers of these names are: SEAM's where f10 is missing and else CPN's."""
    return CPN_RELEASED if "f10.weight" in names else SEAM_RELEASED


def released_network(path: Path, tensors: Mapping[str, Tensor], classes: tuple[str, ...]) -> Released:
    """Return the network of the tensors of the file `path`, SEAM's where f10 is missing and else CPN's.

    The tensors are taken over, not copied. Raises InputError in one line when a layer is missing or does not fit, or
    when fc8 has another number of rows than background and `classes`.
    """
    import torch

    from cpn.models.network import build_network

    method = method_of(tensors)
    config = config_from({"preset": method.preset, "network": method.network}, str(path))
    rows = tensors["fc8.weight"].shape[:1] if "fc8.weight" in tensors else ()
    if rows and rows[0] != len(classes) + 1:
        raise InputError(
            f"{path}: fc8 has {rows[0]} rows, and background with {len(classes)} classes needs {len(classes) + 1}; "
            "give the classes.txt of its data set with --classes"
        )
    with torch.device("meta"):
        network = build_network(config.network, len(classes) + 1)
    state = network.state_dict()
    theirs = {name.removeprefix("backbone."): name for name in state}
    absent = {} if method is CPN_RELEASED else {"f10.weight": torch.zeros(state["f10.weight"].shape)}
    expected = {name: state[ours] for name, ours in theirs.items() if name not in absent}
    report = compare(expected, tensors, path)
    refuse_unless_whole(report, CURE)
    whole = {**tensors, **absent}
    counters = {name: torch.zeros((), dtype=torch.long) for name in state if name.endswith("num_batches_tracked")}
    values = {ours: whole[name].float() for name, ours in theirs.items() if ours not in counters}
    network.load_state_dict({**values, **counters}, assign=True)
    return Released(method, config, network.eval(), report)


def convert_released(
    source: Path, tensors: Mapping[str, Tensor], classes_file: Path | None, check: bool, out: Path | None
) -> None:
    """Say how a released checkpoint fits and write it to `out` as a model file that `cpn.run.load_run` reads.

    `classes_file` is the classes.txt of the data set it was trained on; None: the classes of VOC. The file written has
    no `beta` and no `fingerprint`: which data it saw and which beta is best for them are not known here.
    """
    from cpn.models.checkpoint import save_model

    classes = _classes(classes_file)
    released = released_network(source, tensors, classes)
    title, preset = released.method.title, released.method.preset
    if warning := released.report.warning():
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{released.report.sentence()}; a whole {title} as released, {len(classes)} classes, preset {preset}")
    print(released.method.settings)
    if check:
        check_features(released.network.backbone, source, CURE)
    if out is not None:
        metadata = {
            "kind": "cam",
            "beta": None,
            "key": None,
            "config": released.config.model_dump(mode="json"),
            "classes": list(classes),
            "fingerprint": None,
            "version": METHOD_VERSION,
            "released": {"method": title, "file": source.name, "sha256": file_digest(source)},
        }
        save_model(out, released.network, metadata)
        print(f"wrote {out}\nnext: python -m cpn.score {shlex.quote(str(out))} --root /data/VOC2012")


def _classes(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return VOC_CLASSES
    if path.name != "classes.txt" or not file_there(path, "--classes"):
        raise InputError(
            f"--classes {path}: no file called classes.txt; give that of the data set, one foreground class per line"
        )
    return read_classes(path.parent)
