"""The scores of a judgement, `judge.json`: what `python -m cpn.judge` writes, and page and MLflow read back.

A name that says nothing of a judgement (the beta of labels, a difference where nothing is compared) is absent from the
file, and None here.
"""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cpn.core.errors import InputError
from cpn.scoring.run_manifest import Number

Bounds = tuple[float, float]
"""Low and high end of a 95 % interval."""


class Part(BaseModel):
    """A part of the file: names of later versions are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)


class SetScores(Part):
    """mIoU of some images in percent, and where another method is compared the paired difference from it."""

    set: str
    """all or hold-out."""
    crf: bool = False
    """Whether behind the CRF."""
    images: int
    miou: Number
    interval: Bounds | None = None
    beta: float | None = None
    """Background score of the masks; None for labels."""
    t: float | None = None
    """The same in the scale of CAMs that are halved."""
    other: Number | None = None
    """mIoU of the other method."""
    difference: Number | None = None
    difference_interval: Bounds | None = None
    other_beta: float | None = None


class ClassScores(Part):
    """Of one class, percent of the pixels that are predicted or true: the three add up to 100."""

    iou: Number
    false_positive: Number
    false_negative: Number


class SizeScores(Part):
    """Regions of one size: a region is one class in one image."""

    size: str
    low: Number = Field(alias="from")
    """Percent of the image."""
    high: Number = Field(alias="to")
    regions: int
    iou: Number | None = None
    recall: Number | None = None


class GroupScores(Part):
    """Images by the number of their foreground classes."""

    classes: str
    images: int
    regions: int
    iou: Number | None = None
    recall: Number | None = None


class BoundaryScores(Part):
    """Wrong pixels near boundaries of the truth and elsewhere, percent."""

    pixels: int
    """Within which a boundary is near."""
    near: Number
    elsewhere: Number
    share_of_errors: Number


class Method(Part):
    """The other method."""

    folder: str
    kind: str
    halved: bool = False


class JudgementScores(Part):
    """A method's scores in percent."""

    folder: str
    kind: str
    halved: bool = False
    list: str
    images: int
    sets: tuple[SetScores, ...] = Field(min_length=1)
    classes: dict[str, ClassScores]
    errors: dict[str, Number]
    """false_positive, false_negative and wrong_class: percent of the labelled pixels."""
    by_size: tuple[SizeScores, ...]
    by_classes: tuple[GroupScores, ...]
    boundary: BoundaryScores
    undecided: str | None = None
    """What undecided pixels of labels are taken as."""
    all_below_half: bool | None = None
    """Whether no map of an object reaches 1/2; None for labels."""
    curve: dict[str, tuple[Number, ...]] | None = None
    """`beta`, and mIoU at each of select, hold-out and all images; None for labels."""
    against: Method | None = None
    data: str | None = None
    """Fingerprint of the packed data set."""
    method: int | str | None = None
    """Method version."""

    @classmethod
    def read(cls, content: Any, path: Path, cure: str) -> Self:
        """Read the content of a file. InputError, naming it and the first wrong name, if it is no judgement."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "it"
            raise InputError(f"{path}: is no judgement ({name}: {first['msg']}); {cure}") from None

    def to_json(self) -> dict[str, Any]:
        """Return the names that the file has."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
