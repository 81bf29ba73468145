"""The file that keeps a sweep's hours and how far it is; read by other processes too, without torch."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cpn.core.files import DamagedFile, read_json

from ..base.remaining_time import PhaseProgress

HOURS_LOST = "the sweep's next start counts anew, from its last end and what its complete trials took themselves"
"""The cure for a clock's file."""


Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class KeptHours(BaseModel):
    """What a sweep's clock has counted over all starts."""

    model_config = ConfigDict(frozen=True)

    seconds: Seconds
    """By the clock."""
    trials: dict[str, Seconds] = {}
    """That each trial held its workers, by uid."""
    progress: PhaseProgress | None = None
    """How far the sweep was when this was written."""


def read_hours(path: Path) -> KeptHours:
    """Read a clock's file, no hours where there is none yet. Raises DamagedFile."""
    try:
        return read_clock(path)
    except FileNotFoundError:
        return KeptHours(seconds=0.0)


def read_clock(path: Path) -> KeptHours:
    """`read_hours`, but FileNotFoundError where there is no file."""
    try:
        return KeptHours.model_validate(read_json(path, HOURS_LOST))
    except ValidationError:
        raise DamagedFile(path, HOURS_LOST, "it holds no hours") from None


def hours_unit(gpus_per_trial: float) -> str:
    """Return what the hours of trials are."""
    return "GPU-hours" if gpus_per_trial else "hours of trials on the CPU"
