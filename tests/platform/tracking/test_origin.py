"""Whose records these are: an id in the study and in the folder, and what tells a copy from a folder that moved."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from platform.config.identity import StudyIdentity
from platform.search.study import State, Study, open_list
from platform.tracking.origin import FILE, ORIGIN, Origin, folder_origin, lives, sweep_origin

import pytest

from cpn.core.errors import InputError

IDENTITY = {"base": {"a": 1}}


def opened(storage: Path, name: str = "small", **more: int) -> Study:
    """The study in a storage folder."""
    storage.mkdir(exist_ok=True)
    return open_list(name, f"sqlite:///{storage}/study.db", StudyIdentity(**{**IDENTITY, **more}))


def records(storage: Path) -> Path:
    return storage / "small/records"


def test_an_id_is_made_once_and_folder_and_study_agree(tmp_path: Path) -> None:
    first = sweep_origin(opened(tmp_path), records(tmp_path))
    assert not first.adopts and first.place.endswith(f":{tmp_path}/study.db")
    assert sweep_origin(opened(tmp_path), records(tmp_path)) == first
    assert folder_origin(records(tmp_path)) == first, "for a command that opens no study"
    shutil.rmtree(records(tmp_path))
    assert sweep_origin(opened(tmp_path), records(tmp_path)) == first
    assert opened(tmp_path).remembered(ORIGIN) == {"id": first.id}


def test_a_study_takes_the_id_that_its_folder_has(tmp_path: Path) -> None:
    records(tmp_path).mkdir(parents=True)
    of_the_folder = folder_origin(records(tmp_path))
    assert of_the_folder.place.endswith(f"small/records/{FILE}")
    of_the_study = sweep_origin(opened(tmp_path), records(tmp_path))
    assert of_the_study.id == of_the_folder.id and not lives(of_the_folder.place, of_the_study)


def test_a_study_that_was_lost_and_made_again_goes_on(tmp_path: Path) -> None:
    first = sweep_origin(opened(tmp_path), records(tmp_path))
    (tmp_path / "study.db").unlink()
    assert sweep_origin(opened(tmp_path), records(tmp_path)) == first


def test_a_sweep_older_than_ids_adopts_its_runs(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.enqueue([{"values": {}, "seed": 0, "role": "row"}])
    row = study.ask()
    assert row is not None
    study.tell(row.uid, State.COMPLETE, 1.0)
    assert sweep_origin(study, records(tmp_path)).adopts
    assert not sweep_origin(study, records(tmp_path)).adopts, "once"


def _another_study(storage: Path) -> Study:
    other = storage.with_name("other")
    sweep_origin(opened(other), records(other))
    for file in storage.glob("study.db*"):
        file.unlink()
    for file in other.glob("study.db*"):
        shutil.copy(file, storage)
    return opened(storage)


def _another_search_whose_study_is_gone(storage: Path) -> Study:
    (storage / "study.db").unlink()
    return opened(storage, searched=2)


def _damaged(storage: Path) -> Study:
    (records(storage) / FILE).write_text("{")
    return opened(storage)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (_another_study, "holds the records of another study of this name; move that folder away, or take another"),
        (_another_search_whose_study_is_gone, "holds the records of another search, whose study is gone"),
        (_damaged, "origin.json: is damaged; delete it"),
    ],
    ids=["another study", "another search", "damaged"],
)
def test_records_of_something_else_are_refused(tmp_path: Path, case: Callable[[Path], Study], words: str) -> None:
    storage = tmp_path / "sweeps"
    sweep_origin(opened(storage), records(storage))
    with pytest.raises(InputError, match=words):
        sweep_origin(case(storage), records(storage))


def test_a_copy_is_told_from_a_folder_that_moved(tmp_path: Path) -> None:
    storage, copy = tmp_path / "sweeps", tmp_path / "copy"
    first = sweep_origin(opened(storage), records(storage))
    shutil.copytree(storage, copy)
    second = sweep_origin(opened(copy), records(copy))
    assert second.id == first.id and lives(first.place, second) and lives(second.place, first)
    assert folder_origin(records(copy)) == second
    assert not lives(first.place, first)
    (tmp_path / "link").symlink_to(storage)
    assert sweep_origin(opened(tmp_path / "link"), records(tmp_path / "link")) == first
    shutil.rmtree(storage)
    assert not lives(first.place, second)
    other = sweep_origin(opened(storage), records(storage))
    assert other.id != first.id and not lives(other.place, second), "a new sweep stands where the old one was"


@pytest.mark.parametrize("place", ["elsewhere:/sweeps/study.db", "postgresql://me:***@host/studies", "", "nonsense"])
def test_what_cannot_be_looked_at_does_not_live(place: str, tmp_path: Path) -> None:
    assert not lives(place, Origin("id", f"here:{tmp_path}/study.db"))


def test_a_study_that_two_folders_share_is_one_sweep(tmp_path: Path) -> None:
    study = opened(tmp_path / "studies")
    one = sweep_origin(study, tmp_path / "one/small/records")
    two = sweep_origin(study, tmp_path / "two/small/records")
    assert one == two and not lives(one.place, two)
    kept = json.loads((tmp_path / "one/small/records/origin.json").read_text())
    assert kept["study"] == str(tmp_path / "studies/study.db")
