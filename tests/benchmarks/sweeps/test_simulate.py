"""The simulation bench decides as real Ray Tune does: the same draws, the same prunings, the same ends."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from platform.cluster.tune_searcher import StudyPruner, StudySearcher
from platform.plan.budget import Clock, Limits, reached
from platform.search.study import State, TrialRow
from platform.tracking.recorder import read_runs
from typing import Any

import numpy as np
import pytest

from benchmarks.sweeps import surrogate
from benchmarks.sweeps.search import geometric_ratio, published, random_draws
from benchmarks.sweeps.simulate import SimulatedRecords, reports_of, simulate, simulated_spec, simulated_study

EPOCHS = 4
BEST: dict[str, Any] = {
    "patches.kind": "superpixel",
    "patches.S_N": 200,
    "patches.p_h": 0.5,
    "loss.w_tcp": 1.0,
    "loss.w_cpcr": 1.0,
    "loss.ohem_ratio": 0.2,
    "network.prcm": True,
}


def objective(values: Mapping[str, Any], number: int) -> tuple[list[float], float]:
    noise = np.random.default_rng(number)
    final = surrogate.true_miou(values) + surrogate.SEED_NOISE * float(noise.standard_normal())
    final = math.nan if number == 7 else final
    return [surrogate.at_epoch(final, epoch, EPOCHS, noise) for epoch in range(1, EPOCHS + 1)], final


def spec_in(folder: Path, trials: int, **sections: Any) -> Any:
    base = {**surrogate.BASE, "train": {"epochs": EPOCHS}}
    return simulated_spec(folder, surrogate.SEARCH, base, trials, 3, **sections)


def simulated(folder: Path, trials: int, **sections: Any) -> list[TrialRow]:
    spec = spec_in(folder, trials, **sections)
    study = simulated_study(spec)
    simulate(study, spec, objective)
    return study.rows()


@pytest.mark.parametrize(
    ("changed", "score"),
    [
        ({}, 57.43),
        ({"patches.S_N": 8000}, 55.79),
        ({"patches.kind": "grid", "patches.K": [56, 112]}, 57.07),
        ({"patches.kind": "grid", "patches.K": [4, 7]}, 55.67),
        ({"patches.kind": "grid", "patches.K": [224, 448]}, 55.80),
        ({"patches.p_h": 0.1}, 55.52),
        ({"patches.p_h": 0.3}, 56.29),
        ({"network.prcm": False}, 56.58),
        ({"network.prcm": False, "loss.ohem_ratio": None}, 55.71),
        ({"network.prcm": False, "loss.w_cpcr": 0.0}, 51.08),
        ({"network.prcm": False, "loss.w_cpcr": 0.0, "loss.w_tcp": 0.0}, 47.84),
    ],
)
def test_the_surrogate_gives_the_published_points(changed: dict[str, Any], score: float) -> None:
    assert surrogate.true_miou({**BEST, **changed}) == pytest.approx(score)


def test_the_optimum_is_found_by_chance_after_all(tmp_path: Path) -> None:
    problem = published(0)
    assert problem.good(BEST) and not problem.good({**BEST, "network.prcm": False})
    assert 10 < random_draws(problem, 0) < 20_000


def test_a_ratio_of_searches_by_hand() -> None:
    assert geometric_ratio([2, 8], [4, 4]) == pytest.approx((1.0, 0.5, 2.0))
    assert geometric_ratio([3, 3, 3], [6, 6, 6]) == pytest.approx((0.5, 0.5, 0.5))


def test_a_simulated_sweep_prunes_fails_and_ends_at_its_budget(tmp_path: Path) -> None:
    rows = simulated(tmp_path, 30, search_options={"sampler": "random"}, pruning={"min_audited": 0})
    states = [row.state for row in rows]
    assert len(rows) == 30 and states[7] is State.FAIL and rows[7].reason == "miou_epoch is nan after epoch 1"
    assert states.count(State.PRUNED) > 5 and all(row.epochs == 2 for row in rows if row.state is State.PRUNED)
    assert all(row.epochs == EPOCHS for row in rows if row.state is State.COMPLETE)


def test_trials_at_a_time_and_a_kill_lose_nothing(tmp_path: Path) -> None:
    spec = spec_in(tmp_path, 12, search_options={"sampler": "random"})
    study = simulated_study(spec)
    simulate(study, spec, objective, concurrent=3, over=lambda: sum(study.counts().values()) > 6)
    first = simulated_study(spec)
    assert sum(first.counts().values()) == 7 and first.counts()[State.RUNNING] > 0
    first.ask()  # what a kill leaves
    simulate(simulated_study(spec), spec, objective, concurrent=3)
    assert [row.state.finished for row in simulated_study(spec).rows()] == [True] * 12


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"trials": 9}, None),
        ({"target_miou": 54}, "budget.target_miou: 5"),
        ({"plateau_trials": 3}, "budget.plateau_trials: 3 trials"),
        ({"failures": 1}, "budget.failures: 1 trials failed"),
    ],
)
def test_no_limit_is_overshot_by_more_than_one_report(tmp_path: Path, limit: dict[str, Any], words: str | None) -> None:
    """Four trials at a time, begun one after the other. Limits of hours: tests/platform/plan/test_budget.py."""
    spec = spec_in(tmp_path, 40, search_options={"sampler": "random"}, pruning={"kind": "none"}, budget=limit)
    study, said = simulated_study(spec), list[str]()
    limits = Limits(spec.budget, study.ended, Clock(tmp_path / "clock.json"), 0, said.append)
    at_limit: dict[str, int] = {}

    def shifted(values: Mapping[str, Any], number: int) -> tuple[list[float], float]:
        epochs, final = objective(values, number)
        return epochs[: EPOCHS - number] if number < 3 else epochs, final

    def ended(uid: str) -> None:
        if reached(spec.budget, study.rows()) and not at_limit:
            at_limit.update({row.uid: row.epochs for row in study.rows()})

    simulate(study, spec, shifted, concurrent=4, over=limits.over, ended=ended)
    rows = study.rows()
    if words is None:
        assert len(rows) == limit["trials"] and all(row.state.finished for row in rows) and said == []
        return
    assert len(said) == 1 and said[0].startswith(f"the search ends here, trials under way stay resumable: {words}")
    assert {row.uid for row in rows} == set(at_limit), "no trial began after the limit"
    assert all(row.epochs - at_limit[row.uid] <= 1 for row in rows)
    running = [row for row in rows if row.state is State.RUNNING]
    assert len(running) == 3 and any(row.epochs < EPOCHS for row in running)
    simulate(simulated_study(spec), spec, shifted, concurrent=4, over=limits.over)
    assert simulated_study(spec).rows() == rows, "the next start leaves them alone"


def test_the_records_agree_with_the_study_trial_by_trial(tmp_path: Path) -> None:
    spec = spec_in(tmp_path, 12, search_options={"sampler": "random"}, pruning={"min_audited": 0})
    study, uri = simulated_study(spec), f"sqlite:///{tmp_path / 'mlflow.db'}"
    told = SimulatedRecords(study, spec, tmp_path / "spool", uri)
    simulate(study, spec, objective, concurrent=2, records=told)
    told.recorder.end("simulated.sweep", "FINISHED")
    assert told.recorder.close(100) == 0 and told.recorder.refused == 0
    runs = {run.uid: run for run in read_runs(uri, "simulated")}
    ends = {State.COMPLETE: "FINISHED", State.PRUNED: "FINISHED", State.FAIL: "FAILED"}
    rows = study.rows()
    assert len(runs) == 13 and {row.state for row in rows} == set(ends)
    for row in rows:
        assert (runs[row.uid].status, runs[row.uid].tags["state"]) == (ends[row.state], row.state.name)
        assert runs[row.uid].tags["pruned"] == str(row.state is State.PRUNED).lower()


@pytest.fixture
def ray_here() -> Iterator[None]:
    import ray

    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("default")
def test_fifty_trials_through_real_tune_decide_the_same(tmp_path: Path, ray_here: None) -> None:
    from ray import tune

    def trainable(config: dict[str, Any]) -> None:
        for report in reports_of(objective, config):
            tune.report(report)

    expected = simulated(tmp_path / "simulated", 50)
    spec = spec_in(tmp_path / "tune", 50)
    study = simulated_study(spec)
    searcher = StudySearcher(study, spec.trial_limit)
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyPruner(study, searcher, spec.pruning, spec.search_options.seed, EPOCHS),
            num_samples=-1,
            max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "results"), verbose=0),
    ).fit()
    rows = study.rows()
    assert {row.state for row in rows} == {State.COMPLETE, State.PRUNED, State.FAIL}
    assert [dataclasses.asdict(row) for row in rows] == [dataclasses.asdict(row) for row in expected]
