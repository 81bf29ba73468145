"""Tune's seam: by hand, and once through real Ray Tune with trials that raise, diverge, are pruned and are killed."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from platform.cluster.tune_searcher import StudyPruner, StudySearcher
from platform.config.identity import StudyIdentity
from platform.config.sections import Pruning
from platform.search.study import State, Study, TrialRow, open_list, study_url
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.search import Searcher

from cpn.core.errors import InputError
from tests.platform.search.test_study import make_spec, make_study


def searcher(study: Study, limit: int | None = 6, **options: Any) -> StudySearcher:
    return StudySearcher(study, limit, **options)


def pruner(study: Study, epochs: int = 8, **options: Any) -> StudyPruner:
    return StudyPruner(study, searcher(study), Pruning(**options), 0, epochs)


def send(scheduler: StudyPruner, uid: str, **result: Any) -> str:
    """One report of a trial as Tune passes it on; returns Tune's decision."""
    return scheduler.on_trial_result(None, SimpleNamespace(config={"uid": uid}), result)  # type: ignore[arg-type]


def test_it_hands_out_the_reference_then_up_to_the_limit(tmp_path: Path) -> None:
    search = searcher(make_study(tmp_path), limit=3)
    given = [search.suggest(f"tune{i}") for i in range(4)]
    assert [config["uid"] for config in given[:3] if isinstance(config, dict)] == [f"small-000{i}" for i in range(3)]
    assert given[3] == Searcher.FINISHED
    first = given[0]
    assert isinstance(first, dict) and set(first) == {"uid", "number", "values", "seed", "role"}
    assert (first["role"], first["seed"], first["values"]["loss.w_tcp"]) == ("reference", 5, 1.0)


def test_a_restart_hands_out_the_unfinished_first(tmp_path: Path) -> None:
    search = searcher(make_study(tmp_path), limit=4)
    before = [search.suggest(f"tune{i}") for i in range(3)]
    search.on_trial_complete("tune1", {"miou": 0.5, "epoch": 8})
    again = searcher(make_study(tmp_path), limit=4)
    after = [again.suggest(f"new{i}") for i in range(4)]
    assert after[0] == before[0] and after[1] == before[2]
    assert isinstance(after[2], dict) and after[2]["uid"] == "small-0003"
    assert after[3] == Searcher.FINISHED


