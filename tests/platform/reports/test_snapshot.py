"""A sweep as commands read it: whole, so far, or not there; and nothing changes by reading."""

import gc
import shutil
from dataclasses import replace
from pathlib import Path
from platform.base.paths import Storage, storage
from platform.reports.snapshot import SweepSnapshot, best_trial, find_trial, read_sweep
from platform.search.study import State
from platform.search.trial_row import WORTH
from typing import Any

import optuna
import pytest

from cpn.core.errors import InputError
from cpn.core.files import write_json
from tests.platform.made_sweep import FINGERPRINT, make_sweep


def test_everything_is_read(sweep: SweepSnapshot) -> None:
    assert [row.number for row in sweep.rows] == list(range(24)) and len(sweep.again) == 15
    assert (sweep.fingerprint, sweep.so_far, sweep.state) == (FINGERPRINT, None, "finished")
    assert sweep.hours == 0.5 and sweep.trial_hours["made-0003"] == pytest.approx(33 / 3600)
    assert sweep.folder(sweep.rows[0]).is_dir() and sweep.result(sweep.rows[0]) is not None
    assert sweep.result(sweep.rows[5]) is None  # it failed
    best = best_trial(sweep)
    assert best is not None and sweep.summary is not None and best.uid == sweep.summary.winner


def test_a_run_is_found_without_its_key_being_recorded(sweep: SweepSnapshot) -> None:
    row = sweep.rows[1]
    assert sweep.folder(replace(row, attrs={})) == sweep.folder(row)


def test_reading_changes_nothing(made: Storage) -> None:
    def files() -> dict[Path, Any]:
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in made.root.rglob("*") if "study.db-" not in p.name}

    read_sweep(made, "made")  # whoever opens it first after the writer, SQLite moves its journal into the file
    gc.collect()  # a connection that is closed only now would move SQLite's journal into the file
    before = files()
    read_sweep(made, "made")
    assert files() == before


def test_so_far_is_said_where_it_is_not_the_end(sweep: SweepSnapshot, tmp_path: Path) -> None:
    early = read_sweep(make_sweep(tmp_path, "early", 3, ended=False), "early")
    assert early.so_far == "stopped, 3 trials have ended and there is no verdict yet"
    best = best_trial(early)
    assert best is not None and best.miou == max(row.miou or 0 for row in early.rows)
    running = replace(sweep, state="running")
    assert running.so_far == "running; the verdict is the one of its last end, over 24 of 24 ended trials"
    more = replace(sweep, rows=[*sweep.rows, replace(sweep.rows[0], number=24, uid="made-0024")])
    assert more.so_far == "finished; the verdict is the one of its last end, over 24 of 25 ended trials"


def test_why_the_search_ended_early_is_read_from_the_study(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, "early", 3, ended=False)
    assert read_sweep(store, "early").stopped is None
    study = optuna.load_study(study_name="early", storage=f"sqlite:///{store.study}")
    study.set_user_attr(WORTH, {"words": "more is not worth it"})
    assert read_sweep(store, "early").stopped == "more is not worth it"


def test_a_sweep_of_an_older_default_names_its_sampler(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, "old", 3, ended=False, search_options={"sampler": "tpe"})
    path = store.sweep("old").spec
    lines = path.read_text().splitlines()[1:]  # without the digest, which the line that goes changes
    path.write_text("\n".join(line for line in lines if "sampler" not in line))
    assert read_sweep(store, "old").spec.search_options.sampler == "tpe"


def test_a_trial_is_found_by_its_name(made: Storage) -> None:
    sweep, row = find_trial(made, "made-0003")
    assert (sweep.name, row.number, row.state) == ("made", 3, State.COMPLETE)
    assert find_trial(made, "made.confirm-0001")[1].attrs["of"]


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        ("made-0099", "^made-0099: no such trial; the last one is made-0023"),
        ("made.confirm-0099", "the last one is made.confirm-0014"),
        ("other-0001", r"^other-0001: no trial of a sweep in .* \(sweeps: made\); a trial is NAME-0003"),
        ("made", "no trial of a sweep"),
        ("made-x", "no trial of a sweep"),
    ],
)
def test_a_trial_that_is_not_there(made: Storage, uid: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        find_trial(made, uid)


def test_a_sweep_that_is_not_there(made: Storage, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^other: no such sweep in .* \(there are: made\)"):
        read_sweep(made, "other")
    with pytest.raises(InputError, match="^--storage: .*nowhere is no folder"):
        read_sweep(storage(str(tmp_path / "nowhere")), "made")


def test_a_damaged_summary_is_named(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, "hurt", 1)
    store.sweep("hurt").summary.write_text("{")
    with pytest.raises(
        InputError, match="summary.json: is damaged .*; give the sweep's command again, which writes it"
    ):
        read_sweep(store, "hurt")
    store.sweep("hurt").spec.unlink()
    with pytest.raises(InputError, match="spec.yaml: is not there"):
        read_sweep(store, "hurt")


def test_older_copies_of_summary_and_clock_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A driver that has ended counted every trial and every hour, so what counts fewer is not what it wrote."""
    before, after = make_sweep(tmp_path / "before", "older", 3), make_sweep(tmp_path / "after", "older", 4)
    paths = after.sweep("older")
    assert read_sweep(after, "older").hours > 0
    assert capsys.readouterr().err == ""
    shutil.copyfile(before.sweep("older").summary, paths.summary)
    read_sweep(after, "older")
    told = capsys.readouterr().err
    assert f"{paths.summary}: counts 3 of 4 ended trials (an older copy?); give the sweep's command again" in told
    write_json(paths.clock, {"seconds": 1.0})
    assert read_sweep(after, "older").hours == pytest.approx(1 / 3600)
    assert f"{paths.clock}: holds fewer hours than the sweep's last end (an older copy?); the sweep's" in (
        capsys.readouterr().err
    )


def test_an_emptied_study_names_its_cure(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, "emptied", 2)
    for file in store.study.parent.glob("study.db*"):
        file.unlink()
    store.study.touch()
    with pytest.raises(InputError, match="study.db: holds 0 ended trials where the sweep's last end counted 2 .*again"):
        read_sweep(store, "emptied")
    summary = store.sweep("emptied").summary
    summary.unlink()
    with pytest.raises(InputError, match="emptied: no such sweep in"):
        read_sweep(store, "emptied")
