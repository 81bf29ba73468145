"""What a real MLflow store had and lost: deleted in the UI, or put back to a backup. It is said, and told again."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from platform.tracking.client import connect
from platform.tracking.in_mlflow.image_grid import TAG, image_key
from platform.tracking.in_mlflow.promotion_history import Decision
from platform.tracking.read import read_model_state
from platform.tracking.recorder import Recorder
from typing import Any
from urllib.parse import urlparse

import pytest
from PIL import Image

from tests.platform.tracking.test_recorder import rows

MODEL, ALIAS = "cpn-patch", "champion"
VERSIONS = 3


@dataclass
class Kept:
    """A store with three runs, each promoted, the last two rolled back, and what it held then."""

    home: Path
    uri: str
    whole: dict[str, Any] = field(default_factory=dict)

    @property
    def db(self) -> Path:
        return Path(self.uri.removeprefix("sqlite:///"))

    @property
    def backup(self) -> Path:
        return self.home / "backup.db"

    def recorder(self, lines: list[str] | None = None) -> Recorder:
        return Recorder(self.home / "records", self.uri, "patch", (lines if lines is not None else []).append)

    def tell(self, back_up_after: int = -1) -> None:
        recorder = self.recorder()
        recorder.start("patch.sweep", name="sweep", time=1000.0)
        for number in range(VERSIONS):
            if number == back_up_after:
                assert recorder.close(60) == 0
                shutil.copy(self.db, self.backup)
                recorder = self.recorder()
            uid = f"patch-{number:04d}"
            weights = self.home / f"{number}.safetensors"
            weights.write_bytes(b"%d" % number)
            recorder.start(uid, name="a run", parent="patch.sweep", params={"lr": number})
            recorder.metrics(uid, 1, {"miou": float(number)})
            recorder.artifact(uid, weights, "model")
            recorder.end(uid, "FINISHED")
            decision = Decision(by="sweep" if number == 0 else "person", kind="promotion", uid=uid)
            recorder.register(MODEL, uid, "model", {"digest": f"d{number}"}, ALIAS, "why", decision=decision)
        recorder.metrics("patch.sweep", 0, {"best": 2.0}, revise=True)
        recorder.point(MODEL, ALIAS, "2", "worse", Decision(kind="rollback"))
        recorder.end("patch.sweep", "FINISHED")
        assert recorder.close(60) == 0
        self.whole = self.rows()

    def rows(self) -> dict[str, Any]:
        return rows(self.uri)

    def image_files(self) -> dict[str, bytes]:
        """Every file of an image in the store, by uid and name."""
        client = connect(self.uri)
        folders = {uid: Path(urlparse(client.get_run(self.run_id(uid)).info.artifact_uri).path) for uid in self.rows()}
        files = [(uid, path) for uid, folder in folders.items() for path in (folder / "images").glob("*")]
        return {f"{uid}/{path.name}": path.read_bytes() for uid, path in files}

    def run_id(self, uid: str) -> str:
        client = connect(self.uri)
        number = client.get_experiment_by_name("patch").experiment_id
        (run,) = client.search_runs([number], f"tags.uid = '{uid}'")
        return str(run.info.run_id)

    def mend(self) -> list[str]:
        """What the next start of the sweep says."""
        lines: list[str] = []
        recorder = self.recorder(lines)
        recorder.check()
        assert recorder.close(60) == 0 and recorder.refused == 0
        return lines


@pytest.fixture
def kept(tmp_path: Path, new_store: Callable[[str], str]) -> Kept:
    return Kept(tmp_path, new_store("store"))


@pytest.mark.parametrize("after", range(VERSIONS))
def test_a_store_put_back_to_a_backup_gets_what_it_lacks(kept: Kept, after: int) -> None:
    kept.tell(back_up_after=after)
    shutil.copy(kept.backup, kept.db)
    assert kept.rows() != kept.whole
    lines = kept.mend()
    assert kept.rows() == kept.whole
    assert any("as if put back to a backup" in line for line in lines)
    assert kept.mend() == [], "and it is said once"


def test_images_come_back_to_a_store_put_back_to_a_backup(kept: Kept) -> None:
    """Database and artifacts as they were after the first of three epochs; a run that came later has none at all."""
    recorder = kept.recorder()
    recorder.start("patch.sweep", name="sweep", time=1000.0)
    for epoch in (1, 2, 3):
        picture = kept.home / f"epoch-{epoch}" / "scene.png"
        picture.parent.mkdir()
        Image.new("RGB", (8, 6), (60 * epoch, 0, 0)).save(picture)
        for uid in ("patch-0000", "patch-0001")[: 1 if epoch == 1 else 2]:
            if not recorder.started(uid):
                recorder.start(uid, name="a run", parent="patch.sweep")
            recorder.metrics(uid, epoch, {"miou_epoch": 40.0 + epoch}, 1000.0 + epoch)
            recorder.images(uid, epoch, {image_key("scene"): picture}, 1000.0 + epoch)
        if epoch == 1:
            assert recorder.close(60) == 0
            shutil.copytree(kept.db.parent, kept.home / "backup")
            recorder = kept.recorder()
    assert recorder.close(60) == 0
    whole, files = kept.rows(), kept.image_files()
    assert len(whole["patch-0000"]["images"]) == 6 and len(whole["patch-0001"]["images"]) == 4, "a PNG and its WebP"
    for folder in kept.db.parent.glob("*/"):
        shutil.rmtree(folder)
    shutil.copytree(kept.home / "backup", kept.db.parent, dirs_exist_ok=True)
    assert len(kept.rows()["patch-0000"]["images"]) == 2 and "patch-0001" not in kept.rows()
    assert any("as if put back to a backup" in line for line in kept.mend())
    assert kept.rows() == whole and kept.image_files() == files
    assert TAG in kept.rows()["patch-0001"]["tags"].items(), "without it MLflow does not look for images"
    assert kept.mend() == [], "and it is said once"


def test_a_kill_before_the_mark_is_no_backup(kept: Kept) -> None:
    kept.tell()
    recorder = kept.recorder()
    recorder.metrics("patch.sweep", 1, {"best": 3.0})
    assert recorder.flush(60) == 0
    recorder._mark = recorder._replay._end = lambda: None  # type: ignore[method-assign]
    recorder.close(60)
    assert kept.mend() == []


def _run(kept: Kept) -> None:
    connect(kept.uri).delete_run(kept.run_id("patch-0001"))


def _parent(kept: Kept) -> None:
    connect(kept.uri).delete_run(kept.run_id("patch.sweep"))


def _run_for_good(kept: Kept) -> None:
    """What `mlflow gc` does."""
    connect(kept.uri)._tracking_client.store._hard_delete_run(kept.run_id("patch-0001"))


def _all_runs(kept: Kept) -> None:
    for number in range(VERSIONS):
        connect(kept.uri).delete_run(kept.run_id(f"patch-{number:04d}"))


def _model(kept: Kept) -> None:
    connect(kept.uri).delete_registered_model(MODEL)


def _champion(kept: Kept) -> None:
    connect(kept.uri).delete_model_version(MODEL, "2")


def _old_version(kept: Kept) -> None:
    connect(kept.uri).delete_model_version(MODEL, "1")


DELETED = {
    _run: "patch-0001 had been deleted in MLflow: restored",
    _parent: "patch.sweep had been deleted in MLflow: restored",
    _run_for_good: "patch-0001, of 4 that were told, is not in the store any more",
    _all_runs: "3 runs (patch-000",
    _model: "registered model cpn-patch is gone from the store",
    _champion: "version 2 of cpn-patch, its champion, was deleted in MLflow: it is registered again",
    _old_version: None,
}


@pytest.mark.parametrize("delete", DELETED, ids=lambda case: case.__name__.strip("_"))
def test_what_was_deleted_is_said_and_mended(kept: Kept, delete: Callable[[Kept], None]) -> None:
    kept.tell()
    delete(kept)
    lines, said = kept.mend(), DELETED[delete]
    assert [line for line in lines if said and said in line] or said is None
    state = read_model_state(kept.uri, MODEL)
    assert state is not None and ALIAS in state.aliases
    champion = state.versions[state.aliases[ALIAS]]
    assert (champion["uid"], champion["digest"]) == ("patch-0001", "d1") and not state.by_hand(ALIAS)
    runs = {name: row for name, row in kept.rows().items() if not name.startswith("model")}
    assert runs == {name: row for name, row in kept.whole.items() if not name.startswith("model")}
    if delete not in (_champion, _old_version, _run_for_good):
        assert kept.rows() == kept.whole
    assert kept.mend() == [], "and it is said once"


def test_a_lost_spool_doubles_no_rows_and_moves_no_alias(kept: Kept) -> None:
    kept.tell()
    for name in ("events.jsonl", "position.json", "marked.json", "history.jsonl"):
        (kept.home / "records" / name).unlink()
    recorder = kept.recorder()
    recorder.start("patch.sweep", name="sweep")
    recorder.metrics("patch.sweep", 0, {"best": 2.0}, revise=True)
    recorder.metrics("patch-0001", 1, {"miou": 1.0})
    decision = Decision(by="sweep", kind="promotion", uid="patch-0000")
    recorder.register(MODEL, "patch-0000", "model", {"digest": "d0"}, ALIAS, "why", decision=decision)
    recorder.end("patch.sweep", "FINISHED")
    assert recorder.close(60) == 0 and recorder.refused == 0
    found = kept.rows()
    for row in (*found.values(), *kept.whole.values()):
        if isinstance(row, dict):
            row["info"] = (*row["info"][:2], None, *row["info"][3:])  # its end is said anew
    assert found == kept.whole


def test_a_history_that_a_hand_moved_comes_back_with_its_alias(kept: Kept) -> None:
    kept.tell()
    connect(kept.uri).set_registered_model_alias(MODEL, ALIAS, "1")
    recorder = kept.recorder()
    recorder.moved(MODEL, ALIAS, "2", "1", "by hand", Decision(kind="by hand"))
    assert recorder.close(60) == 0
    kept.whole = kept.rows()
    _model(kept)
    kept.mend()
    assert kept.rows() == kept.whole


def test_an_alias_moved_by_hand_stands_when_all_is_told_again(kept: Kept) -> None:
    kept.tell()
    connect(kept.uri).set_registered_model_alias(MODEL, ALIAS, "1")
    (kept.home / "records/position.json").unlink()
    kept.mend()
    state = read_model_state(kept.uri, MODEL)
    assert state is not None and state.aliases == {ALIAS: "1"} and state.by_hand(ALIAS)


def test_a_metric_row_is_kept_once(kept: Kept) -> None:
    kept.tell()
    with closing(sqlite3.connect(kept.db)) as database:
        before = database.execute("select count(*) from metrics").fetchone()
    (kept.home / "records/position.json").write_text("{not json")
    kept.mend()
    with closing(sqlite3.connect(kept.db)) as database:
        assert database.execute("select count(*) from metrics").fetchone() == before
