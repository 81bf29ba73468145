"""The phases of a search sweep: a race is run and resumed, and a stage that fails leaves the promotion standing."""

from collections.abc import Callable
from pathlib import Path
from platform.base.lock import read_driver
from platform.base.paths import storage
from platform.config.sections import Budget, Confirm
from platform.plan.budget import Limits
from platform.plan.worth import Worth
from platform.run.run_stages import StageFailed
from platform.run.sweep_context import SweepContext
from platform.search import confirm, study
from platform.search.trial_row import WORTH, State
from platform.sweeps import run_sweep, search_sweep
from platform.sweeps.verdict import reach_verdict
from platform.tracking.read import read_model_state
from platform.tracking.records import CHAMPION
from typing import Any

import pytest

from cpn.core.errors import WorkError
from cpn.core.files import read_json, write_bytes, write_json
from cpn.stages.stage_manifest import StageManifest
from tests.platform.small_sweep import QUALITY, SmallSweep

COMMAND = "python -m platform.sweep small.yaml"
WALK: dict[str, int | float] = {"miou_confirm": 56.0, "miou_train": 56.5}


def test_a_stage_that_fails_ends_the_sweep_with_everything_told(
    tmp_path: Path,
    new_store: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    made = SmallSweep(tmp_path, new_store("store"))
    done = {stage: made.lay_out_stages("small-0001")[stage].name.partition("-")[2] for stage in ("cam", "random_walk")}
    manifests = {
        stage: StageManifest(stage=stage, key=key, metrics=WALK if stage == "random_walk" else {})
        for stage, key in done.items()
    }

    def failing(*_: object) -> None:
        raise StageFailed("deeplab", "k", WorkError("one mask for all images", "deeplab.lr=0.1"), manifests)

    monkeypatch.setattr("platform.tracking.store.write_pyfunc", lambda *given: given[-1].mkdir(parents=True))
    monkeypatch.setattr(search_sweep, "has_open_trials", lambda *_: False)
    monkeypatch.setattr(search_sweep, "run_later_stages", failing)
    made.record(champion=None)
    promote = made.spec.promote.model_copy(update={"when": "always"})
    with pytest.raises(WorkError, match="stage deeplab: one mask for all images"):
        run_sweep.run_sweep(made.spec.model_copy(update={"promote": promote}), COMMAND)
    output = capsys.readouterr().out
    assert "failed: stage deeplab: one mask for all images; the promotion stands" in output
    assert f"next: {COMMAND} --set deeplab.lr=0.1" in output.splitlines()
    summary = read_json(made.paths.summary)
    assert summary["stage_failed"] == "stage deeplab: one mask for all images"
    assert summary["metrics"]["random_walk/miou_train"] == 56.5 and summary["metrics"]["deeplab/miou_val"] is None
    assert "Failed: stage deeplab: one mask for all images" in made.paths.report.read_text()
    driver = read_driver(made.paths)
    assert driver is not None and (driver.state, driver.reason) == ("failed", summary["stage_failed"])
    state = read_model_state(made.uri, "cpn-small")
    assert state is not None and state.aliases == {CHAMPION: "1"} and state.history[-1].uid == summary["winner"]


def test_the_last_end_is_read_where_it_is_whole(tmp_path: Path) -> None:
    paths = storage(str(tmp_path)).sweep("s")
    assert search_sweep.read_last_summary(paths) is None, "before the first end"
    write_json(paths.summary, {"winner": "s-0001", "verdict": "not tested", "hours": 1.5})
    last = search_sweep.read_last_summary(paths)
    assert last is not None and (last.winner, last.hours) == ("s-0001", 1.5)
    paths.summary.write_text("{")
    assert search_sweep.read_last_summary(paths) is None, "this end writes it again"


def test_pictures_are_shown_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("runs/k/pictures/b.png", "runs/k/pictures/a.png", "runs/k/pictures/a.txt", "stages/s/pictures/c.png"):
        write_bytes(tmp_path / name, b"")
    monkeypatch.chdir(tmp_path)
    found = search_sweep.pictures_in([tmp_path / "runs/k", tmp_path / "none", tmp_path / "stages/s"])
    assert [str(path) for path in found] == [
        "runs/k/pictures/a.png",
        "runs/k/pictures/b.png",
        "stages/s/pictures/c.png",
    ]


def test_the_panel_beside_cam_baseline_takes_the_runs_place(tmp_path: Path) -> None:
    for name in ("runs/k/pictures/cam_panel.png", "runs/k/pictures/b.png"):
        write_bytes(tmp_path / name, b"")
    panel = tmp_path / "s/panels/s-0001/cam_panel.png"
    assert search_sweep.pictures_in([tmp_path / "runs/k"], panel) == [tmp_path / "runs/k/pictures/b.png", panel]


def test_a_race_is_run_round_by_round_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best trial is ahead from its first run on; a signal after the second round, and the same call goes on."""
    small = SmallSweep(tmp_path, "sqlite:///nowhere/mlflow.db")
    spec = small.spec.model_copy(update={"confirm": Confirm(top_k=2)})
    url = f"sqlite:///{small.store.study}"
    trials = study.read_study("small", url)
    again = study.open_list("raced.confirm", url, trials.identity())
    rounds: list[int] = []

    def run(sweep: SweepContext, listed: study.Study, *rest: Any) -> None:
        rounds.append(0)
        while (row := listed.ask()) is not None:
            small.complete(listed, row, QUALITY.get(row.attrs["of"], 0.5))
            rounds[-1] += 1
        if len(rounds) == 2:
            sweep.interruption.signal = 15

    monkeypatch.setattr(search_sweep, "run_open_trials", run)
    chosen = confirm.candidates(small.rows, 2)
    with small.context(tmp_path / "records", confirm=spec.confirm) as sweep:
        assert not search_sweep.confirm_again(sweep, trials, again, chosen, spec) and rounds == [2 + 3, 2]
        sweep.interruption.signal = None
        assert search_sweep.confirm_again(sweep, trials, again, chosen, spec)
        verdict, means, _ = reach_verdict(sweep, chosen, again)
    assert rounds[:3] == [2 + 3, 2, 2] and sum(rounds) <= 9 + 3
    assert verdict.tested and verdict.winner == "small-0001"
    assert len(means["small-0000"]) == 1 + sum(row.attrs["of"] == "small-0000" for row in again.rows())
    trials.close(), again.close()


def test_a_search_that_ended_early_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was under way is, and nothing is drawn; Ray is not started for less. Another limit lets it draw again."""
    small = SmallSweep(tmp_path, "sqlite:///nowhere/mlflow.db")
    trials = study.open_study(small.spec, f"sqlite:///{small.store.study}", small.pack.fingerprint)
    trials.remember(WORTH, {"least": 0.5, "words": "another 8 GPU-hours: stopping"})
    count, started = len(trials.rows()), list[int | None]()
    monkeypatch.setattr(
        search_sweep, "run_open_trials", lambda sweep, t, heading, limit, *_, **__: started.append(limit)
    )

    def resumed(**limits: Any) -> list[str]:
        said: list[str] = []
        with small.context(tmp_path / "records", budget=Budget(trials=count + 5, **limits)) as sweep:
            monkeypatch.setattr(sweep.terminal, "say", said.append)
            over = Limits(sweep.spec.budget, trials.ended, sweep.clock, 1, said.append)
            search_sweep.run_search(sweep, trials, over, Worth(sweep.spec, trials, sweep.clock, said.append))
        return said

    assert resumed(min_gain_per_gpu_hour=0.5) == [
        "the search has ended: another 8 GPU-hours: stopping; another budget.min_gain_per_gpu_hour lets it go on"
    ]
    assert started == [count]
    trials.tell(f"small-{count - 1:04d}", State.FAIL)
    resumed(min_gain_per_gpu_hour=0.5)
    assert started == [count]
    assert resumed(min_gain_per_gpu_hour=0.1) == [] and started == [count, count + 5]
    assert resumed() == [] and started == [count, count + 5, count + 5]
    trials.close()
