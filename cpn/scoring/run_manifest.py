"""The manifest of a run, `result.json`: what cpn/run.py writes last into a run's folder, and others read back."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from cpn.core.run_files import MODEL

Number = int | float
"""As the file holds it: an epoch stays a whole number."""


@dataclass(frozen=True)
class Lineage:
    """What is known of how a network was trained; None for what is unknown."""

    version: int | None = None
    """Of the method."""
    fingerprint: str | None = None
    """Of the packed data set."""
    digest: str | None = None
    """SHA-256 of the network's file, as its run wrote it."""
    classes: tuple[str, ...] | None = None


class Curve(BaseModel):
    """mIoU in percent over the background score."""

    model_config = ConfigDict(frozen=True, extra="allow")

    beta: tuple[float, ...]
    miou: tuple[float, ...]
    """Of the select images."""
    miou_train: tuple[float, ...] = ()
    """Of all scored images."""


def without_nulls(values: Any) -> Any:
    """Leave out what was not measured: earlier versions wrote null for it."""
    return {k: value for k, value in values.items() if value is not None} if isinstance(values, dict) else values


Numbers = Annotated[dict[str, Number], BeforeValidator(without_nulls)]


class ScaleScore(BaseModel):
    """Scores at one image scale, or at all of them, in percent: a row of `cpn.scoring.scale_scores.score_rows`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    scale: str
    miou: Number
    """At the best beta of the whole curve."""
    iou_background: Number | None = None
    iou_foreground: Number | None = None
    """Mean over the foreground classes."""


class RunManifest(BaseModel):
    """What a run is, and what it reached. Metrics are in percent; what needs masks is missing where there are none.

    A manifest of an earlier version lacks what that did not write; keys of a later one are kept as they are.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    key: str
    """Configuration with seed, data and method version: see `cpn.config.run_key`."""
    config: dict[str, Any] = {}
    """The whole configuration, as nested plain values."""
    classes: tuple[str, ...] = ()
    """The F foreground classes."""
    fingerprint: str = ""
    """Of the packed data set."""
    version: int = 0
    """METHOD_VERSION of the code that trained."""
    history: tuple[Numbers, ...]
    """What was reported after each epoch."""
    metrics: Numbers
    """miou, miou_fixed_beta, miou_confirm, miou_train, mask_free and its halves, beta: see `cpn.run.run`."""
    seconds: float = 0.0
    """Of training and scoring, in the process that finished the run."""
    curve: Curve | None = None
    iou: tuple[float, ...] = ()
    """Of each class, background first, on the select images at the best beta."""
    scales: tuple[ScaleScore, ...] = ()
    """By image scale; the last row is of all scales together."""
    digests: dict[str, str]
    """SHA-256 of the run's files, by name."""
    earlier_key: str | None = None
    """The key of names under which an earlier version kept it."""

    @property
    def lineage(self) -> Lineage:
        """What it says of its network."""
        return Lineage(self.version, self.fingerprint or None, self.digests.get(MODEL), self.classes or None)

    def to_json(self) -> dict[str, Any]:
        """Give the plain values that the file holds: those that were given, and no others."""
        return self.model_dump(mode="json", exclude_unset=True)
