"""Six faults of Ray's stock OptunaSearch, the reason for a Searcher of our own: each test passes here and fails there.

The failures on the stock class are strict: the day Ray mends one, that test says so.
"""

import math
from pathlib import Path
from platform.cluster.tune_searcher import StudyPruner, StudySearcher
from platform.config.sections import Pruning
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from cpn.core.errors import InputError
from tests.platform.search.test_study import make_study

NAME = "small"
SPACE = {"x": optuna.distributions.FloatDistribution(0, 1)}
EPOCHS = 8


class Ours:
    """The Searcher and pruner of this project over a study on disk."""

    def __init__(self, folder: Path) -> None:
        study = make_study(folder)
        self._study = study
        self.searcher: Searcher = StudySearcher(study, None)
        self._pruner = StudyPruner(study, self.searcher, Pruning(audit=0), 0, EPOCHS)  # type: ignore[arg-type]
        self._uids: dict[str, str] = {}

    def start(self, trial: str) -> None:
        config = self.searcher.suggest(trial)
        assert isinstance(config, dict)
        self._uids[trial] = config["uid"]

    def stopped_at_rung(self, trial: str, value: float) -> None:
        """What Tune does when the scheduler stops a trial: its last result goes to the searcher."""
        result = {"epoch": EPOCHS // 2, "miou_epoch": value, "training_iteration": 4}
        given = SimpleNamespace(config={"uid": self._uids[trial]})
        assert self._pruner.on_trial_result(None, given, result) == "STOP"  # type: ignore[arg-type]
        self.searcher.on_trial_complete(trial, result)

    def reports_at_rung(self, trial: str, value: float) -> None:
        result = {"epoch": EPOCHS // 2, "miou_epoch": value, "training_iteration": 4}
        given = SimpleNamespace(config={"uid": self._uids[trial]})
        self._pruner.on_trial_result(None, given, result)  # type: ignore[arg-type]

    def finished(self, trial: str, value: float) -> None:
        self.searcher.on_trial_complete(trial, {"epoch": EPOCHS, "miou": value, "training_iteration": 8})


class Stock:
    """OptunaSearch over a study on disk, with the paper's setting as its first point."""

    def __init__(self, folder: Path) -> None:
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/study.db")
        self.searcher: Searcher = OptunaSearch(
            SPACE, metric="miou", mode="max", study_name=NAME, storage=storage, points_to_evaluate=[{"x": 0.5}]
        )

    def start(self, trial: str) -> None:
        self.searcher.suggest(trial)

    def stopped_at_rung(self, trial: str, value: float) -> None:
        self.searcher.on_trial_complete(trial, {"miou": value, "training_iteration": 4})

    def reports_at_rung(self, trial: str, value: float) -> None:
        self.searcher.on_trial_result(trial, {"miou": value, "training_iteration": 4})

    def finished(self, trial: str, value: float) -> None:
        self.searcher.on_trial_complete(trial, {"miou": value, "training_iteration": 8})


def ours_and_stock(fault: type[BaseException] = AssertionError) -> Any:
    stock = pytest.param(Stock, marks=pytest.mark.xfail(strict=True, raises=fault, reason="a fault of OptunaSearch"))
    return pytest.mark.parametrize("side", [Ours, stock])


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name=NAME, storage=f"sqlite:///{folder}/study.db")
    return study.trials


@ours_and_stock()
def test_a_trial_stopped_at_its_first_rung_is_never_best(tmp_path: Path, side: Any) -> None:
    sweep = side(tmp_path)
    for number, value in enumerate([60.0, 60.5, 61.0, 61.5, 62.0]):
        sweep.start(str(number))
        sweep.reports_at_rung(str(number), value)
        sweep.finished(str(number), value / 2)
    sweep.start("lucky")
    sweep.stopped_at_rung("lucky", 59.0)  # above every final value
    states = [trial.state.name for trial in trials(tmp_path)]
    best = optuna.load_study(study_name=NAME, storage=f"sqlite:///{tmp_path}/study.db").best_trial
    assert (states[-1], best.number) == ("PRUNED", 4)


@ours_and_stock()
@pytest.mark.filterwarnings("ignore")
def test_a_nan_ends_the_trial(tmp_path: Path, side: Any) -> None:
    sweep = side(tmp_path)
    sweep.start("a")
    sweep.finished("a", math.nan)
    assert [trial.state.name for trial in trials(tmp_path)][0] == "FAIL"


@ours_and_stock(pytest.fail.Exception)
def test_a_foreign_study_of_that_name_is_refused(tmp_path: Path, side: Any) -> None:
    foreign = optuna.create_study(study_name=NAME, storage=f"sqlite:///{tmp_path}/study.db", direction="maximize")
    foreign.add_trial(optuna.trial.create_trial(value=99.0, params={"x": 0.1}, distributions=SPACE))
    with pytest.raises(InputError, match="another program"):
        side(tmp_path)


@ours_and_stock()
def test_the_first_point_comes_once_ever(tmp_path: Path, side: Any) -> None:
    for start in range(3):
        sweep = side(tmp_path)
        sweep.start(str(start))
        sweep.finished(str(start), 50.0)
    found = trials(tmp_path)
    assert len(found) == 3
    assert len({str(trial.params) for trial in found}) == 3


@ours_and_stock(pytest.fail.Exception)
def test_a_study_that_minimises_is_refused(tmp_path: Path, side: Any) -> None:
    """The stock class goes on with the direction that the study has, whatever is asked for."""
    optuna.create_study(study_name=NAME, storage=f"sqlite:///{tmp_path}/study.db", direction="minimize")
    with pytest.raises(InputError, match="minimises"):
        side(tmp_path)


@ours_and_stock(KeyError)
def test_a_late_suggested_trial_is_completed_after_a_kill(tmp_path: Path, side: Any) -> None:
    sweep = side(tmp_path)
    sweep.start("a")
    sweep.searcher.save(str(tmp_path / "snapshot"))
    sweep.start("b")
    del sweep
    again = side(tmp_path)
    if (tmp_path / "snapshot").exists():
        again.searcher.restore(str(tmp_path / "snapshot"))
    else:
        again.start("a")
        again.start("b")
    again.finished("b", 40.0)
    assert [trial.state.name for trial in trials(tmp_path)] == ["RUNNING", "COMPLETE"]
