"""A project with its sqlite store that is moved or copied: files go where the store is, and are read there."""

import shutil
from collections.abc import Callable
from pathlib import Path
from platform.tracking.client import connect
from platform.tracking.recorder import Recorder

import pytest

from cpn.core.errors import InputError


def files(folder: Path) -> dict[str, bytes]:
    """What the runs of a project hold, by file name."""
    return {path.name: path.read_bytes() for path in (folder / "mlartifacts").rglob("*") if path.is_file()}


@pytest.fixture
def project(tmp_path: Path, new_store: Callable[[str], str]) -> Path:
    """A project folder with store, sweep, a registered model and a picture that is still on its way."""
    uri, home = new_store("proj"), tmp_path / "proj"
    run = home / "sweeps/runs/key"
    run.mkdir(parents=True)
    for name in ("early.png", "late.png", "weights.bin"):
        (run / name).write_bytes(name.encode())
    recorder = Recorder(home / "sweeps/small/records", uri, "small")
    recorder.start("small-0001", name="lr 1")
    recorder.artifact("small-0001", run / "early.png")
    recorder.artifact("small-0001", run / "weights.bin", "model")
    recorder.register("cpn-small", "small-0001", "model", {"digest": "d"}, "champion", "why")
    assert recorder.close(60) == 0
    return home


def open_in(home: Path, uri: str, lines: list[str]) -> Recorder:
    """The sweep's records, as a new process sees them: MLflow remembers where a run's files go."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()
    return Recorder(home / "sweeps/small/records", uri, "small", lines.append)


def late(home: Path, uri: str) -> tuple[Recorder, list[str]]:
    """The same sweep goes on in a project folder."""
    lines: list[str] = []
    recorder = open_in(home, uri, lines)
    recorder.artifact("small-0001", home / "sweeps/runs/key/late.png")
    return recorder, lines


@pytest.mark.parametrize("how", ["copied", "moved", "moved with files lost", "copied twice"])
def test_files_go_where_the_store_is(project: Path, how: str) -> None:
    there, uri = project.with_name("there"), f"sqlite:///{project.with_name('there')}/mlflow.db"
    if how == "moved with files lost":
        shutil.rmtree(project / "mlartifacts")
    if how.startswith("moved"):
        project.rename(there)
    else:
        shutil.copytree(project, there)
    before = files(project)
    (there / "sweeps/runs/key/early.png").unlink()  # let go of: it is in the store
    recorder, lines = late(there, uri)
    recorder.check()
    assert recorder.close(60) == 0 and recorder.refused == 0
    assert len(lines) == 1 and f"files go to {there}/mlartifacts/small" in lines[0]
    if how == "copied twice":
        third = project.with_name("third")
        shutil.copytree(there, third)
        before_second = files(there)
        recorder, lines = late(third, f"sqlite:///{third}/mlflow.db")
        assert recorder.close(60) == 0 and len(lines) == 1
        assert files(there) == before_second
        there, uri = third, f"sqlite:///{third}/mlflow.db"
    assert files(project) == before
    client = connect(uri)
    found = files(there)
    assert set(found) == ({"late.png"} if "lost" in how else {"late.png", "early.png", "weights.bin"})
    (version,) = client.search_model_versions("name = 'cpn-small'")
    assert version.source.startswith(f"file://{there}/mlartifacts/small/")
    (run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert run.info.artifact_uri.startswith(f"file://{there}/mlartifacts/small/")
    recorder, lines = late(there, uri)
    assert recorder.close(60) == 0 and lines == [], "it is said once"


def test_what_waited_in_the_spool_is_found_in_the_new_place(project: Path, tmp_path: Path) -> None:
    recorder, _ = late(project, "http://127.0.0.1:9")
    recorder.close(0.0)
    there = tmp_path / "there"
    project.rename(there)
    recorder = open_in(there, f"sqlite:///{there}/mlflow.db", [])
    assert recorder.close(60) == 0 and recorder.refused == 0
    assert "late.png" in files(there)


def test_a_store_moved_alone_keeps_its_files_in_place(project: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (project / "mlflow.db").rename(tmp_path / "data/mlflow.db")
    recorder, lines = late(project, f"sqlite:///{tmp_path}/data/mlflow.db")
    assert recorder.close(60) == 0 and lines == []
    assert set(files(project)) == {"late.png", "early.png", "weights.bin"}


def test_a_copied_store_without_its_files_is_refused(project: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(project / "mlflow.db", tmp_path / "data")
    before = files(project)
    recorder, _ = late(project, f"sqlite:///{tmp_path}/data/mlflow.db")
    with pytest.raises(InputError, match="is a copy of .*/proj/mlflow.db without its files; copy them too: cp -a"):
        recorder.check()
    assert files(project) == before


def test_a_link_to_the_same_project_changes_nothing(project: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(project)
    recorder, lines = late(tmp_path / "link", f"sqlite:///{tmp_path}/link/mlflow.db")
    recorder.check()
    assert recorder.close(60) == 0 and lines == []
    assert "late.png" in files(project)
