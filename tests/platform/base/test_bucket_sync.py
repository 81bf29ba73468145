"""What a machine fetches and keeps when the storage is no folder. A bucket on a disk: test_object_storage.py."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from platform.base import bucket_sync
from platform.base.paths import Storage, storage
from platform.cluster.worker import TrialSetup, train_on_worker
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cpn.config import Config, config_from, run_key
from cpn.config.data import ScenesConfig
from cpn.core import object_storage
from cpn.core.errors import WorkError
from cpn.core.files import file_digest, read_json, write_bytes, write_json
from cpn.core.run_files import MODEL, RESULT, epoch_folder
from cpn.data.packed_copy import publish
from cpn.data.voc import Pack
from cpn.run import run
from cpn.scoring.finished_run import finished_run
from cpn.scoring.run_manifest import RunManifest
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(object_storage.SCRATCH, str(tmp_path / "scratch"))
    return f"file://{tmp_path}/bucket"


@pytest.fixture
def store(bucket: str) -> Storage:
    return storage(bucket)


def elsewhere(store: Storage, monkeypatch: pytest.MonkeyPatch, name: str = "other") -> Storage:
    """The same storage on another machine."""
    monkeypatch.setenv(object_storage.SCRATCH, str(Path.cwd() / name))
    assert store.url is not None
    return storage(store.url)


def checkpoint(attempt: bucket_sync.Attempt, epoch: int) -> None:
    write_json(attempt.folder / "checkpoints" / f"epoch_{epoch:04d}" / "checkpoint.json", {"epoch": epoch})
    attempt.saved()


def finish(folder: Path, miou: float = 1.0) -> RunManifest:
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(b"weights" * 100)
    digests = {MODEL: file_digest(folder / MODEL)}
    result = RunManifest(key="k", history=(), metrics={"miou": miou}, digests=digests)
    write_json(folder / RESULT, result.to_json())
    return result


def epochs(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("checkpoints/*"))


def test_a_folder_is_the_storage_itself(tmp_path: Path) -> None:
    store = storage(str(tmp_path / "sweeps"))
    with bucket_sync.attempt(store, "k", writes=True, say=print) as attempt:
        assert attempt.folder == store.run("k")
        checkpoint(attempt, 1)
        assert attempt.done(finish(attempt.folder)) == finished_run(store.run("k"))
    bucket_sync.upload(store, store.run("k"))
    assert bucket_sync.download(store, store.run("k")) and bucket_sync.with_published_state(store) == store
    assert [p.name for p in tmp_path.iterdir()] == ["sweeps"]


def test_a_run_goes_on_elsewhere_from_what_was_kept(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), bucket_sync.attempt(store, "k", writes=True, say=print) as attempt:
        assert epochs(attempt.folder) == []
        for epoch in (1, 2, 3):
            checkpoint(attempt, epoch)
        raise KeyboardInterrupt
    assert object_storage.folders(f"{store.url}/runs/k/checkpoints") == ["epoch_0002", "epoch_0003"], "two are kept"
    other = elsewhere(store, monkeypatch)
    with bucket_sync.attempt(other, "k", writes=True, say=print) as attempt:
        assert epochs(attempt.folder) == ["epoch_0003"] and finished_run(attempt.folder) is None
        attempt.done(finish(attempt.folder))
    assert object_storage.folders(f"{store.url}/runs/k") == [], "checkpoints of a finished run go"
    with bucket_sync.attempt(store, "k", writes=True, say=print) as attempt:
        assert finished_run(attempt.folder) is not None
    assert not list(store.root.glob("attempts/*")) and not list(other.root.glob("attempts/*"))
    bucket_sync.download_run(store, store.run("k"), print)
    assert finished_run(store.run("k")) is not None


def test_progress_within_an_epoch_is_kept_and_taken_first(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), bucket_sync.attempt(store, "k", writes=True, say=print) as attempt:
        for name in ("epoch_0001", "epoch_0002", "epoch_0002_step_000005", "epoch_0002_step_000010"):
            write_json(attempt.folder / "checkpoints" / name / "checkpoint.json", {"name": name})
            attempt.saved()
        raise KeyboardInterrupt
    kept = ["epoch_0002", "epoch_0002_step_000010"]
    assert object_storage.folders(f"{store.url}/runs/k/checkpoints") == kept, "the end of an epoch stays beside it"
    other = elsewhere(store, monkeypatch)
    with bucket_sync.attempt(other, "k", writes=True, say=print) as attempt:
        assert epochs(attempt.folder) == kept[1:]
        checkpoint(attempt, 3)
    assert object_storage.folders(f"{store.url}/runs/k/checkpoints") == ["epoch_0002", "epoch_0003"]


def test_a_damaged_checkpoint_is_passed_over_and_said(store: Storage) -> None:
    with bucket_sync.attempt(store, "k", writes=True, say=print) as attempt:
        checkpoint(attempt, 1)
        checkpoint(attempt, 2)
    object_storage.write_object(f"{store.url}/runs/k/checkpoints/epoch_0002/checkpoint.json", b"{}")
    said: list[str] = []
    with bucket_sync.attempt(store, "k", writes=True, say=said.append) as attempt:
        assert epochs(attempt.folder) == ["epoch_0001"]
    assert len(said) == 1 and "epoch_0002" in said[0] and "going on from what was kept before it" in said[0]


def test_pictures_of_an_epoch_are_seen_elsewhere(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the run goes on: the driver shows them."""
    with pytest.raises(KeyboardInterrupt), bucket_sync.attempt(store, "k", writes=True, say=print) as attempt:
        write_bytes(epoch_folder(attempt.folder, 2) / "a.png", b"picture")
        attempt.drawn(1)
        attempt.drawn(2)
        raise KeyboardInterrupt
    other = elsewhere(store, monkeypatch)
    said: list[str] = []
    [found] = bucket_sync.download_epoch(other, other.run("k"), 2, said.append)
    assert (found.name, found.read_bytes()) == ("a.png", b"picture") and found.is_relative_to(other.run("k"))
    assert bucket_sync.download_epoch(other, other.run("k"), 1, said.append) == [] and said == []


