"""The network of a sweep's champion by name: `quickstart@champion` stands for its model.safetensors.

Which run is champion stands in the sweep's copy of the registry's history, as it was when the store was last written
to from here. The DeepLab that its stages made goes before its CAM network.
"""

from pathlib import Path
from typing import Any

from cpn.config import config_from
from cpn.core.checked import OF_RUN, unsealed_line
from cpn.core.contents import by_content
from cpn.core.errors import InputError
from cpn.core.files import read_json
from cpn.core.plain_file import is_there
from cpn.core.run_files import MODEL, RESULT
from cpn.stages.stage_manifest import stage_keys

CHAMPION = "@champion"
STORAGE = Path("sweeps")
"""Where sweeps keep their results unless told otherwise."""
HISTORY = "records/history.jsonl"
"""In a sweep's folder."""


def checkpoint_of(name: Path, storage: Path = STORAGE, deeplab: bool = True) -> Path:
    """Return the file that a checkpoint's name stands for: a path itself, or SWEEP@champion or SWEEPS/SWEEP@champion.

    Without `deeplab` it is the CAM network even where there is a DeepLab. Raises InputError where the sweep has no
    champion, or its network is not on this disk.
    """
    if not name.name.endswith(CHAMPION) or is_there(name):
        return name
    sweep, parent = name.name.removesuffix(CHAMPION), name.parent
    if not sweep:
        raise InputError(f"{name}: names no sweep; write SWEEP{CHAMPION}, or give a model.safetensors")
    storage = storage if parent == Path() else parent
    history = storage / sweep / HISTORY
    if not is_there(history):
        raise InputError(
            f"{name}: {history} is not there, nothing was promoted; run the sweep here, or give a model.safetensors"
        )
    entries = [entry for line in history.read_bytes().splitlines() if (entry := unsealed_line(line))]
    moves = [entry for entry in entries if entry.get("alias") == CHAMPION[1:]]
    last = moves[-1] if moves and moves[-1].get("to") is not None else None
    if last is None:
        raise InputError(f"{name}: the sweep has no champion now; python -m platform.promote RUN makes one")
    keys = [entry["run_key"] for entry in moves if entry.get("run_key") and entry.get("to") == last["to"]]
    folder = storage / "runs" / keys[-1] if keys else None
    if folder is None or not is_there(folder / MODEL):
        where = f"{folder / MODEL} is not on this disk" if folder else "its history does not say which run it is"
        raise InputError(f"{name}: version {last['to']}, {where}; give a model.safetensors instead")
    return (deeplab_of(folder, storage) if deeplab else None) or folder / MODEL


def curve_of(run: Path) -> dict[str, Any] | None:
    """Return mIoU over beta of a run's manifest; None where there is none."""
    try:
        manifest: dict[str, Any] = read_json(run / RESULT, OF_RUN)
    except FileNotFoundError:
        return None
    return manifest.get("curve")


def deeplab_of(run: Path, storage: Path) -> Path | None:
    """Return the DeepLab that the stages of a run made under its own configuration; None where there is none."""
    try:
        manifest = read_json(run / RESULT, OF_RUN)
    except FileNotFoundError:
        return None
    config, digest = config_from(manifest["config"], str(run / RESULT)), manifest["digests"][MODEL]
    for known in (by_content, dict):
        keys = stage_keys(digest, config, manifest["fingerprint"], manifest["metrics"].get("beta"), known)
        model = storage / "stages" / f"deeplab-{keys['deeplab']}" / MODEL
        if is_there(model):
            return model
    return None
