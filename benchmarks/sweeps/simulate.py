"""A sweep without training: Tune's part is played by a loop, the Searcher, the pruner and the study are the product's.

    spec = simulated_spec(folder, surrogate.SEARCH, surrogate.BASE, trials=50, seed=0)
    simulate(simulated_study(spec), spec, objective, concurrent=4)

Whatever a sweep decides (what is drawn, who is pruned, when it ends) is decided here by the same code;
tests/benchmarks/sweeps/test_simulate.py holds a run through real Tune against it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from platform.cluster.ray_driver import ends_now
from platform.cluster.tune_searcher import StudyPruner, StudySearcher
from platform.config.sweep_spec import SweepSpec
from platform.search.study import Study, open_study, study_url
from platform.tracking.recorder import Recorder
from platform.tracking.records import Records
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from cpn.config import run_key, with_values

Objective = Callable[[Mapping[str, Any], int], tuple[list[float], float]]
"""The drawn values and the trial's number -> miou_epoch after each epoch, and the final miou."""


def simulated_spec(
    folder: Path, search: Mapping[str, Any], base: Mapping[str, Any], trials: int, seed: int = 0, **sections: Any
) -> SweepSpec:
    """A specification whose study lies in `folder`. `sections` are further ones, such as `search_options`."""
    content = {"name": "simulated", "base": base, "search": search, "budget": {"trials": trials}, **sections}
    content["resources"] = {"storage": str(folder)}
    content["search_options"] = {"seed": seed, **sections.get("search_options", {})}
    return SweepSpec.model_validate(content)


def simulated_study(spec: SweepSpec) -> Study:
    """The study of a simulated sweep; the same call again continues it."""
    return open_study(spec, study_url(spec), "simulated")


def simulate(
    study: Study,
    spec: SweepSpec,
    objective: Objective,
    *,
    concurrent: int = 1,
    over: Callable[[], bool] = lambda: False,
    enough: Callable[[], bool] = lambda: False,
    ended: Callable[[str], None] | None = None,
    records: "SimulatedRecords | None" = None,
) -> None:
    """Run the study's open trials to the end of the budget, `concurrent` at a time, one report each in turn.

    Once `over` says so no trial starts, and those under way end, resumable; once `enough` does none is drawn.
    `records` hear of every trial what those of a real sweep hear.
    """
    epochs = spec.base_config.train.epochs
    searcher = StudySearcher(study, spec.trial_limit, over, enough=enough)
    pruner = StudyPruner(study, searcher, spec.pruning, spec.search_options.seed, epochs)
    asked = ends_now(searcher, False, over)
    running: list[tuple[str, SimpleNamespace, list[dict[str, Any]]]] = []
    started, more = 0, True
    while more or running:
        while more and len(running) < concurrent:
            name = f"tune{started}"
            config = searcher.suggest(name)
            if config is None:  # the same configuration runs already
                break
            more = isinstance(config, dict)
            if isinstance(config, dict):
                started += 1
                if records is not None:
                    records.started(config["uid"])
                trial = SimpleNamespace(trial_id=name, config=config)
                running.append((name, trial, reports_of(objective, config)))
        for entry in list(running):
            name, trial, reports = entry
            if asked():
                searcher.on_trial_complete(name, None)
                running.remove(entry)
                continue
            result = reports.pop(0)
            stopped = pruner.on_trial_result(None, trial, result) == TrialScheduler.STOP  # type: ignore[arg-type]
            if stopped or not reports:
                searcher.on_trial_complete(name, result)
                running.remove(entry)
                if records is not None:
                    records.ended(trial.config["uid"])
                if ended is not None:
                    ended(trial.config["uid"])
            else:
                searcher.on_trial_result(name, result)
                if records is not None:
                    records.reported(trial.config["uid"], result)


def reports_of(objective: Objective, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the worker of a trial reports: every epoch, then the end."""
    epochs, final = objective(config["values"], config["number"])
    reports: list[dict[str, Any]] = [{"epoch": i, "miou_epoch": value} for i, value in enumerate(epochs, start=1)]
    last = epochs[-1] if epochs else final
    return [*reports, {"epoch": len(epochs), "miou_epoch": last, "miou": final, "beta": 0.5, "seconds": 1.0}]


class SimulatedRecords:
    """The product's records of a simulated sweep, in MLflow at `uri` by way of a spool in `folder`.

    They lack what only training makes: networks, pictures and the metrics of a run's manifest.
    """

    def __init__(self, study: Study, spec: SweepSpec, folder: Path, uri: str) -> None:
        self._study, self._config, self._folder = study, spec.base_config, folder
        self.recorder = Recorder(folder, uri, spec.name)
        self._records = Records(self.recorder, spec, "simulated", {})
        self._records.sweep_started()

    def started(self, uid: str) -> None:
        """A trial begins."""
        row = self._study.row(uid)
        config = with_values(self._config, row.values, f"trial {uid}")
        self._records.trial_started(row, config, run_key(config, "simulated"))

    def reported(self, uid: str, result: Mapping[str, Any]) -> None:
        """An epoch's end."""
        self._records.trial_reported(uid, result)

    def ended(self, uid: str) -> None:
        """A trial's end, as the study has it."""
        self._records.trial_ended(self._study.row(uid), None, self._folder)
