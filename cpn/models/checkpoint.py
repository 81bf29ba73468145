"""Checkpoints that are whole or absent: safetensors for the tensors, JSON for the rest, a digest over each.

A checkpoint is one folder `epoch_0003/` with `model.safetensors`, `optimizer.safetensors` and `checkpoint.json`,
synced, and renamed into place when whole. No pickle is written or read.

At the end of an epoch that is all there is to resume: the schedule follows from `step`, dropout is seeded per epoch
(cpn/training/loop.py), and every sample is drawn from (seed, epoch, index) alone (cpn/data/loader.py).

Within a long epoch it is called `epoch_0003_step_000250` (three epochs are done, and 250 steps of the fourth) and has
`part.safetensors` too: the state of the random generators, and the sums that the epoch's report is made of. Beside it
stays the checkpoint of the epoch before, for the case that it is damaged. Without either an epoch that was broken off
is done again from its first step, with the same numbers.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from cpn.config import Config, config_from
from cpn.core.errors import InputError
from cpn.core.errors import to_stderr as to_stderr
from cpn.core.files import SEAL, DamagedFile, digest, file_digest, read_json, whole_folder, write_bytes, write_json
from cpn.core.plain_file import folder_there, is_there, refuse_irregular
from cpn.core.run_files import MODEL, checkpoint_name, kept_names, position
from cpn.models.backbone import is_known
from cpn.models.ranks import (
    differing_ranks,
    from_rank_0,
    rank_and_world,
    tensors_digest,
    tensors_from_rank_0,
    values_of_all,
)
from cpn.models.weights import not_plain, poisoned

MAX_METADATA = 1_000_000
"""The most letters that a file may say of itself; ours have some thousand."""
OPTIMIZER = "optimizer.safetensors"
PART = "part.safetensors"
MANIFEST = "checkpoint.json"
TENSORS = "tensors"
"""Key in what a model file says of itself for the digest of its tensors; all of it has its own, as JSON files have."""
DAMAGED_MODEL = "put it back from a copy, or delete it and give the command again that made it"


@dataclass(frozen=True)
class EpochPart:
    """What is done of an epoch that has not ended."""

    steps: int
    """Steps of it, those of all ranks together counted once."""
    seconds: float
    """How long they took."""
    waited: float
    """Seconds of these in which they waited for data."""
    lr: float
    """Of the last one."""
    tensors: dict[str, Tensor]
    """What else its end depends on, as the training loop names it."""


@dataclass(frozen=True)
class Progress:
    """How far a training came: `epoch` epochs and `step` optimizer steps are done, `history` is what each reported."""

    epoch: int
    step: int
    history: list[dict[str, float]]
    part: EpochPart | None = None
    """Of the epoch after these; None at its beginning."""


def save_checkpoint(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, keep: int = 2
) -> Path:
    """Write the checkpoint of `progress` under `folder` and drop all but the newest `keep` (`kept_names`).

    Later ones go too: they were passed over as damaged, or training would not be here.
    """
    part = progress.part
    name = checkpoint_name(progress.epoch, part.steps if part else 0)
    target = folder / name
    with whole_folder(target) as temporary:
        _save_file(_contiguous(network.state_dict()), temporary / MODEL)
        tensors, scalars = _flatten_optimizer(optimizer)
        _save_file(tensors, temporary / OPTIMIZER)
        if part is not None:
            _save_file(_contiguous(part.tensors), temporary / PART)
        digests = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
        manifest = {
            "epoch": progress.epoch,
            "step": progress.step,
            "history": progress.history,
            "optimizer": scalars,
            "digests": digests,
        }
        write_json(temporary / MANIFEST, manifest | ({"part": _numbers(part)} if part else {}))
    names = {candidate.name for candidate in _candidates(folder)}
    for old in names - kept_names(names, name, keep):
        shutil.rmtree(folder / old)
    return target


def load_latest(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, say: Callable[[str], None] = to_stderr
) -> Progress | None:
    """Load the newest checkpoint whose digests hold into `network` and `optimizer`; None when there is none.

    A broken checkpoint (torn file, other digest) is passed over for the one before it, and `say` hears so in one line.
    Raises InputError when it is whole but of another network.

    Of several processes (a torch.distributed group, all of which call this) rank 0 reads its copy, the others read none
    and get from it what was loaded. All come to the same digest, or all raise. `say` of rank 0 hears of a rank that
    sees a later epoch than the one that is gone on from.
    """
    rank, world = rank_and_world()
    if world == 1:
        return _load_own(folder, network, optimizer, say)
    newest = _newest(folder)
    seen = list(zip(values_of_all(newest[0]), values_of_all(newest[1]), strict=True))
    tensors_of_part: dict[str, Tensor] = {}

    def read() -> dict[str, Any] | None:
        progress = _load_own(folder, network, optimizer, say)
        reached = (progress.epoch, progress.part.steps if progress.part else 0) if progress else (0, 0)
        if max(seen) > reached:
            later = seen.index(max(seen))
            going = f"going on from {_words(reached)}" if progress else "beginning anew"
            say(f"{folder}: rank {later} sees {_words(max(seen))} there, rank 0, whose copy counts, does not; {going}")
        if progress is None:
            return None
        tensors_of_part.update(progress.part.tensors if progress.part else {})
        return {
            "epoch": progress.epoch,
            "step": progress.step,
            "history": progress.history,
            "part": _numbers(progress.part) if progress.part else None,
            "scalars": _flatten_optimizer(optimizer)[1],
        }

    loaded = from_rank_0(read)
    if loaded is None:
        return None
    own = {f"part.{name}": tensor for name, tensor in tensors_of_part.items()}
    sent = tensors_from_rank_0({**_state(network, optimizer), **own} if rank == 0 else {})
    tensors_of_part = {name[5:]: tensor for name, tensor in sent.items() if name.startswith("part.")}
    if rank != 0:
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "optimizer": {}, "part": {}}
        for key, tensor in sent.items():
            part, name = key.split(".", 1)
            parts[part][name] = tensor
        network.load_state_dict(parts["network"])
        _restore_optimizer(optimizer, parts["optimizer"], loaded["scalars"])
    own = {f"part.{name}": tensor for name, tensor in tensors_of_part.items()}
    if others := differing_ranks(tensors_digest({**_state(network, optimizer), **own})):
        raise RuntimeError(f"{folder}: ranks {others} did not come to the weights of rank 0")
    return _progress(loaded, tensors_of_part)


def _load_own(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, say: Callable[[str], None]
) -> Progress | None:
    """`load_latest` of this process alone."""
    candidates = _candidates(folder)
    for at, candidate in enumerate(candidates):
        manifest = _whole_manifest(candidate)
        if manifest is None:
            before = candidates[at + 1].name if at + 1 < len(candidates) else "the beginning"
            say(f"{candidate}: this checkpoint is damaged; going on from {before}")
            continue
        load_model(candidate / MODEL, network)
        _restore_optimizer(optimizer, load_file(candidate / OPTIMIZER), manifest["optimizer"])
        return _progress(manifest, load_file(candidate / PART) if manifest.get("part") else {})
    return None


def _progress(values: Mapping[str, Any], tensors: dict[str, Tensor]) -> Progress:
    """Progress as a manifest holds it, with the tensors of an epoch's part."""
    part = EpochPart(**values["part"], tensors=tensors) if values.get("part") else None
    return Progress(values["epoch"], values["step"], values["history"], part)


