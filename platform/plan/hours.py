"""The file that keeps a sweep's hours and how far it is; read by other processes too, without torch."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpn.core.files import DamagedFile, read_json

HOURS_LOST = "the sweep's next start counts anew, from its last end and what its complete trials took themselves"
"""The cure for a clock's file."""


def read_hours(path: Path) -> Mapping[str, Any]:
    """`seconds` of wall-clock time, `trials` with the seconds of each by uid, `progress` (RemainingTime.snapshot).

    Empty where there is no file yet. Raises DamagedFile.
    """
    try:
        return read_clock(path)
    except FileNotFoundError:
        return {}


def read_clock(path: Path) -> dict[str, Any]:
    """`read_hours`, but FileNotFoundError where there is no file."""
    kept = read_json(path, HOURS_LOST)
    trials = kept.get("trials", {}) if isinstance(kept, dict) else None
    times = [kept.get("seconds"), *trials.values()] if isinstance(trials, dict) else [None]
    if any(
        isinstance(spent, bool) or not isinstance(spent, int | float) or not 0 <= spent < math.inf for spent in times
    ):
        raise DamagedFile(path, HOURS_LOST, "it holds no hours")
    return dict(kept)


def hours_unit(gpus_per_trial: float) -> str:
    """What the hours of trials are."""
    return "GPU-hours" if gpus_per_trial else "hours of trials on the CPU"
