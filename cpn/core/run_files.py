"""The names of the files in the folder of a run; those of later stages are the same where they hold the same."""

import re
from collections.abc import Iterable
from pathlib import Path

RESULT = "result.json"
"""The manifest, written last: with it the run is finished."""
MODEL = "model.safetensors"
COUNTS = "counts.npz"
"""Confusion counts of every scored image at every beta."""
SCORES = "mask_free.npz"
PANEL = "panel.npz"
"""What the CAM panel shows, so that it can be drawn again."""
PICTURES = "pictures"
CHECKPOINTS = "checkpoints"
EPOCHS = "epochs"
"""A folder of pictures for each epoch, where they were asked for."""


def checkpoint_name(epoch: int, steps: int = 0) -> str:
    """Name the checkpoint at the end of an epoch, or within the next one after so many of its steps."""
    return f"epoch_{epoch:04d}" + (f"_step_{steps:06d}" if steps else "")


def epoch_folder(run: Path, epoch: int) -> Path:
    """Return where a run's folder has the pictures of an epoch, counted from 1."""
    return run / EPOCHS / f"{epoch:04d}"


def position(name: str) -> tuple[int, int]:
    """Epochs and further steps that are done at the checkpoint of this name; (-1, 0) for another name."""
    match = re.fullmatch(r"epoch_(\d+)(?:_step_(\d+))?", name)
    return (int(match[1]), int(match[2] or 0)) if match else (-1, 0)


def kept_names(names: Iterable[str], newest: str, keep: int = 2) -> set[str]:
    """Return the checkpoints among `names` that stay beside the `newest` one: the ends of the last epochs, `keep` in
    all.
    """
    ends = [name for name in names if position(name) < position(newest) and position(name)[1] == 0]
    return {newest, *sorted(ends, key=position, reverse=True)[: keep - 1]}