def _numbers(part: EpochPart) -> dict[str, float]:
    """Return what a manifest holds of an epoch's part."""
    return {"steps": part.steps, "seconds": part.seconds, "waited": part.waited, "lr": part.lr}


def _words(place: tuple[int, int]) -> str:
    """`epoch 3`, or `epoch 3 and 250 steps`."""
    return f"epoch {place[0]}" + (f" and {place[1]} steps" if place[1] else "")


def save_model(path: Path, network: nn.Module, metadata: dict[str, Any]) -> None:
    """Write a network's weights as one safetensors file whose header carries `metadata` as JSON, and digests of both;
    whole or absent.
    """
    tensors = _contiguous(network.state_dict())
    plain = json.loads(json.dumps({**metadata, TENSORS: tensors_digest(tensors)}))
    # One entry of the header: safetensors writes several in any order, and equal networks would be different files.
    write_bytes(path, save(tensors, {"cpn": json.dumps({**plain, SEAL: digest(plain)}, sort_keys=True)}))


def check_tensors(path: Path, tensors: dict[str, Tensor], cure: str = DAMAGED_MODEL) -> None:
    """Raise DamagedFile unless these are the tensors that were written; a file of an earlier version, or of another
    program, has no digest to hold them against.
    """
    with safe_open(path, "pt") as file:
        header = (file.metadata() or {}).get("cpn", "{}")
    try:
        recorded_digest = json.loads(header).get(TENSORS)
    except (ValueError, RecursionError, AttributeError):
        raise DamagedFile(path, cure, "what it says of itself is not what was written") from None
    if recorded_digest is not None and recorded_digest != tensors_digest(tensors):
        raise DamagedFile(path, cure, "its numbers are not those that were written")


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a file written by `save_model`. Raises InputError when `path` is no such file."""
    refuse_irregular(path)
    if folder_there(path):
        raise InputError(f"{path}: is a folder; name the {MODEL} of a run")
    if not is_there(path):
        raise InputError(f"{path}: no such file; give the {MODEL} of a run")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not a readable safetensors checkpoint ({error}); give one that a run wrote"
        ) from error
    if "cpn" not in header:
        raise InputError(f"{path}: a safetensors file, but not one of this product; give a run's model.safetensors")
    if len(header["cpn"]) > MAX_METADATA:
        raise InputError(
            f"{path}: what it says of itself is longer than {MAX_METADATA} letters; give a run's model.safetensors"
        )
    try:
        metadata = json.loads(header["cpn"])
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: what it says of itself is damaged; give a run's model.safetensors")
    seal = metadata.pop(SEAL, None)
    if seal is not None and seal != digest(metadata):
        raise DamagedFile(path, DAMAGED_MODEL, "what it says of itself is not what was written")
    metadata.pop(TENSORS, None)
    return metadata


def network_metadata(path: Path, kind: str, what: str, own_backbone: str | None) -> "tuple[Config, tuple[str, ...]]":
    """Return configuration and foreground classes of a file of `kind`, which is called `what` in the error.

    A file can name code as its backbone, and files come from anywhere: other code than `own_backbone` is refused.
    Raises InputError for that, for any other backbone than `own_backbone` where that is given, for a file of another
    kind, and for one whose metadata is not whole.
    """
    from cpn.data.voc import IGNORE
    from cpn.sources.class_names import CLASS_NAME

    metadata = read_metadata(path)
    if metadata.get("kind") != kind:
        raise InputError(f"{path}: a checkpoint of kind {str(metadata.get('kind'))[:40]!r}, not of a {what}")
    values, classes = metadata.get("config"), metadata.get("classes")
    if not isinstance(values, dict) or not isinstance(classes, list) or not all(isinstance(n, str) for n in classes):
        raise InputError(f"{path}: what it says of itself lacks config or classes; give a run's model.safetensors")
    if not 1 <= len(classes) < IGNORE or len(set(classes)) < len(classes):
        raise InputError(
            f"{path}: names {len(classes)} classes: 1 to {IGNORE - 1} of different names are expected; give a run's "
            "model.safetensors"
        )
    if (odd := next((name for name in classes if not CLASS_NAME.fullmatch(name)), None)) is not None:
        raise InputError(
            f"{path}: names a class {odd[:40]!r}, where a name has letters, digits and spaces; give a run's "
            "model.safetensors"
        )
    config = config_from(values, str(path))
    name = config.network.backbone
    if not is_known(name) and name != own_backbone:
        raise InputError(
            f"{path}: names code as its network.backbone, {name!r}, which is not run unasked; if you know it, "
            f"give --backbone {name}"
        )
    if own_backbone not in (None, name):
        raise InputError(f"{path}: was trained with network.backbone {name}, not with {own_backbone}; leave that out")
    return config, tuple(classes)


def refuse_larger(path: Path, build: "Callable[[], nn.Module]") -> None:
    """Raise InputError when the network that `build` makes has more numbers than the file bytes, before it is made.

    The file says itself how wide its network is, and files come from anywhere.
    """
    with torch.device("meta"):
        state = build().state_dict()
    needed, there = sum(tensor.numel() for tensor in state.values()), path.stat().st_size
    if needed > there:
        raise InputError(
            f"{path}: has {there} bytes and describes a network of {needed} numbers: a checkpoint of another network; "
            "give a run's model.safetensors"
        )


def load_model(path: Path, network: nn.Module) -> None:
    """Load weights into `network`. Raises InputError naming the first tensors that do not fit."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error}); give a checkpoint a run wrote") from error
    check_tensors(path, tensors)
    expected = network.state_dict()
    wrong = [n for n in expected if n not in tensors or tensors[n].shape != expected[n].shape]
    wrong += [n for n in tensors if n not in expected]
    if wrong:
        raise InputError(
            f"{path}: a checkpoint of another network: {len(wrong)} tensors do not fit, first {wrong[0]!r}; "
            "give one of this network.backbone and these classes"
        )
    for name in (name for name in expected if expected[name].is_floating_point()):
        if problem := not_plain(tensors[name]) or poisoned(name, tensors[name]):
            raise InputError(f"{path}: {name!r} {problem}; give a checkpoint of a training that went well")
    network.load_state_dict(tensors)


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors. What a disk answers is an OSError that names the file; safetensors has an error of its own."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _candidates(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, newest first."""
    folders = [p for p in folder.glob("epoch_*") if p.is_dir() and position(p.name) >= (0, 0)]
    return sorted(folders, key=lambda path: position(path.name), reverse=True)


def _newest(folder: Path) -> tuple[int, int]:
    """Return the `position` of the newest whole checkpoint that this process sees, (0, 0) without one."""
    return next((position(path.name) for path in _candidates(folder) if _whole_manifest(path)), (0, 0))


def _state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return all tensors of a training, by name."""
    moments, _ = _flatten_optimizer(optimizer)
    network_part = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    return network_part | {f"optimizer.{name}": tensor for name, tensor in moments.items()}


def _whole_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = read_json(folder / MANIFEST, sealed=True)
        whole = all(file_digest(folder / name) == value for name, value in manifest["digests"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


def _flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the optimizer's state as named tensors ('<parameter index>.<name>') and plain scalars under the same
    names.
    """
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value.detach().cpu().contiguous().clone()
            else:
                scalars[f"{index}.{name}"] = value
    return tensors, scalars


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Put back what `_flatten_optimizer` took; the groups' settings stay those of the given optimizer."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *scalars.items()]:
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
