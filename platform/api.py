"""Sweeps from Python: run one, or read what one has come to.

    from platform.api import run_sweep
    result = run_sweep("search_spaces/quickstart.yaml", sets=["budget.trials=20"])
    print(result.verdict, result.winner.config.loss.w_tcp)

Signals stay the caller's: a KeyboardInterrupt stops the sweep, and the same call goes on with it. docs/python.md has
more.
"""

import json
import os
import shlex
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.config import Config
from cpn.core.errors import InputError, WorkError, as_work_error

from .base.paths import storage as storage_at
from .base.provenance import shown_command
from .config.spec import load_spec, spec_from
from .config.sweep_spec import SweepSpec

if TYPE_CHECKING:  # Optuna and torch are imported when a sweep is run or read
    from .reports.snapshot import SweepSnapshot
    from .search.sweep_summary import SweepSummary

__all__ = [
    "Confirmed",
    "InputError",
    "SweepResult",
    "SweepSpec",
    "Winner",
    "WorkError",
    "load_spec",
    "run_sweep",
    "sweep_result",
]

_driving = threading.Lock()
"""Held while a sweep runs: Ray can be started once in a process."""


@dataclass(frozen=True)
class Confirmed:
    """A configuration that ran again with fresh seeds: the objective on the confirm images, in percent."""

    mean: float
    seeds: tuple[float, ...]
    """Of each seed."""
    interval: tuple[float, float] | None = None
    """Of the mean, at 95 %; None where one seed, or one image, says nothing about it."""
    difference: tuple[float, float] | None = None
    """Bounds of the difference to the reference, at the verdict's level; None where it was not tested."""


@dataclass(frozen=True)
class Winner:
    """The trial with the best confirmed mean."""

    uid: str
    config: Config = field(repr=False)
    """The whole configuration of its run."""
    value: float | None
    """The sweep's objective on the select images, percent."""
    beta: float | None
    """The background score at which that was reached."""
    model: Path
    """Its CAM network, `model.safetensors`, for `cpn.load`."""


@dataclass(frozen=True)
class SweepResult:
    """What a sweep has come to. Metrics are in percent; what there is none of is None, or empty."""

    name: str
    state: str
    """running, stopped, finished or failed."""
    objective: str
    """What trials are ranked by: miou or mask_free."""
    verdict: str | None
    """In one sentence; None before the first end, and for a table, which has none."""
    better: bool
    """Whether the winner is shown to beat the reference."""
    against_baseline: str | None
    """How the winner stands against cam_baseline, in one sentence."""
    winner: Winner | None
    confirmed: Mapping[str, Confirmed]
    """By trial, and `cam_baseline`: what ran again with fresh seeds."""
    stages: Mapping[str, Mapping[str, float]]
    """Metrics of the later stages that have some: `stages["deeplab"]["miou_val"]`."""
    segmentation: Path | None
    """The DeepLab made from the winner, for `cpn.load`."""
    folder: Path
    """Where the sweep keeps its own files."""
    report: Path | None
    """The HTML report."""
    summary: Path | None
    """All of it as JSON."""
    table: Path | None
    """The rows of a sweep whose file holds a `table`, as JSON."""
    warnings: tuple[str, ...] = ()
    """What was warned of while the sweep ran."""


def run_sweep(
    spec: str | Path | SweepSpec | Mapping[str, Any],
    *,
    sets: Sequence[str] = (),
    storage: str | Path | None = None,
    quiet: bool = True,
) -> SweepResult:
    """Run or continue a sweep on this machine, or on the cluster that RAY_ADDRESS names, and return its result.

    `spec` is a search space file, what such a file holds, or a `SweepSpec`. `sets` are `name=value` texts as after
    `--set`; `storage` stands for `resources.storage`. Unless `quiet` is False nothing is printed: lines go to the
    logger `platform.api`. The same call again continues where it stopped, and does nothing when all is done.

    Raises InputError where specification, data or cluster are wrong, WorkError where the work failed; what was done
    stays. No signal handler is set: KeyboardInterrupt comes through, and every trial can go on. A process runs one
    sweep at a time, from any of its threads.
    """
    whole, command = _spec_and_command(spec, sets, storage)
    ray = sys.modules.get("ray")
    if not _driving.acquire(blocking=False):
        raise InputError("run_sweep: a sweep runs in this process already; wait for it, or start another process")
    try:
        if ray is not None and ray.is_initialized():
            raise InputError("run_sweep: Ray runs in this process already; call ray.shutdown() first")
        return _run(whole, command, quiet)
    except (InputError, WorkError):
        raise
    except Exception as error:
        if (plain := as_work_error(error)) is not None:
            raise plain from error
        raise
    finally:
        _driving.release()


