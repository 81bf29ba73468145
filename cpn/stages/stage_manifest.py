"""The manifest of a later stage, `manifest.json`: what platform/run/run_stages.py writes last into a stage's folder."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from cpn.propagation.walk_rule import WalkChoice
from cpn.scoring.run_manifest import Number, Numbers


class WalkSetting(BaseModel):
    """A setting of the random walk that was tried on masks. Metrics are in percent."""

    model_config = ConfigDict(frozen=True, extra="allow")

    alpha: Number | None
    """None for IRN's walk, which has none."""
    logt: int
    miou_select: Number
    miou_confirm: Number


class WalkReport(BaseModel):
    """What was chosen for the random walk, `walk.json`, and why. Metrics are in percent."""

    model_config = ConfigDict(frozen=True, extra="allow")

    choice: WalkChoice
    rule: WalkChoice | None = None
    """What the rule alone would have chosen."""
    metrics: Numbers = {}
    """The choice as numbers; mIoU of the walk, of the rule alone and of the CAM, on select and confirm images."""
    grid: tuple[WalkSetting, ...] = ()
    """Every setting that was tried; none without masks."""
    words: str
    """For people."""

    def to_json(self) -> dict[str, Any]:
        """Give the plain values that the file holds: those that were given, and no others."""
        return self.model_dump(mode="json", exclude_unset=True)


class StageManifest(BaseModel):
    """What a finished stage is, and what it reached. Metrics are in percent.

    A manifest of an earlier version lacks what that did not write; keys of a later one are kept as they are.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    stage: str
    key: str
    """Follows from the settings, the inputs' keys and the data: see `cpn.stages.pipeline.stage_keys`."""
    inputs: dict[str, str] = {}
    """Keys of the stages before it, and `model`, the digest of the CAM network or of the imported list."""
    config: dict[str, Any] = {}
    """The stage's own settings, as plain values."""
    metrics: Numbers
    """Of the pseudo labels or predictions; none where there are no masks."""
    walk: WalkReport | None = None
    """Of the random walk, where its numbers were chosen."""
    history: tuple[Numbers, ...] = ()
    """What a training reported after each epoch."""
    seconds: float = 0.0
    finished: float = 0.0
    """When, in seconds since 1970."""
    files: str | None = None
    """The digest of files.json; earlier versions and buckets have none."""
    earlier_key: str | None = None
    """The key of names under which an earlier version kept it."""

    def to_json(self) -> dict[str, Any]:
        """Give the plain values that the file holds: those that were given, and no others."""
        return self.model_dump(mode="json", exclude_unset=True)
