"""The slope that is fitted, what is made of the measurements, and that every part does all of its work."""

import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from platform.base.paths import storage
from platform.reports.snapshot import read_sweep
from platform.search.study import State

import pytest

from benchmarks.__main__ import main
from benchmarks.sweeps import growth
from cpn.core.errors import InputError

IMAGES = 3


@pytest.mark.parametrize(
    ("sizes", "seconds", "slope"),
    [
        ((1, 4, 16), (2.0, 8.0, 32.0), 1.0),
        ((1, 4, 16), (2.0, 32.0, 512.0), 2.0),
        ((10, 100), (3.0, 3.0), 0.0),
        # By hand: x = 0, 1, 2 and y = 0, 1, 3 (powers of two); middle 1 and 4/3; (-1)(-4/3) + 0 + (1)(5/3) over 2.
        ((1, 2, 4), (1.0, 2.0, 8.0), 1.5),
    ],
)
def test_the_exponent_is_the_slope_by_least_squares(
    sizes: Sequence[float], seconds: Sequence[float], slope: float
) -> None:
    assert math.isclose(growth.exponent(sizes, seconds), slope, abs_tol=1e-12)


def test_the_worst_part_is_the_ratio() -> None:
    sizes = {"cam": (1, 4, 16), "report": (10, 100)}
    measured = {
        "cam": [(1, 1.0, 300.0), (4, 1.0, 301.0), (16, 16.0, 310.0)],
        "report": [(10, 1.0, 500.0), (100, 10.0, 505.5)],
    }
    found = growth.summary(measured, sizes)
    # x = 0, 1, 2 (powers of four) and y = 0, 0, 2: (-1)(-2/3) + 0 + (1)(4/3) over 2 = 1; at its end alone 2.
    assert found["ratio"] == pytest.approx(1.0) and found["other"] == 1.0 and found["target"] == 1.1
    assert found["cam"] == pytest.approx(1.0) and found["report"] == pytest.approx(1.0)
    assert found["steepest_end"] == pytest.approx(2.0)
    assert (found["cam_mib"], found["report_mib"], found["equal"]) == (10.0, 5.5, True)
    assert found["flat"] == "none"
    measured["cam"][2] = (16, 16.0, 300.0 + growth.FLAT_MIB - 0.1)
    assert growth.summary(measured, sizes)["flat"] == "cam"
    measured["report"][1] = (99, 100.0, 505.5)
    worse = growth.summary(measured, sizes)
    assert worse["ratio"] == pytest.approx(2.0) and worse["equal"] is False


def test_a_peak_stays_when_the_memory_is_given_back() -> None:
    before = growth.peak_mib()
    held = b"x" * int(2**20 * (before + 64))
    after = growth.peak_mib()
    assert after >= before + 60 and len(held) > 0
    del held
    assert growth.peak_mib() == pytest.approx(after, abs=4)  # the kernel counts in batches


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("growth")
    growth.lay_out(made, [IMAGES])
    return made


@pytest.mark.parametrize("part", [part for part in growth.PARTS if part != "report"])
def test_every_part_does_all_images(part: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "BATCH", IMAGES)
    assert growth.PARTS[part](folder, IMAGES, tmp_path) == IMAGES


def test_a_made_up_sweep_has_its_trials_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "DRAWN", 10)
    growth.make_sweep(tmp_path, 33)  # ten, then two copies of nine, then five more
    rows = read_sweep(storage(str(tmp_path / "sweeps33")), "made").rows
    assert [row.number for row in rows] == list(range(33))
    assert [row.role for row in rows].count("reference") == 1
    for row in rows[10:]:
        like = rows[1 + (row.number - 1) % 9]
        assert (row.values, row.miou, row.reports, row.attrs) == (like.values, like.miou, like.reports, like.attrs)
    assert {row.state for row in rows} == {State.COMPLETE, State.PRUNED} and all(row.state.finished for row in rows)
    with sqlite3.connect(tmp_path / "sweeps33" / "study.db") as connection:
        assert connection.execute("SELECT count(DISTINCT trial_id) FROM trial_values").fetchone() == (33,)
    connection.close()
    out = tmp_path / "out"
    assert growth.PARTS["report"](tmp_path, 33, out) == 33 and (out / "report.html").exists()


def test_the_topic_measures_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(growth, "QUICK_IMAGES", (2, 4))
    monkeypatch.setattr(growth, "ENOUGH_S", 0.0)
    assert main(["growth", "--quick", "--only", "prepare"]) == 0
    said = capsys.readouterr().out
    assert "prepare: 2: " in said and "equal True" in said


def test_a_row_of_one_part_alone_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--write: a row has all parts; leave --only out$"):
        main(["growth", "--only", "walk", "--write", str(tmp_path / "page.md")])
    assert list(tmp_path.iterdir()) == []
