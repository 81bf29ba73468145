"""What is counted of a database, and that the topic runs."""

import argparse
import sqlite3
from pathlib import Path

import pytest

from benchmarks.sweeps import footprint
from cpn.core.errors import InputError


def test_rows_of_all_tables_and_bytes_are_counted(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as made:
        made.execute("CREATE TABLE one (a)")
        made.execute('CREATE TABLE "order" (a)')
        made.executemany("INSERT INTO one VALUES (?)", [(1,), (2,)])
        made.execute('INSERT INTO "order" VALUES (1)')
    made.close()
    assert footprint.counted(f"sqlite:///{tmp_path / 'a.db'}") == (3, (tmp_path / "a.db").stat().st_size)


@pytest.mark.long
@pytest.mark.unproven
@pytest.mark.timeout(600)
def test_a_trial_leaves_what_its_manifest_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = footprint.run(argparse.Namespace(quick=True, json=True, trials=40, postgres=False))
    # A value for every epoch and term, every beta, every class; parameters and tags come on top.
    assert found["mlflow_rows"] > footprint.EPOCHS * len(footprint.TERMS) + 61 + 21
    assert found["study_rows"] > 0 and found["send_ms"] > 0 and found["model_bytes"] > 4e8
    assert "a trial of 8 epochs" in capsys.readouterr().out


def test_too_few_trials_are_refused() -> None:
    with pytest.raises(InputError, match="--trials"):
        footprint.run(argparse.Namespace(quick=False, trials=1, postgres=False))