def sweep_result(name: str, storage: str | Path = "sweeps") -> SweepResult:
    """Read what the sweep `name` has come to so far; one that runs is not disturbed.

    Raises InputError when there is no such sweep in `storage`, or its files are damaged.
    """
    from .reports.snapshot import read_sweep

    return _result(read_sweep(storage_at(str(storage)), name))


def _spec_and_command(
    spec: str | Path | SweepSpec | Mapping[str, Any], sets: Sequence[str], storage: str | Path | None
) -> tuple[SweepSpec, str]:
    """Return the checked specification, and the command line that continues its sweep."""
    if storage is not None:
        sets = [*sets, f"resources.storage={json.dumps(str(storage))}"]
    if isinstance(spec, str | Path):
        return load_spec(Path(spec), sets), shown_command(Path(spec), sets)
    raw = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True) if isinstance(spec, SweepSpec) else spec
    try:
        plain = json.loads(json.dumps(raw, default=os.fspath))
    except (TypeError, ValueError) as error:
        raise InputError(f"spec: {error}; give what a YAML file can hold") from None
    whole = spec_from(plain, sets, Path("spec"))
    spec_file = storage_at(whole.resources.storage).sweep(whole.name).spec
    return whole, shlex.join(["python", "-m", "platform.sweep", str(spec_file)])


def _run(spec: SweepSpec, command: str, quiet: bool) -> SweepResult:
    """Run the sweep in this thread."""
    from .base.logged_terminal import LoggedTerminal
    from .base.terminal import Terminal
    from .cluster.interruption import Interruption
    from .reports.snapshot import read_with
    from .search.study import study_url
    from .sweeps.run_sweep import run_locked

    terminal = LoggedTerminal() if quiet else Terminal()
    run_locked(spec, command, terminal, Interruption())
    return _result(read_with(spec, storage_at(spec.resources.storage), study_url(spec)), terminal.warnings)


def _result(sweep: "SweepSnapshot", warnings: Sequence[str] = ()) -> SweepResult:
    """Give what a sweep has come to as it lies on disk."""
    paths, summary, winner = sweep.store.sweep(sweep.name), sweep.summary, _winner(sweep)
    stages: dict[str, dict[str, float]] = {}
    for name, value in (summary.metrics if summary else {}).items():
        stage, slash, metric = name.partition("/")
        if slash and value is not None:
            stages.setdefault(stage, {})[metric] = float(value)
    return SweepResult(
        name=sweep.name,
        state=sweep.state,
        objective=sweep.spec.objective,
        verdict=summary.verdict if summary else None,
        better=summary is not None and summary.better,
        against_baseline=summary.against_baseline if summary else None,
        winner=winner,
        confirmed=_confirmed(summary) if summary else {},
        stages=stages,
        segmentation=_segmentation(sweep, winner) if winner else None,
        folder=paths.root,
        report=_there(paths.report),
        summary=_there(paths.summary),
        table=_there(paths.table),
        warnings=tuple(warnings),
    )


def _winner(sweep: "SweepSnapshot") -> Winner | None:
    from cpn.core.run_files import MODEL

    row = sweep.by_uid.get(sweep.summary.winner) if sweep.summary else None
    if row is None:
        return None
    return Winner(row.uid, sweep.config(row), row.miou, row.beta, sweep.folder(row) / MODEL)


def _confirmed(summary: "SweepSummary") -> dict[str, Confirmed]:
    by_uid = {entry.uid: entry for entry in summary.leaderboard}
    return {
        uid: Confirmed(
            sum(values) / len(values),
            values,
            by_uid[uid].interval if uid in by_uid else None,
            by_uid[uid].difference if uid in by_uid else None,
        )
        for uid, values in summary.confirmed.items()
        if values
    }


def _segmentation(sweep: "SweepSnapshot", winner: Winner) -> Path | None:
    """Find the DeepLab made from the winner; None where that stage is not done, or its files are elsewhere."""
    from cpn.core.files import file_digest
    from cpn.stages.stage_manifest import stage_keys

    if not winner.model.is_file():
        return None
    keys = stage_keys(file_digest(winner.model), winner.config, sweep.fingerprint, beta=winner.beta or 0.0)
    return _there(sweep.store.stage("deeplab", keys["deeplab"]) / winner.model.name)


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None
