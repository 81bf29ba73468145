"""Other drivers and other sweeps that are in the way of one. All other wrong input: tests/test_bad_input.py."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from platform import sweep
from platform.base import lock
from platform.base.paths import storage
from platform.base.yaml_files import yaml_text
from platform.config.identity import StudyIdentity
from platform.config.spec import load_spec
from platform.run import sweep_context
from platform.search import study, study_store
from platform.sweeps import run_sweep
from platform.tracking.recorder import Recorder, read_runs
from typing import Any

import pytest

from cpn.config.data import ScenesConfig
from cpn.core.errors import run_command
from cpn.core.files import write_json
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from tests.bad_input.case import SPEC


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in VOC layout, not packed."""
    root = tmp_path_factory.mktemp("scenes") / "data"
    write_scenes(root, ScenesConfig(train=6, val=3, size=64))
    return root


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; a command that gets as far as Ray has not seen what is wrong."""

    def too_far(*_: Any) -> Any:
        raise AssertionError("Ray was to be started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_context, "ray_cluster", too_far)
    monkeypatch.delenv("CPN_STUDY_URL", raising=False)
    return tmp_path


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    """A copy of the data set, to be damaged."""
    return Path(shutil.copytree(scenes, tmp_path / "data"))


def refused(main: Callable[[Sequence[str]], int], arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must end with exit code 2; its one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        run_command(lambda: main(arguments))
    said = capsys.readouterr().err
    assert left.value.code == 2, said
    lines = [line for line in said.splitlines() if not line.startswith(("checking ", "packing "))]
    assert len(lines) == 1 and lines[0].startswith("error: "), said
    return lines[0].removeprefix("error: ")


def sets(*texts: str) -> list[str]:
    return [word for text in texts for word in ("--set", text)]


def write_spec(content: dict[str, Any], name: str = "s.yaml") -> str:
    Path(name).write_text(yaml_text(content))
    return name


def found_in(place: Path) -> set[str]:
    """Every file and folder, without pytest's own."""
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def test_another_driver_of_the_same_sweep(data: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = storage("sweeps").sweep("small")
    with lock.driving(paths, "small", "the first"):
        said = refused(sweep.main, [write_spec(SPEC), *sets(f"data.root={data}")], capsys)
        first = lock.read_driver(paths)
    assert first is not None and first.command == "the first"
    assert said == (
        f"{paths.lock}: sweep 'small' is already running (process {os.getpid()} on {first.host}); wait for it, or stop "
        "it: python -m platform.stop small"
    )
    assert not storage("sweeps").study.exists()


def test_another_base_under_the_same_name(data: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = load_spec(Path(write_spec(SPEC)), [f"data.root={data}"])
    pack = prepare(data, ["trainaug", "train", "val"], scored=["train", "val"])
    study.open_study(spec, study.study_url(spec), pack.fingerprint).close()
    trials = "select count(*) from trials"
    before = sqlite3.connect(storage("sweeps").study).execute(trials).fetchone()
    given = sets(f"data.root={data}", "loss.w_tcp=2", "search.patches.p_h={float: [0.1, 0.4]}")
    said = refused(sweep.main, ["s.yaml", *given], capsys)
    assert (
        "base.loss.w_tcp was 1.0, is 2.0" in said and "search.patches.p_h.float was [0.1, 0.5], is [0.1, 0.4]" in said
    )
    assert "--set name=NEW" in said
    assert sqlite3.connect(storage("sweeps").study).execute(trials).fetchone() == before == (1,)
    assert not (place / "mlflow.db").exists()


def test_another_sweep_of_the_same_name_in_one_store(
    data: Path, place: Path, capsys: pytest.CaptureFixture[str], new_store: Callable[[str], str]
) -> None:
    """A colleague's, or one whose folder was deleted: its runs got our metrics."""
    uri = new_store("team")
    theirs = Recorder(place / "ann/small/records", uri, "small")
    theirs.start("small-0000", name="reference")
    assert theirs.close(60) == 0
    said = refused(sweep.main, [write_spec(SPEC), *sets(f"data.root={data}", f"tracking.uri={uri}")], capsys)
    assert said.startswith(f"tracking.uri: {uri}: experiment 'small' holds the records of another sweep of this name (")
    assert said.endswith("/ann/small/records/origin.json); take another name: --set name=NEW")
    assert [(row.uid, row.status) for row in read_runs(uri, "small")] == [("small-0000", "RUNNING")]
    assert not (place / "sweeps").exists(), "it was refused before anything was made"


def _experiment_that_was_taken_meanwhile(place: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(run_sweep, "check_owner", lambda spec: None)
    theirs = Recorder(place / "ann/small/records", uri, "small")
    assert theirs.close(60) == 0
    return []


def _nothing_to_learn_from(place: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return sets("search_options.warm_start=[gone]")


def _records_of_another_search(place: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    write_json(place / "sweeps/small/records/origin.json", {"id": "1", "search": "another", "study": "../../study.db"})
    return []


REFUSED_LATE = {
    _experiment_that_was_taken_meanwhile: "holds the records of another sweep of this name",
    _nothing_to_learn_from: "search_options.warm_start: gone: no such sweep",
    _records_of_another_search: "holds the records of another search, whose study is gone",
}


@pytest.mark.parametrize("case", REFUSED_LATE, ids=lambda case: case.__name__.strip("_"))
@pytest.mark.parametrize("others", [(), ("earlier",)], ids=["first sweep", "beside another"])
def test_a_new_sweep_that_is_refused_leaves_no_study(
    case: Callable[..., list[str]],
    others: tuple[str, ...],
    data: Path,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    new_store: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri, url = new_store("team"), f"sqlite:///{place}/sweeps/study.db"
    for name in others:
        (place / "sweeps").mkdir()
        study.open_list(name, url, StudyIdentity()).close()
    given = case(place, uri, monkeypatch)
    records = place / "sweeps/small/records"
    before = found_in(records)
    words = [write_spec(SPEC), *sets(f"data.root={data}", f"tracking.uri={uri}")]
    assert REFUSED_LATE[case] in refused(sweep.main, [*words, *given], capsys)
    assert set(study_store.study_names(url)) == set(others)
    assert found_in(records) == before and not (place / "sweeps/small/spec.yaml").exists()


def test_a_sweep_that_is_refused_keeps_its_study(
    data: Path,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    new_store: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only what the start itself has made goes."""
    uri, url = new_store("team"), f"sqlite:///{place}/sweeps/study.db"
    spec = load_spec(Path(write_spec(SPEC)), [f"data.root={data}"])
    pack = prepare(data, ["trainaug", "train", "val"], scored=["train", "val"])
    study.open_study(spec, url, pack.fingerprint).close()
    _experiment_that_was_taken_meanwhile(place, uri, monkeypatch)
    refused(sweep.main, ["s.yaml", *sets(f"data.root={data}", f"tracking.uri={uri}")], capsys)
    assert study_store.study_names(url) == ["small"] and len(study.read_study("small", url).rows()) == 1


def test_a_disk_full_to_the_end_ends_all_the_same(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[str] = []
    close = Recorder.close

    def fills(sweep: sweep_context.SweepContext, **_: Any) -> None:
        sweep.when_closed(lambda: ended.append("cluster"))
        monkeypatch.setattr(type(sweep.clock), "save", full)
        full()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "clock.json")

    def closed(recorder: Recorder, timeout_s: float) -> int:
        ended.append("records")
        return close(recorder, timeout_s)

    monkeypatch.setattr(run_sweep, "run_search_sweep", fills)
    monkeypatch.setattr(Recorder, "close", closed)
    with pytest.raises(SystemExit) as left:
        run_command(lambda: sweep.main([write_spec(SPEC), *sets(f"data.root={data}")]))
    said = capsys.readouterr().err
    assert left.value.code == 1 and ended == ["cluster", "records"]
    assert said.splitlines()[-1].startswith("failed: ") and "clock.json: No space left on device; make room" in said
