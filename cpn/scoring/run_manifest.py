"""The manifest of a run, `result.json`: what cpn/run.py writes last into a run's folder, and others read back."""

from typing import Any

from pydantic import BaseModel, ConfigDict

Number = int | float
"""As the file holds it: an epoch stays a whole number."""


class Curve(BaseModel):
    """mIoU in percent over the background score."""

    model_config = ConfigDict(frozen=True, extra="allow")

    beta: tuple[float, ...]
    miou: tuple[float, ...]
    """Of the select images."""
    miou_train: tuple[float, ...] = ()
    """Of all scored images."""


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
    history: tuple[dict[str, Number], ...]
    """What was reported after each epoch."""
    metrics: dict[str, Number]
    """miou, miou_fixed_beta, miou_confirm, miou_train, mask_free and its halves, beta: see `cpn.run.run`."""
    seconds: float = 0.0
    """Of training and scoring, in the process that finished the run."""
    curve: Curve | None = None
    iou: tuple[float, ...] = ()
    """Of each class, background first, on the select images at the best beta."""
    scales: tuple[dict[str, Any], ...] = ()
    """Scores by image scale: rows of `cpn.scoring.scale_scores.score_rows`."""
    digests: dict[str, str]
    """SHA-256 of the run's files, by name."""

    def to_json(self) -> dict[str, Any]:
        """Give the plain values that the file holds: those that were given, and no others."""
        return self.model_dump(mode="json", exclude_unset=True)
