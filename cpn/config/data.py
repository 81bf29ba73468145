"""The sections `data` and `data.scenes`: which images are used and how a training image is augmented."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from cpn.config.section import LARGEST_SIDE, MOST_IMAGES, MOST_PROCESSES, Section
from cpn.core.files import digest

Side = Annotated[int, Field(le=LARGEST_SIDE)]


class ScenesConfig(Section):
    """Synthetic scenes (cpn/sources/scenes.py): how many, how large, from which seed."""

    train: int = Field(default=150, ge=1, le=MOST_IMAGES)
    """Scenes in list `train` (with masks, scored)."""
    extra: int = Field(default=0, ge=0, le=MOST_IMAGES)
    """Further scenes that only list `trainaug` holds: trainaug = train + extra."""
    val: int = Field(default=60, ge=1, le=MOST_IMAGES)
    """Scenes in list `val`, drawn from another seed stream."""
    size: int = Field(default=64, ge=32, le=2048)
    """Side of the square scenes in pixels."""
    trace: float = Field(default=0.15, ge=0, le=1)
    """Share of the head's colour in torso and limbs, the trace of its class that a body carries."""
    seed: int = Field(default=0, ge=0)
    """The same seed gives the same bytes."""

    @property
    def folder_name(self) -> str:
        """What the folder of these scenes is called in a cache."""
        return f"scenes-{digest(self.model_dump())}"


class DataConfig(Section):
    """Which images are used and how a training image is augmented (method.md (a))."""

    root: str | None = None
    """Folder in VOC 2012 layout, or URL of a packed one; None = synthetic scenes, see `scenes`."""
    scenes: ScenesConfig | None = None
    """The scenes that are made when `root` is None."""
    train: str = "trainaug"
    """List whose image-level labels train the network; never `test`."""
    score: str = "train"
    """List whose masks score the pseudo labels."""
    val: str = "val"
    """List on which the final segmentation network is evaluated, once."""
    crop: int = Field(default=448, ge=16, le=LARGEST_SIDE)
    """Side of the square training crop in pixels."""
    long_side: tuple[Side, Side] = (448, 768)
    """Smallest and largest length in pixels of the longer side after scaling; uniform integer, both included."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)
    """Jitter of brightness, contrast, saturation (factors in 1 +- x, x <= 1) and hue (in +- x turns, x <= .5)."""
    workers: int = Field(default=2, ge=0, le=MOST_PROCESSES)
    """Loader processes per training process; 0 loads in the training process."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        low, high = self.long_side
        if not 1 <= low <= high:
            raise ValueError(
                f"long_side is [{low}, {high}]: give [smallest, largest] in pixels, for example [448, 768]"
            )
        if self.train == "test":
            raise ValueError("train is test: a test list serves prediction only; give trainaug or train")
        limits = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}
        for (name, limit), value in zip(limits.items(), self.jitter, strict=True):
            if not 0 <= value <= limit:
                raise ValueError(f"jitter has {name} {value:g}: it lies in 0 to {limit:g}")
        return self
