"""What the phases of a sweep share: where a trial's run lies, and what is said once."""

from dataclasses import replace
from pathlib import Path
from platform.plan.priced_work import run_price
from platform.search.study import State

import pytest

from cpn.config import run_key
from cpn.core.run_files import CHECKPOINTS
from cpn.plots.epoch_pictures import drawn_names
from tests.platform.small_sweep import SmallSweep, said


def test_a_trial_has_the_key_that_it_ended_with(small_once: SmallSweep, tmp_path: Path) -> None:
    row = small_once.row("small-0006")
    assert "run_key" not in row.attrs
    with small_once.context(tmp_path) as sweep:
        assert sweep.key(row) == run_key(sweep.method(row), small_once.pack.fingerprint)
        assert sweep.method(row).patches.p_h == row.values["patches.p_h"]
        ended = replace(row, attrs={"run_key": "of an earlier version"})
        assert sweep.folder(ended) == small_once.store.run("of an earlier version")


def test_only_a_finished_run_has_a_manifest(small_once: SmallSweep, tmp_path: Path) -> None:
    with small_once.context(tmp_path) as sweep:
        result = sweep.finished(small_once.row("small-0001"))
        assert result is not None and result.metrics["miou"] == 61.0
        assert sweep.finished(small_once.row("small-0006")) is None


def test_workers_are_told_to_draw_what_mlflow_shows(small_once: SmallSweep, tmp_path: Path) -> None:
    with small_once.context(tmp_path) as sweep:
        scored = small_once.pack.split(sweep.config.data.score)
        names = sweep.drawn_after_epochs()
        assert sweep.setup(1).images and names == drawn_names(scored, sweep.config.cam) and names
        run = sweep.folder(small_once.row("small-0006"))
        assert sweep.epoch_pictures(run, 1) == []


def test_earlier_starts_say_how_long_runs_take(small_once: SmallSweep, tmp_path: Path) -> None:
    rows = [small_once.row("small-0001"), small_once.row("small-0004")]
    with small_once.context(tmp_path) as sweep:
        sweep.remember_pace(rows[1:])
        assert sweep.earlier_pace() == 1.0, "the pruned one says nothing"
        priced = run_price(sweep.spec, sweep.method(rows[0])).seconds
        sweep.clock._trials["small-0001"] = 5 * priced
        sweep.remember_pace(rows)
        sweep.price_what_is_left(1)
        assert sweep.terminal.remaining.pace == pytest.approx(5.0)


def test_a_warning_is_said_once(small_once: SmallSweep, tmp_path: Path) -> None:
    with small_once.context(tmp_path) as sweep:
        for line in ("slow", "slow", "full", "slow"):
            sweep.warn_once(line)
        assert said(sweep) == "warning: slow\nwarning: full\n"


def test_only_checkpoints_of_a_trial_are_let_go(small_once: SmallSweep, tmp_path: Path) -> None:
    row = small_once.row("small-0004")
    assert row.state is State.PRUNED
    with small_once.context(tmp_path) as sweep:
        checkpoints = sweep.folder(row) / CHECKPOINTS
        (checkpoints / "epoch_0001").mkdir(parents=True)
        (checkpoints.parent / "kept").touch()
        sweep.let_go(row)
        sweep.let_go(row)  # nothing is left to delete
        assert [path.name for path in checkpoints.parent.iterdir()] == ["kept"] and said(sweep) == ""


def test_a_worker_gets_what_the_specification_says(small_once: SmallSweep, tmp_path: Path) -> None:
    resources = small_once.spec.resources.model_copy(update={"workers": 2, "min_workers": 1, "cpus_per_worker": 0.5})
    with small_once.context(tmp_path, resources=resources) as sweep:
        setup = sweep.setup(threads=3)
    assert (setup.workers, setup.min_workers, setup.cpus_per_worker, setup.threads) == (2, 1, 0.5, 3)
    assert (setup.sweep, setup.objective, setup.betas) == ("small", "miou", None)
    assert (setup.data_root, setup.storage) == (str(small_once.pack.root), small_once.store.place)
    assert setup.base == small_once.spec.base_config.model_dump(mode="json")
