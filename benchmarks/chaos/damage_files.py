"""What a finished sweep leaves on disk, kind by kind, and ways to damage one file of each; see damage.py."""

import shutil
from collections.abc import Callable
from pathlib import Path

SWEEP = "smoke"

KINDS = {
    "packed rows": "sweeps/cache/scenes-*/packed/train.arrow",
    "packed labels": "sweeps/cache/scenes-*/packed/train.index.arrow",
    "pack manifest": "sweeps/cache/scenes-*/packed/manifest.json",
    "scenes.json": "sweeps/cache/scenes-*/scenes.json",
    "superpixels": "sweeps/cache/superpixels/*/8.arrow",
    "superpixels' digest": "sweeps/cache/superpixels/*/8.arrow.sha256",
    "run: result.json": "sweeps/runs/{winner}/result.json",
    "run: network": "sweeps/runs/{winner}/model.safetensors",
    "run: counts": "sweeps/runs/{winner}/counts.npz",
    "run: panel": "sweeps/runs/{winner}/panel.npz",
    "run: mask_free": "sweeps/runs/{winner}/mask_free.npz",
    "run: picture": "sweeps/runs/{winner}/pictures/cam_panel.png",
    "confirm run: result.json": "sweeps/runs/{confirm}/result.json",
    "confirm run: counts": "sweeps/runs/{confirm}/counts.npz",
    "stage: manifest": "sweeps/stages/deeplab-*/manifest.json",
    "stage: files.json": "sweeps/stages/deeplab-*/files.json",
    "stage: network": "sweeps/stages/deeplab-*/model.safetensors",
    "stage: counts": "sweeps/stages/deeplab-*/counts.npz",
    "stage: picture": "sweeps/stages/deeplab-*/pictures/deeplab.png",
    "stage: maps": "sweeps/stages/cam-*/train_00000.npz",
    "stage: CRF scores": "sweeps/stages/crf-*/train_00000.npz",
    "stage: label": "sweeps/stages/random_walk-*/train_00000.png",
    "stage: epochs": "sweeps/stages/affinity-*/epochs.json",
    "clock": "sweeps/smoke/clock.json",
    "driver": "sweeps/smoke/driver.json",
    "starts": "sweeps/smoke/starts.json",
    "summary": "sweeps/smoke/summary.json",
    "specification": "sweeps/smoke/spec.yaml",
    "panel": "sweeps/smoke/panels/*-0000/cam_panel.png",
    "events": "sweeps/smoke/records/events.jsonl",
    "position": "sweeps/smoke/records/position.json",
    "refused": "sweeps/smoke/records/refused.jsonl",
    "champion history": "sweeps/smoke/records/history.jsonl",
    "lock": "sweeps/smoke/lock",
    "claims": "sweeps/runs/.claims",
    "study.db": "sweeps/study.db",
    "mlflow.db": "mlflow.db",
}
"""Kind -> a file of that kind in the folder of a finished sweep; `winner` and `confirm` are run keys."""


def empty(path: Path, _older: Path) -> bool:
    """Nothing is left of it."""
    return replaced(path, b"")


def half(path: Path, _older: Path) -> bool:
    """The second half is gone."""
    data = path.read_bytes()
    return replaced(path, data[: len(data) // 2])


def one_byte(path: Path, _older: Path) -> bool:
    """A byte in the middle is another; in text a digit, if there is one behind the middle, so that it is still text."""
    data = bytearray(path.read_bytes())
    if not data:
        return False
    at = len(data) // 2
    if path.suffix in (".json", ".jsonl", ".yaml"):
        at = next((n for n in range(at, len(data)) if data[n : n + 1].isdigit()), at)
        data[at] = ord("7") if data[at] != ord("7") else ord("3")
    else:
        data[at] ^= 0x10
    return replaced(path, bytes(data))


def zeros(path: Path, _older: Path) -> bool:
    """As many zeros."""
    return replaced(path, bytes(path.stat().st_size))


def older_copy(path: Path, older: Path) -> bool:
    """Replace the file by its copy after an earlier start of the sweep."""
    if not older.exists() or older.read_bytes() == path.read_bytes():
        return False
    shutil.copyfile(older, path)
    return True


def missing(path: Path, _older: Path) -> bool:
    """It is gone."""
    path.unlink()
    return True


def replaced(path: Path, data: bytes) -> bool:
    """Put other bytes there; False where they are the same."""
    if path.read_bytes() == data:
        return False
    path.write_bytes(data)
    return True


DAMAGES: dict[str, Callable[[Path, Path], bool]] = {
    "empty": empty,
    "half": half,
    "one byte": one_byte,
    "zeros": zeros,
    "older copy": older_copy,
    "missing": missing,
}
"""Name -> what it does to a file, given where an older copy would be; False: this file cannot be damaged so."""


def file_of(kind: str, folder: Path, keys: dict[str, str]) -> Path | None:
    """The file of a kind in a sweep's folder; None where the sweep has none."""
    paths = sorted(folder.glob(KINDS[kind].format(**keys)))
    return paths[0] if paths else None