def test_only_the_process_that_writes_keeps_anything(store: Storage) -> None:
    with bucket_sync.attempt(store, "k", writes=False, say=print) as attempt:
        checkpoint(attempt, 1)
        attempt.done(RunManifest(key="k", history=(), metrics={}, digests={}))
    assert object_storage.sizes(str(store.url)) == {}


def test_what_another_sweep_finished_meanwhile_counts(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with bucket_sync.attempt(store, "k", writes=True, say=print) as ours:
        other = elsewhere(store, monkeypatch)
        with bucket_sync.attempt(other, "k", writes=True, say=print) as theirs:
            theirs.done(finish(theirs.folder, 70.0))
        assert ours.done(finish(ours.folder, 60.0)).metrics["miou"] == 70.0
        assert finished_run(ours.folder).metrics["miou"] == 70.0  # type: ignore[union-attr]


def test_trouble_while_a_checkpoint_is_kept_ends_nothing(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object, **__: object) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION")

    said: list[str] = []
    with bucket_sync.attempt(store, "k", writes=True, say=said.append) as attempt:
        with monkeypatch.context() as patch:
            patch.setattr(object_storage, "push", down)
            checkpoint(attempt, 1)
        assert len(said) == 1 and "epoch_0001 is not kept (the endpoint does not answer" in said[0]
        attempt.saved()
    assert object_storage.folders(f"{store.url}/runs/k/checkpoints") == ["epoch_0001"]


def test_a_bucket_that_stays_away_ends_the_sweep_in_one_line(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object, **__: object) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION")

    monkeypatch.setattr(bucket_sync, "PATIENCE_S", 0.0)
    monkeypatch.setattr(object_storage, "pull", down)
    with pytest.raises(WorkError, match="the endpoint does not answer.*the same command goes on when it answers"):
        bucket_sync.download_run(store, store.run("k"), print)


def test_folders_of_killed_attempts_go(store: Storage) -> None:
    dead = store.root / "attempts" / "999999-5-abc"
    dead.mkdir(parents=True)
    with bucket_sync.attempt(store, "k", writes=True, say=print) as attempt:
        assert not dead.exists() and attempt.folder.parent.exists()
        bucket_sync.delete_dead_attempts(store.root / "attempts")
        assert attempt.folder.parent.exists(), "this one lives"


def test_notes_are_seen_elsewhere(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    place = store.train("patch") / "patch-0001.failed.json"
    assert bucket_sync.get_shared(store, place) is None
    bucket_sync.put_shared(store, place, b'"out of memory"')
    other = elsewhere(store, monkeypatch)
    assert bucket_sync.get_shared(other, other.train("patch") / place.name) == b'"out of memory"'


def test_how_a_sweep_stands_is_seen_elsewhere(store: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paths = store.sweep("patch")
    with bucket_sync.publish_state(store, paths, print) as tell:
        paths.root.mkdir(parents=True)
        paths.lock.touch()
        write_json(paths.driver, {"state": "running"})
        tell()
        other = elsewhere(store, monkeypatch)
        (tmp_path / "cwd").mkdir()
        monkeypatch.chdir(tmp_path / "cwd")
        assert read_json(bucket_sync.with_published_state(other).sweep("patch").driver) == {"state": "running"}
        write_json(paths.driver, {"state": "finished"})
    assert read_json(bucket_sync.with_published_state(other).sweep("patch").driver) == {"state": "finished"}


def test_letting_go_of_a_network_and_of_checkpoints(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with bucket_sync.attempt(store, "k", writes=True, say=print) as attempt:
        attempt.done(finish(attempt.folder))
    with bucket_sync.attempt(store, "l", writes=True, say=print) as attempt:
        checkpoint(attempt, 1)
    assert bucket_sync.drop(store, store.run("k"), MODEL) == 700 and bucket_sync.drop(store, store.run("k"), MODEL) == 0
    assert bucket_sync.drop(store, store.run("l"), "checkpoints") > 0
    assert set(object_storage.sizes(str(store.url))) == {"runs/k/result.json", "runs/k/.files/whole.json"}
    other = elsewhere(store, monkeypatch)
    bucket_sync.download_run(other, other.run("k"), print)
    assert (other.run("k") / RESULT).exists() and finished_run(other.run("k")) is None


METHOD = {
    "preset": ["official", "scenes"],
    "network": {"weights": None},
    "train": {"epochs": 3, "batch_size": 4},
    "cam": {"scales": [1.0], "flip": False},
}


@pytest.fixture
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, ScenesConfig(train=10, val=3, seed=5))
    return prepare(root)


class Train:
    """Ray Train's part for one worker; it dies at its report number `dies`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import ray.train
        import ray.train.torch

        self.reports: list[Mapping[str, Any]] = []
        self.dies: int | None = None
        self.drained = False
        """Whether the machine is about to go once an epoch has been reported."""
        context = SimpleNamespace(get_world_size=lambda: 1, get_world_rank=lambda: 0)
        monkeypatch.setattr(ray.train, "get_context", lambda: context)
        monkeypatch.setattr(ray.train, "get_preemption_info", self.preemption)
        monkeypatch.setattr(ray.train, "report", self.report)
        monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))

    def preemption(self) -> object:
        return SimpleNamespace(deadline_ms=0) if self.drained and self.reports else None

    def report(self, entry: Mapping[str, Any]) -> None:
        self.reports.append(entry)
        if len(self.reports) == self.dies:
            raise KeyboardInterrupt


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("drained", [False, True])
def test_a_trial_goes_on_elsewhere_to_the_same_bits(
    store: Storage, scenes: Pack, monkeypatch: pytest.MonkeyPatch, threads: None, tmp_path: Path, drained: bool
) -> None:
    """Data, checkpoint and finished run all travel through the bucket; what was kept is not trained again."""
    config: Config = config_from(METHOD, "test")
    alone = run(config, scenes, tmp_path / "alone", cache=tmp_path, device=torch.device("cpu"), report=lambda _: None)
    publish(scenes, f"{store.url}/data")
    setup = TrialSetup(
        base=config.model_dump(mode="json"), data_root=f"{store.url}/data", storage=store.place, sweep="s", workers=1,
        gpus_per_worker=0.0, cpus_per_worker=1.0, threads=1,
    )  # fmt: skip
    given = {"uid": "s-0000", "values": {}, "setup": setup}
    first = Train(monkeypatch)
    first.dies, first.drained = 2, drained
    upload = bucket_sync.Attempt.saved

    def gone_once_saved(attempt: bucket_sync.Attempt) -> None:
        upload(attempt)
        if any("_step_" in name for name in epochs(attempt.folder)):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bucket_sync.Attempt, "saved", gone_once_saved)
        train_on_worker(given)
    key = run_key(config, scenes.fingerprint)
    kept = object_storage.folders(f"{store.url}/runs/{key}/checkpoints")
    assert kept[0] == "epoch_0001" and kept[1].startswith("epoch_0001_step_" if drained else "epoch_0002")
    other = elsewhere(store, monkeypatch)
    second = Train(monkeypatch)
    train_on_worker(given)
    assert [r["epoch"] for r in second.reports] == [1, 2, 3, 3], "kept epochs are only reported again"
    assert [r["time"] for r in first.reports] == [r["time"] for r in second.reports[: len(first.reports)]]
    bucket_sync.download_run(other, other.run(key), print)
    mine, theirs = load_file(tmp_path / "alone" / MODEL), load_file(other.run(key) / MODEL)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert second.reports[-1]["miou"] == alone.metrics["miou"]
    assert not os.listdir(other.root / "attempts")
