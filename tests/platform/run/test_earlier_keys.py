"""Results under keys of paths and names, from before keys held contents: taken over, or told why not."""

import os
from pathlib import Path
from platform.base.paths import MANIFEST, Storage
from platform.run.earlier_keys import take_over_run, take_over_stage

import pytest

from cpn.config import Config, key_by_name, run_key, with_values
from cpn.core.files import file_digest, read_json, write_bytes, write_json
from cpn.core.run_files import MODEL, RESULT
from cpn.scoring.finished_run import finished_run
from cpn.stages.stage_manifest import StageManifest, stage_keys

LATER = 4e9
"""A time after every file of the test was written."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(b"w")
    return Storage(tmp_path / "sweeps")


def config(weights: str) -> Config:
    return with_values(Config(), {"network.weights": weights}, "x")


def finished(store: Storage, key: str, time: float = LATER) -> Path:
    """A finished run."""
    folder = store.run(key)
    write_bytes(folder / MODEL, b"network")
    write_bytes(folder / "pictures" / "cam_panel.png", b"picture")
    digests = {MODEL: file_digest(folder / MODEL)}
    history = [{"epoch": 1, "time": time}]
    write_json(folder / RESULT, {"key": key, "history": history, "metrics": {}, "digests": digests})
    return folder


@pytest.mark.parametrize("spelt", ["w.safetensors", "./w.safetensors", "absolute"])
def test_a_run_under_its_path_is_taken_over(store: Storage, spelt: str, tmp_path: Path) -> None:
    now = config(str(tmp_path / "w.safetensors"))
    old = finished(store, key_by_name(now if spelt == "absolute" else config(spelt), "f"))
    said: list[str] = []
    assert take_over_run(store, now, "f", said.append)
    folder = store.run(run_key(now, "f"))
    result = finished_run(folder)
    assert result is not None and (result.key, result.earlier_key) == (folder.name, old.name)
    assert finished_run(old) is not None and (folder / "pictures" / "cam_panel.png").read_bytes() == b"picture"
    assert said == [f"run {old.name}, kept under a key of names, is taken over as {folder.name}"]
    assert not take_over_run(store, now, "f", said.append) and len(said) == 1, "it is there"


def test_a_file_that_was_changed_since_is_told_and_not_taken(store: Storage, tmp_path: Path) -> None:
    now = config(str(tmp_path / "w.safetensors"))
    old = finished(store, key_by_name(now, "f"), time=1e9)
    said: list[str] = []
    assert not take_over_run(store, now, "f", said.append) and not store.run(run_key(now, "f")).exists()
    (line,) = said
    assert old.name in line and "w.safetensors was changed after it began" in line and "made anew" in line


def test_own_code_that_was_edited_since_is_not_taken(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    (store.root.parent / "since_edited.py").write_text("class Net: ...\n")
    monkeypatch.syspath_prepend(str(store.root.parent))
    now = with_values(Config(), {"network.backbone": "since_edited:Net"}, "x")
    old = finished(store, key_by_name(now, "f"))
    assert old.name != run_key(now, "f") and take_over_run(store, now, "f", print)
    (store.root.parent / "since_edited.py").write_text("class Net: x = 2\n")
    finished(store, key_by_name(now, "f"), time=os.stat(store.root.parent / "since_edited.py").st_mtime - 60)
    assert not take_over_run(store, now, "f", print)


def test_nothing_is_looked_for_where_no_file_is_named(store: Storage) -> None:
    finished(store, key_by_name(Config(), "other data"))
    assert not take_over_run(store, Config(), "f", print)
    assert not take_over_run(store, config("scenes"), "f", print)


def test_a_stage_is_taken_over_with_its_files(store: Storage, tmp_path: Path) -> None:
    now = config(str(tmp_path / "w.safetensors"))
    old = store.stage("affinity", stage_keys("m", config("w.safetensors"), "f", 0.3, dict)["affinity"])
    write_bytes(old / MODEL, b"affinities")
    write_json(old / MANIFEST, {"stage": "affinity", "key": old.name, "metrics": {"loss": 1.0}, "finished": LATER})
    key = stage_keys("m", now, "f")["affinity"]
    folder = store.stage("affinity", key)
    begun = StageManifest(stage="affinity", key=key, inputs={"model": "m"}, metrics={})
    said: list[str] = []
    assert take_over_stage(store, now, "f", 0.3, folder, begun, said.append)
    manifest = read_json(folder / MANIFEST)
    assert (folder / MODEL).read_bytes() == b"affinities" and len(said) == 1
    assert (manifest["key"], manifest["metrics"], manifest["inputs"]) == (key, {"loss": 1.0}, {"model": "m"})
    crf = begun.model_copy(update={"stage": "crf", "key": stage_keys("m", now, "f")["crf"]})
    assert not take_over_stage(store, now, "f", 0.3, store.stage("crf", crf.key), crf, said.append)
