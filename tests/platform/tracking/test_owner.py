"""Whose an experiment is: a second writer of one name goes on as the first, or touches nothing (real MLflow)."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from platform.tracking import origin
from platform.tracking.client import connect
from platform.tracking.origin import Origin
from platform.tracking.recorder import Recorder, read_runs

import pytest

from cpn.core.errors import InputError


@dataclass
class Two:
    """A sweep in folder `a`, whose trial runs, in the store at `uri`."""

    home: Path
    uri: str
    patch: pytest.MonkeyPatch

    @property
    def a(self) -> Path:
        return self.home / "a"

    @property
    def b(self) -> Path:
        return self.home / "b"

    def begin(self) -> None:
        recorder = Recorder(self.a, self.uri, "small")
        recorder.start("small.sweep", name="sweep", time=1000.0)
        recorder.start("small-0001", name="lr 1", parent="small.sweep", params={"train.lr": 1.0}, time=1001.0)
        assert recorder.close(60) == 0

    def go_on(self, folder: Path) -> None:
        """Say something more from a folder."""
        recorder = Recorder(folder, self.uri, "small")
        recorder.tags("small.sweep", {"more": folder.name})
        assert recorder.close(60) == 0

    def copy(self) -> None:
        shutil.copytree(self.a, self.b)

    def unsign(self) -> None:
        """As a sweep that is older than ids."""
        with closing(sqlite3.connect(self.uri.removeprefix("sqlite:///"))) as database, database:
            database.execute("delete from experiment_tags where key in ('origin', 'origin_place', 'replayed')")
        (self.a / "origin.json").unlink()

    def lose_spool(self) -> None:
        for name in ("events.jsonl", "position.json", "marked.json"):
            (self.a / name).unlink()

    def elsewhere(self) -> None:
        self.patch.setattr(origin.socket, "gethostname", lambda: "elsewhere")


def _other_folder(two: Two) -> Path:
    return two.b


def _other_folder_of_an_old_sweep(two: Two) -> Path:
    two.unsign()
    return two.b


def _copy(two: Two) -> Path:
    two.copy()
    return two.b


def _copy_after_the_other_went_on(two: Two) -> Path:
    two.copy()
    two.go_on(two.a)
    two.elsewhere()
    return two.b


def _first_after_its_copy_went_on(two: Two) -> Path:
    two.copy()
    two.a.rename(two.home / "away")
    two.go_on(two.b)
    two.b.rename(two.home / "gone")
    (two.home / "away").rename(two.a)
    return two.a


REFUSED = {
    _other_folder: "of another sweep of this name \\(.*/a/origin.json\\); take another name: --set name=NEW",
    _other_folder_of_an_old_sweep: "of another sweep of this name, which ran elsewhere; take another name",
    _copy: "is written to by the sweep in .*/a/origin.json, of which this is a copy; take another name",
    _copy_after_the_other_went_on: "has been written to from .*/a/origin.json since this folder was copied",
    _first_after_its_copy_went_on: "has been written to from .*/b/origin.json since this folder was copied",
}


@pytest.fixture
def two(tmp_path: Path, new_store: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Two:
    made = Two(tmp_path, new_store("team"), monkeypatch)
    made.begin()
    return made


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.__name__.strip("_"))
def test_the_runs_of_another_sweep_are_left_alone(two: Two, case: Callable[[Two], Path]) -> None:
    folder = case(two)
    before = read_runs(two.uri, "small")
    lines: list[str] = []
    recorder = Recorder(folder, two.uri, "small", lines.append)  # one that nobody asked whether it may
    recorder.start("small.sweep", name="sweep")
    recorder.reconcile(alive={"small.sweep"})
    recorder.start("small-0001", name="lr 5", parent="small.sweep", params={"train.lr": 5.0})
    recorder.metrics("small-0001", 1, {"miou": 55.0})
    assert recorder.flush(60) == 4 and recorder.flush(60) == 4
    with pytest.raises(InputError, match=REFUSED[case]) as refused:
        recorder.check()
    assert "\n" not in str(refused.value) and len(lines) == 1
    assert read_runs(two.uri, "small") == before and recorder.refused == 0
    (trial,) = (row for row in before if row.uid == "small-0001")
    assert trial.status == "RUNNING" and trial.params == {"train.lr": "1.0"} and trial.metrics == {}


def _again(two: Two) -> tuple[Path, Origin | None]:
    return two.a, None


def _moved(two: Two) -> tuple[Path, Origin | None]:
    two.a.rename(two.b)
    return two.b, None


def _moved_to_another_machine(two: Two) -> tuple[Path, Origin | None]:
    two.copy()
    two.elsewhere()
    return two.b, None


def _older_than_ids(two: Two) -> tuple[Path, Origin | None]:
    two.unsign()
    return two.a, None


def _lost_spool(two: Two) -> tuple[Path, Origin | None]:
    two.lose_spool()
    return two.a, None


def _older_than_ids_without_spool(two: Two) -> tuple[Path, Origin | None]:
    two.unsign()
    two.lose_spool()
    return two.a, Origin("study", "postgresql://me@host/studies", adopts=True)


def _another_machine_with_the_same_study(two: Two) -> tuple[Path, Origin | None]:
    shared = Origin("shared", "postgresql://me@host/studies")
    two.unsign()
    recorder = Recorder(two.a, two.uri, "small", origin=shared)
    assert recorder.close(60) == 0
    return two.b, shared


def _experiment_with_another_name(two: Two) -> tuple[Path, Origin | None]:
    client = connect(two.uri)
    client.rename_experiment(client.get_experiment_by_name("small").experiment_id, "renamed")
    return two.a, None


def _deleted_experiment(two: Two) -> tuple[Path, Origin | None]:
    client = connect(two.uri)
    client.delete_experiment(client.get_experiment_by_name("small").experiment_id)
    return two.a, None


@pytest.mark.parametrize(
    "case",
    [
        _again,
        _moved,
        _moved_to_another_machine,
        _older_than_ids,
        _lost_spool,
        _older_than_ids_without_spool,
        _another_machine_with_the_same_study,
        _experiment_with_another_name,
        _deleted_experiment,
    ],
    ids=lambda case: case.__name__.strip("_"),
)
def test_the_same_sweep_goes_on_with_its_runs(two: Two, case: Callable[[Two], tuple[Path, Origin | None]]) -> None:
    before = {row.run_id for row in read_runs(two.uri, "small")}
    folder, own = case(two)
    recorder = Recorder(folder, two.uri, "small", origin=own)
    recorder.check()
    recorder.start("small.sweep", name="sweep")
    recorder.start("small-0001", name="lr 1", parent="small.sweep", params={"train.lr": 1.0})
    recorder.end("small-0001", "FINISHED")
    assert recorder.flush(60) == 0
    client = connect(two.uri)
    named = [found for found in client.search_experiments() if found.name != "Default"]
    assert len(named) == 1 and recorder.close(60) == 0
    found = read_runs(two.uri, named[0].name)
    assert {row.run_id for row in found} == before
    assert {row.uid: row.status for row in found} == {"small.sweep": "RUNNING", "small-0001": "FINISHED"}


def test_a_registered_model_of_another_sweep_gets_no_version(two: Two) -> None:
    """The experiment's name is free again, the model's is not."""
    client = connect(two.uri)
    client.create_registered_model("cpn-small", tags={"origin": "somebody else's"})
    lines: list[str] = []
    recorder = Recorder(two.a, two.uri, "small", lines.append)
    recorder.register("cpn-small", "small-0001", "model", {"digest": "d"}, "champion", "why")
    assert recorder.close(60) == 0 and recorder.refused == 1
    assert "registered model cpn-small is another sweep's" in lines[0]
    assert not client.search_model_versions("name = 'cpn-small'")
