"""What the command promote prints: gates and results of the stages."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from cpn.core.run_files import MODEL
from cpn.stages.stage_manifest import StageManifest

from ..base.paths import Storage, shortened
from ..base.terminal import Terminal
from ..reports.summary import walk_words
from .candidates import Gate


def show_gates(terminal: Terminal, uid: str, gates: Sequence[Gate]) -> None:
    """The table of gates."""
    rows = [[gate.name, "holds" if gate.holds else "fails", gate.words] for gate in gates]
    terminal.table(f"gates of {uid}", ["gate", "", "what was found"], rows)


def results(store: Storage, manifests: Mapping[str, StageManifest]) -> dict[str, Any]:
    """Each stage's folder and metrics."""
    return {
        stage: {"folder": str(store.stage(stage, manifest.key)), "metrics": manifest.metrics}
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
    """What the stages scored, where their pictures lie, and what to type next: for an own `backbone` with its name."""
    rows = [[f"{stage}/{name}", value] for stage, m in manifests.items() for name, value in m.metrics.items()
            if "miou" in name]  # fmt: skip
    if rows:
        terminal.table(f"{uid}, from CAM to segmentation", ["metric", "mIoU %"], rows)
    if said := walk_words(manifests):
        terminal.say(said)
    folders = [store.stage(stage, manifest.key) for stage, manifest in manifests.items()]
    for picture in [path for folder in folders for path in sorted((folder / "pictures").glob("*.png"))]:
        terminal.say(f"  {shortened(picture)}")
    model = shortened(store.stage("deeplab", manifests["deeplab"].key) / MODEL)
    becomes = "becomes champion as soon as the tracking store is back" if waiting else "is champion"
    terminal.say(f"{uid} {becomes}; python -m platform.promote --history says since when and why")
    own = f" --backbone {shlex.quote(backbone)}" if ":" in backbone else ""
    terminal.say(f"next: python -m cpn.predict {shlex.quote(str(model))} IMAGES...{own} --out predictions")