def test_a_stop_that_is_asked_for_ends_the_suggestions(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    stop = False
    search = searcher(study, should_stop=lambda: stop)
    assert isinstance(search.suggest("a"), dict)
    stop = True
    assert search.suggest("b") == Searcher.FINISHED and study.counts()[State.RUNNING] == 1


@pytest.mark.parametrize(
    ("result", "error", "state", "reason"),
    [
        ({"miou": 0.5, "beta": 0.3, "miou_epoch": 0.4, "epoch": 8}, False, State.COMPLETE, None),
        ({"miou": math.nan, "epoch": 8}, False, State.FAIL, "miou is nan"),
        ({"miou": math.inf, "epoch": 8}, False, State.FAIL, "miou is inf"),
        ({"failed": "CUDA out of memory", "epoch": 2}, False, State.FAIL, "CUDA out of memory"),
        ({"miou_epoch": 0.4, "epoch": 3}, False, State.FAIL, "ended without reporting miou"),
        (None, True, State.FAIL, "failed"),
        (None, False, State.RUNNING, None),
    ],
)
def test_every_end_is_told_truly(
    tmp_path: Path, result: dict[str, Any] | None, error: bool, state: State, reason: str | None
) -> None:
    study = make_study(tmp_path)
    search = searcher(study)
    search.suggest("a")
    search.on_trial_complete("a", result, error)
    row = study.rows()[0]
    assert (row.state, row.reason) == (state, reason)
    search.on_trial_complete("a", {"miou": 0.9}, False)  # Tune says it twice
    assert study.rows()[0].state is (State.COMPLETE if state is State.RUNNING else state)
    if state is State.COMPLETE:
        assert (row.miou, row.beta, row.attrs["miou_epoch"]) == (0.5, 0.3, 0.4)


def test_enough_ends_the_drawing_alone(tmp_path: Path) -> None:
    """What runs comes to its end, what was begun is run, and nothing new is drawn, however often Tune asks."""
    study, asked = make_study(tmp_path), list[int]()
    search = searcher(study, enough=lambda: bool(asked.append(len(study.rows())) or len(asked) > 2))
    assert [isinstance(search.suggest(name), dict) for name in "abc"] == [True, True, False]
    assert search.suggest("d") == Searcher.FINISHED and len(asked) == 3
    search.on_trial_complete("a", {"miou": 0.5})
    assert [row.state for row in study.rows()] == [State.COMPLETE, State.RUNNING] and not search.interrupted
    again = searcher(make_study(tmp_path), enough=lambda: True)
    assert isinstance(again.suggest("a"), dict) and again.suggest("b") == Searcher.FINISHED


def test_an_interrupted_trial_stays_to_be_resumed(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    search = searcher(study)
    for name in "abc":
        search.suggest(name)
    search.interrupted = True
    search.on_trial_complete("a", None, error=True)
    search.on_trial_complete("b", {"epoch": 2, "miou_epoch": 0.1})
    search.on_trial_complete("c", {"miou": 0.4})  # it came to its end all the same
    assert [row.state for row in study.rows()] == [State.RUNNING, State.RUNNING, State.COMPLETE]
    assert search.suggest("d") == Searcher.FINISHED


def test_a_trial_that_got_further_before_it_died_is_run_on(tmp_path: Path) -> None:
    """However often machines die; one that dies without another epoch has failed."""
    study = make_study(tmp_path)
    search = searcher(study, limit=1)
    for life, epochs in enumerate([2, 3, 5]):
        config = search.suggest(f"life{life}")
        assert isinstance(config, dict) and config["uid"] == "small-0000"
        study.report("small-0000", epochs, 0.1)
        search.on_trial_complete(f"life{life}", error=True)
        assert study.rows()[0].state is State.RUNNING and search.left
    assert isinstance(search.suggest("last"), dict) and not search.left
    search.failed("small-0000", "ActorDiedError: no luck")
    search.on_trial_complete("last", error=True)
    assert (study.rows()[0].state, study.rows()[0].reason) == (State.FAIL, "ActorDiedError: no luck")
    assert search.suggest("more") == Searcher.FINISHED and not search.left


@pytest.mark.parametrize(
    "lines",
    [
        ["Traceback", "OSError: [Errno 28] No space left on device: 'x'"],
        ["OSError: [Errno 122] Disk quota exceeded", "ray.train.WorkerGroupError: Training failed"],
    ],
)
def test_a_full_disk_is_no_trials_fault(tmp_path: Path, lines: list[str]) -> None:
    study = make_study(tmp_path)
    search = searcher(study)
    search.suggest("a")
    (tmp_path / "error.txt").write_text("\n".join(lines))
    scheduler = StudyPruner(study, search, Pruning(), 0, 8)
    died = SimpleNamespace(config={"uid": "small-0000"}, error_file=tmp_path / "error.txt")
    scheduler.on_trial_error(None, died)  # type: ignore[arg-type]
    search.on_trial_complete("a", error=True)
    assert study.rows()[0].state is State.RUNNING and not search.left
    assert search.halted and "[Errno" in search.halted and search.suggest("b") == Searcher.FINISHED


def test_the_same_configuration_runs_once_at_a_time(tmp_path: Path) -> None:
    """Its twin waits, and takes the result where there is one; after a failure it runs itself."""
    study = make_study(tmp_path, search={"loss.w_tcp": {"choice": [1.0]}})
    known: dict[str, Any] = {}
    search = searcher(study, limit=4, reuse=lambda row: known or None)
    assert isinstance(search.suggest("a"), dict)
    assert search.suggest("b") is None and search.suggest("c") is None
    assert study.counts()[State.RUNNING] == 3  # one more waits than runs; no more are drawn
    search.on_trial_complete("a", {"failed": "no luck"})
    second = search.suggest("d")
    assert isinstance(second, dict) and second["uid"] == "small-0001" and search.suggest("e") is None
    known.update(miou=50.0)
    search.on_trial_complete("d", {"miou": 50.0})
    assert search.suggest("f") == Searcher.FINISHED
    assert [row.state for row in study.rows()] == [State.FAIL, *[State.COMPLETE] * 3]


def test_a_run_that_was_there_tells_its_epochs_too(tmp_path: Path) -> None:
    """Pruning compares with them, and a leaderboard shows them, whoever made the run."""
    study = list_study(tmp_path, 1.0)
    found = {"miou": 50.0, "beta": 0.4, "reused_from": "key", "reports": {1: 30.0, 2: 45.0}}
    assert searcher(study, None, reuse=lambda row: found).suggest("a") == Searcher.FINISHED
    (row,) = study.rows()
    assert row.reports == {1: 30.0, 2: 45.0} and row.miou == 50.0 and row.attrs["reused_from"] == "key"
    assert "reports" not in row.attrs


def list_study(folder: Path, *weights: float) -> Study:
    """Fixed trials, one for each value of a weight."""
    study = open_list("small.list", study_url(make_spec(folder)), StudyIdentity())
    study.enqueue([{"values": {"loss.w_tcp": w}, "seed": 0, "role": "search", "n": n} for n, w in enumerate(weights)])
    return study


def test_others_go_ahead_of_a_twin_that_waits(tmp_path: Path) -> None:
    study = list_study(tmp_path, 1.0, 1.0, 2.0, 1.0, 3.0, 1.0, 2.0, 4.0)
    known: dict[float, dict[str, Any]] = {}
    search = searcher(study, None, reuse=lambda row: known.get(row.values["loss.w_tcp"]))

    def started(name: str) -> int | None:
        given = search.suggest(name)
        return int(given["number"]) if isinstance(given, dict) else None

    assert [started(name) for name in "abc"] == [0, 2, 4]
    known[1.0] = {"miou": 50.0}
    search.on_trial_complete("a", {"miou": 50.0})
    assert started("d") == 7, "what waited is told, and 6 waits for 2 still"
    assert [row.state is State.COMPLETE for row in study.rows()] == [
        True, True, False, True, False, True, False, False,
    ]  # fmt: skip
    search.on_trial_complete("b", {"failed": "no luck"})
    assert started("e") == 6 and search.suggest("f") == Searcher.FINISHED


def test_what_another_sweep_makes_is_waited_for(tmp_path: Path) -> None:
    study = list_study(tmp_path, 1.0, 2.0)
    theirs = {1.0}
    search = searcher(study, None, claim=lambda row: row.values["loss.w_tcp"] not in theirs)
    assert search.suggest("a") is None, "nothing is finished: the trial waits"
    theirs.add(2.0)
    assert search.suggest("a") is None
    theirs.remove(2.0)
    theirs.remove(1.0)
    given = [search.suggest(name) for name in "bc"]
    assert sorted(g["number"] for g in given if isinstance(g, dict)) == [0, 1]
    assert search.suggest("d") == Searcher.FINISHED


def at_rung(study: Study, values: list[float], **options: Any) -> tuple[list[str], list[str]]:
    """Start one trial per value, let each report it at the rung (epoch 4 of 8); the decisions and the uids."""
    scheduler = pruner(study, **options)
    uids = []
    for _ in values:
        row = study.ask()
        assert row is not None
        uids.append(row.uid)
    return [send(scheduler, uid, epoch=4, miou_epoch=value) for uid, value in zip(uids, values, strict=True)], uids


def test_the_worse_half_is_pruned_and_told_pruned(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    decisions, uids = at_rung(study, [0.1, 0.5, 0.6, 0.7, 0.8, 0.2], audit=0)
    assert decisions == ["CONTINUE"] * 5 + ["STOP"]
    row = study.row(uids[5])
    assert (row.state, row.reports, row.miou) == (State.PRUNED, {4: 0.2}, None)
    assert row.reason == "after epoch 4: 4 of 5 others were better"
    assert study.row(uids[0]).state is State.RUNNING  # the reference, though it is the worst


def test_the_reference_runs_on_whatever_it_reports(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    reference = study.ask()
    assert reference is not None
    _, uids = at_rung(study, [0.5, 0.6, 0.7, 0.8], audit=0)
    assert send(pruner(study, audit=0), reference.uid, epoch=4, miou_epoch=0.0) == "CONTINUE"


def test_the_audit_arm_runs_on_and_is_marked(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    decisions, uids = at_rung(study, [0.1, 0.5, 0.6, 0.7, 0.8, 0.2], audit=1)
    assert set(decisions) == {"CONTINUE"}
    assert study.row(uids[5]).attrs == {"would_prune_at": 0.5}


def test_pruning_decides_the_same_after_a_restart(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    _, uids = at_rung(study, [0.1, 0.5, 0.6, 0.7, 0.8], audit=0)
    late = study.ask()
    assert late is not None
    assert send(pruner(make_study(tmp_path), audit=0), late.uid, epoch=4, miou_epoch=0.2) == "STOP"


def test_no_pruning_when_off_before_the_rung_or_at_the_end(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    decisions, uids = at_rung(study, [0.1, 0.5, 0.6, 0.7, 0.8, 0.2], kind="none")
    assert set(decisions) == {"CONTINUE"}
    scheduler = pruner(study, audit=0)
    late = study.ask()
    assert late is not None
    assert send(scheduler, late.uid, epoch=3, miou_epoch=0.0) == "CONTINUE"
    assert send(scheduler, late.uid, epoch=8, miou_epoch=0.0, miou=0.1) == "CONTINUE"


def test_a_value_that_is_not_finite_stops_the_trial_as_failed(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    row = study.ask()
    assert row is not None
    assert send(pruner(study), row.uid, epoch=2, miou_epoch=math.nan) == "STOP"
    assert study.row(row.uid).reason == "miou_epoch is nan after epoch 2"
    assert study.row(row.uid).state is State.FAIL


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def run_tune(
    study: Study,
    folder: Path,
    limit: int | None,
    trainable: Callable[[dict[str, Any]], None],
    concurrent: int = 1,
    **options: Any,
) -> None:
    from ray import tune

    search = searcher(study, limit, **options)
    scheduler = StudyPruner(study, search, Pruning(audit=0), 0, 8)
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=concurrent,
            reuse_actors=False,
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    ).fit()


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_real_tune_loses_and_doubles_nothing(tmp_path: Path, ray_here: None) -> None:
    """Eight trials: the reference, one that raises, one NaN, one to be pruned; a killed driver leaves two."""
    log = tmp_path / "started"

    def objective(config: dict[str, Any]) -> None:
        from ray import tune

        with open(log, "a") as file:
            file.write(config["uid"] + "\n")
        number = config["number"]
        final = 0.05 if number == 7 else 0.5 + number / 100
        for epoch in range(1, 9):
            if number == 2 and epoch == 3:
                raise RuntimeError("the loss is not finite")
            tune.report({"epoch": epoch, "miou_epoch": final * epoch / 8})
        miou = math.nan if number == 3 else final
        tune.report({"epoch": 8, "miou_epoch": final, "miou": miou, "beta": 0.3})

    study = make_study(tmp_path)
    run_tune(study, tmp_path, 4, objective)
    assert [row.state.value for row in study.rows()] == ["COMPLETE", "COMPLETE", "FAIL", "FAIL"]
    assert "RuntimeError: the loss is not finite" in str(study.rows()[2].reason)
    assert study.rows()[3].reason == "miou is nan"
    assert study.rows()[1].reports == {epoch: 0.51 * epoch / 8 for epoch in range(1, 9)}

    for _ in range(2):  # a driver that was killed with two trials under way
        row = study.ask()
        assert row is not None
        study.report(row.uid, 1, 0.05)
    again = make_study(tmp_path)
    run_tune(again, tmp_path, 8, objective)
    rows = again.rows()
    assert [row.number for row in rows] == list(range(8))
    assert [row.state.value for row in rows[4:]] == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED"]
    assert (
        rows[7].epochs == 4 and rows[7].reason == "after epoch 4: 6 of 6 others were better"
    )  # number 2 never got there
    assert rows[4].beta == 0.3 and rows[4].reports[1] == 0.05
    # Number 2 had got further before it raised, so it was given another life, which got no further.
    assert sorted(log.read_text().split()) == [f"small-{number:04d}" for number in (0, 1, 2, 2, 3, 4, 5, 6, 7)]

    done = make_study(tmp_path)
    run_tune(done, tmp_path, 8, objective)  # nothing left to do
    assert done.rows() == rows and len(log.read_text().split()) == 9


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_real_tune_lets_a_twin_wait_for_the_result(tmp_path: Path, ray_here: None) -> None:
    """Trials 0, 1 and 3 are the same. While 0 runs, 2 goes ahead of 1; 0 fails, so 1 runs, and 3 takes its end."""

    def objective(config: dict[str, Any]) -> None:
        import time

        from ray import tune

        weight, number = config["values"]["loss.w_tcp"], config["number"]
        (tmp_path / f"started {number}").touch()
        until = time.monotonic() + 60
        while number == 0 and not (tmp_path / "started 2").exists() and time.monotonic() < until:
            time.sleep(0.05)
        if number == 0:
            raise RuntimeError("no luck")
        (tmp_path / f"finished {weight}").touch()
        tune.report({"epoch": 8, "miou_epoch": 0.5, "miou": 0.5 + weight})

    def reuse(row: TrialRow) -> dict[str, Any] | None:
        weight = row.values["loss.w_tcp"]
        there = (tmp_path / f"finished {weight}").exists()
        return {"miou": 0.5 + weight, "reused_from": "the other"} if there else None

    study, told = list_study(tmp_path, 1.0, 1.0, 2.0, 1.0), list[str]()
    run_tune(study, tmp_path, None, objective, concurrent=2, reuse=reuse, ended=told.append)
    assert [row.state.value for row in study.rows()] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert [(row.miou, row.attrs.get("reused_from")) for row in study.rows()[1:]] == [
        (1.5, None), (2.5, None), (1.5, "the other"),
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.glob("started *")) == [f"started {n}" for n in (0, 1, 2)]
    assert told == ["small.list-0003"]


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_epochs_are_counted_on_through_a_retry(tmp_path: Path, ray_here: None) -> None:
    """Real Tune starts its own count again when it tries a trial once more; ours goes on, and so do rungs."""
    from ray import tune

    def objective(config: dict[str, Any]) -> None:
        kept = tmp_path / config["uid"]
        done = int(kept.read_text()) if kept.exists() else 0
        for epoch in range(done + 1, 9):
            tune.report({"epoch": epoch, "miou_epoch": float(epoch)})
            kept.write_text(str(epoch))
            if epoch == 3 and done == 0:
                raise RuntimeError("the machine went away")
        tune.report({"epoch": 8, "miou_epoch": 8.0, "miou": 9.0})

    study = make_study(tmp_path)
    search = StudySearcher(study, 1)
    results = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=search, scheduler=StudyPruner(study, search, Pruning(), 0, 8), num_samples=-1,
            max_concurrent_trials=1, reuse_actors=False,
        ),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "tune"), verbose=0, failure_config=tune.FailureConfig(max_failures=1)
        ),
    ).fit()  # fmt: skip
    row = study.rows()[0]
    assert row.reports == {epoch: float(epoch) for epoch in range(1, 9)} and row.miou == 9.0
    assert results[0].metrics is not None and results[0].metrics["training_iteration"] != 9


def test_the_spec_limits_the_searcher(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "budget.trials=2")
    search = StudySearcher(make_study(tmp_path), spec.trial_limit)
    assert [isinstance(search.suggest(str(i)), dict) for i in range(3)] == [True, True, False]
    with pytest.raises(InputError, match="budget.trials"):
        make_spec(tmp_path, "budget.trials=none")


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("default")
def test_real_tune_draws_by_gp_pruned_two_at_a_time(tmp_path: Path, ray_here: None) -> None:
    """The default sampler as a sweep has it: draws beside a running trial, after pruned ones, and after a restart."""

    def objective(config: dict[str, Any]) -> None:
        import time

        from ray import tune

        final = 50.0 - 10 * abs(math.log10(config["values"]["loss.w_tcp"]) - 0.5)
        for epoch in range(1, 9):
            tune.report({"epoch": epoch, "miou_epoch": final - (8 - epoch)})
            time.sleep(0.02)
        tune.report({"epoch": 8, "miou_epoch": final, "miou": final})

    run_tune(make_study(tmp_path), tmp_path, 10, objective, concurrent=2)
    rows = make_study(tmp_path).rows()
    assert len(rows) == 10
    study = make_study(tmp_path)
    asked: list[int] = []

    def enough() -> bool:
        asked.append(len(study.rows()))
        return len(study.rows()) == 14

    run_tune(study, tmp_path, 30, objective, concurrent=2, enough=enough)
    rows = study.rows()
    states = [row.state for row in rows]
    assert len(rows) == 14 and all(state.finished for state in states) and asked[-1] == 14
    assert State.PRUNED in states and states.count(State.COMPLETE) > 5 and State.FAIL not in states
    assert len({str(row.values) for row in rows}) == 14  # also of those that ran beside each other
    distance = [abs(math.log10(row.values["loss.w_tcp"]) - 0.5) for row in rows]
    assert min(distance[8:]) < 0.05 and sum(distance[8:]) / 6 < sum(distance[1:8]) / 7
    began = study.times()
    beside = [a for a, b in zip(rows, rows[1:], strict=False) if began[b.uid][0] < (began[a.uid][1] or 0)]
    assert len(beside) > 3, "some ran beside the next one"
