"""Where things lie: below one absolute folder, and never in each other's way."""

from pathlib import Path
from platform.base.paths import storage
from platform.config.spec import load_spec

import pytest

from cpn.core.errors import InputError


def test_a_relative_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage("sweeps").root == tmp_path / "sweeps" and storage("sweeps/../x").root == tmp_path / "x"
    assert list(tmp_path.iterdir()) == []


def test_every_place_is_its_own_and_below_the_storage_folder(tmp_path: Path) -> None:
    store = storage(str(tmp_path))
    sweep = store.sweep("patch")
    places = [
        store.study,
        store.cache,
        store.run("k"),
        store.run("l"),
        store.stage("crf", "k"),
        store.stage("cam", "k"),
    ]
    inside = [sweep.lock, sweep.records, sweep.tune, sweep.spec, sweep.summary, sweep.report]
    assert len(set(places + inside)) == len(places + inside)
    assert all(path.is_relative_to(tmp_path) for path in places) and all(p.parent == tmp_path / "patch" for p in inside)


@pytest.mark.parametrize("name", ["runs", "Stages", "cache", "study.db-shm", "mlflow.db", "patch.confirm"])
def test_no_sweep_can_take_a_shared_place(tmp_path: Path, name: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"name: {name}\nsearch: {{}}\n")
    with pytest.raises(InputError, match=f"{path}: name: the storage folder or the study keeps other"):
        load_spec(path)
