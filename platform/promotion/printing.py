"""What the command promote prints: gates and results of the stages, as tables and as JSON."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cpn.core.run_files import MODEL
from cpn.stages.stage_manifest import StageManifest

from ..base.paths import Storage, shortened
from ..base.terminal import Terminal
from ..reports.summary import walk_words
from .alias_requests import AliasOutcome
from .candidates import Gate


@dataclass(frozen=True)
class StageResult:
    """Where a finished stage lies, and what it reached."""

    folder: str
    metrics: Mapping[str, float | None]
    """In percent."""


@dataclass(frozen=True)
class PromotionResult:
    """What a promotion came to; of a dry run what it would do."""

    sweep: str
    uid: str
    beta: float
    gates: Sequence[Gate]
    because: str | None
    plan: Mapping[str, bool]
    """Each stage's folder name, and whether it was done before."""
    model: str | None = None
    """The checkpoint's file; None for files of another method."""
    measured: Mapping[str, float] | None = None
    """What files of another method reach on the list with masks."""
    stages: Mapping[str, StageResult] | None = None
    """None for a dry run."""
    records_waiting: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the object that `--json` prints."""
        done = {} if self.stages is None else {name: asdict(stage) for name, stage in self.stages.items()}
        optional = {"model": self.model, "measured": self.measured, "records_waiting": self.records_waiting}
        return {
            "sweep": self.sweep,
            "uid": self.uid,
            "beta": self.beta,
            "gates": {gate.name: {"holds": gate.holds, "words": gate.words} for gate in self.gates},
            "because": self.because,
            "stages": dict(self.plan) if self.stages is None else done,
            **{name: value for name, value in optional.items() if value is not None},
        }


@dataclass(frozen=True)
class RequestResult:
    """What an alias moved manually in a sweep's model came to."""

    sweep: str
    outcome: AliasOutcome
    stages: Mapping[str, StageResult] | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the object that `--json` prints."""
        outcome = self.outcome
        values = {"sweep": self.sweep, "from": outcome.before, "to": outcome.to, "kind": outcome.kind}
        values["why"] = outcome.why
        if self.stages is None:
            return values
        return {**values, "uid": outcome.uid, "stages": {name: asdict(stage) for name, stage in self.stages.items()}}


def show_gates(terminal: Terminal, uid: str, gates: Sequence[Gate]) -> None:
    """Print the table of gates."""
    rows = [[gate.name, "holds" if gate.holds else "fails", gate.words] for gate in gates]
    terminal.table(f"gates of {uid}", ["gate", "", "what was found"], rows, left=3)


def results(store: Storage, manifests: Mapping[str, StageManifest]) -> dict[str, StageResult]:
    """Return each stage's folder and metrics."""
    return {
        stage: StageResult(str(store.stage(stage, manifest.key)), manifest.metrics)
        for stage, manifest in manifests.items()
    }


def show_result(
    terminal: Terminal,
    store: Storage,
    uid: str,
    manifests: Mapping[str, StageManifest],
    waiting: int,
    backbone: str,
) -> None:
    """Print what the stages scored, where their pictures lie, and what to type next: for an own `backbone` with its
    name.
    """
    rows = [[f"{stage}/{name}", value] for stage, m in manifests.items() for name, value in m.metrics.items()
            if "miou" in name]  # fmt: skip
    if rows:
        terminal.table(f"{uid}, from CAM to segmentation", ["metric", "mIoU %"], rows)
    if walk := walk_words(manifests):
        terminal.say(walk)
    folders = [store.stage(stage, manifest.key) for stage, manifest in manifests.items()]
    for picture in [path for folder in folders for path in sorted((folder / "pictures").glob("*.png"))]:
        terminal.say(f"  {shortened(picture)}")
    model = shortened(store.stage("deeplab", manifests["deeplab"].key) / MODEL)
    becomes = "becomes champion as soon as the tracking store is back" if waiting else "is champion"
    terminal.say(f"{uid} {becomes}; python -m platform.promote --history says since when and why")
    own = f" --backbone {shlex.quote(backbone)}" if ":" in backbone else ""
    terminal.say(f"next: python -m cpn.predict {shlex.quote(str(model))} IMAGES...{own} --out predictions")
