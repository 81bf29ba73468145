"""Studies that somebody wrote into with another program: told by every command that reads one, and left as they are."""

import sqlite3
from contextlib import closing
from pathlib import Path
from platform.search import study_store

from tests.bad_input.case import Case, Make
from tests.platform.made_sweep import make_sweep

READERS = ("leaderboard made", "report made", "export made-0001", "compare made-0000 made-0001",
           "promote made-0001 --dry-run")  # fmt: skip


def changed(sql: str) -> Make:
    """A sweep of three trials whose study.db is changed."""

    def make(place: Path) -> None:
        make_sweep(place, trials=3)
        with closing(sqlite3.connect(place / "sweeps/study.db")) as database:
            database.execute(sql)
            database.commit()
        study_store._CHECKED.clear()  # as in a process that has not seen it before

    return make


def left_alone(place: Path) -> None:
    """No table was made in the place of one that is gone, and no report was written."""
    with closing(sqlite3.connect(place / "sweeps/study.db")) as database:
        database.execute("PRAGMA wal_checkpoint")
        assert database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0] in (12, 13)
    assert not (place / "sweeps/made/report.html").exists()


def wrong(name: str, sql: str, *words: str, command: str = "leaderboard made") -> Case:
    words = ("sweeps/study.db: is damaged (", *words, "put it back from a copy")
    return Case(f"studies: {name}", f"platform.{command}", words, changed(sql), check=left_alone)


CASES = [
    *(wrong(f"no table {table}", f"DROP TABLE {table}", f"it has no table {table}")
      for table in ("studies", "trials", "trial_values", "study_directions", "version_info", "alembic_version")),
    *(wrong(f"no table of trials, {command}", "DROP TABLE trials", "it has no table trials", command=command)
      for command in READERS[1:]),
    wrong("no version", "DELETE FROM version_info", "its table version_info is empty"),
    *(wrong(f"another direction, {command}", "UPDATE study_directions SET direction = 'MINIMIZE'",
            "the direction of made is MINIMIZE and was MAXIMIZE", command=command) for command in READERS),
    wrong("another direction of the confirm runs",
          "UPDATE study_directions SET direction = 'MINIMIZE' WHERE study_id = 2", "of made.confirm is MINIMIZE"),
    wrong("no direction", "DELETE FROM study_directions", "the direction of made is none"),
    wrong("a direction that is none", "UPDATE study_directions SET direction = 'SIDEWAYS'", "is not one of Optuna's"),
    wrong("a value of the study that is no JSON", "UPDATE study_user_attributes SET value_json = '{'",
          "is not one of Optuna's"),
    wrong("a trial that was deleted", "DELETE FROM trials WHERE trial_id = 1", "made-0000 is not there any more"),
]  # fmt: skip
