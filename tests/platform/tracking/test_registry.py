"""Versions, alias and history, told by records to a real MLflow store."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from platform.rollback import target
from platform.tracking.client import connect
from platform.tracking.in_mlflow.promotion_history import Decision, HistoryEntry
from platform.tracking.read import read_model_state, read_run
from platform.tracking.recorder import Recorder
from platform.tracking.registry import champions, read_entry, read_model

import pytest

from cpn.core.errors import InputError, WorkError

MODEL, ALIAS = "cpn-patch", "champion"


def entry(kind: str, to: str | None, alias: str = ALIAS) -> HistoryEntry:
    values = {"id": "1", "who": "ann", "when": 1.0, "model": MODEL, "from": None, "why": "w"}
    return HistoryEntry.model_validate({**values, "alias": alias, "kind": kind, "to": to})


@pytest.mark.parametrize(
    ("moves", "stack"),
    [
        ([], []),
        ([("promotion", "1"), ("promotion", "2"), ("promotion", "3")], ["1", "2", "3"]),
        ([("promotion", "1"), ("promotion", "2"), ("rollback", "1")], ["1"]),
        ([("promotion", "1"), ("promotion", "2"), ("rollback", "1"), ("promotion", "3")], ["1", "3"]),
        ([("promotion", "1"), ("promotion", "2"), ("promotion", "1")], ["1", "2", "1"]),
        ([("promotion", "1"), ("by hand", "4"), ("put back", "4")], ["1", "4"]),
        ([("promotion", "1"), ("promotion", "2"), ("rollback", "7")], ["1", "2", "7"]),
        ([("promotion", "1"), ("by hand", None), ("promotion", "2")], ["1", "2"]),
    ],
)
def test_champions_stand_on_each_other(moves: list[tuple[str, str | None]], stack: list[str]) -> None:
    history = [entry(kind, to) for kind, to in moves] + [entry("promotion", "9", alias="other")]
    assert champions(history, ALIAS) == stack


@pytest.fixture
def uri(new_store: Callable[[str], str]) -> str:
    return new_store("store")


def three_versions(folder: Path, uri: str) -> Recorder:
    """Three runs, each promoted."""
    recorder = Recorder(folder / "records", uri, "patch")
    for number in range(3):
        weights = folder / f"{number}.safetensors"
        weights.write_bytes(b"%d" % number)
        recorder.start(f"patch-{number:04d}", name="a run", tags={"kind": "trial"})
        recorder.artifact(f"patch-{number:04d}", weights, "model")
        recorder.end(f"patch-{number:04d}", "FINISHED")
        by = "sweep" if number == 0 else "person"
        decision = Decision(by=by, kind="promotion", gates={"confirm": "holds"})
        version = {"digest": f"d{number}"}
        recorder.register(MODEL, f"patch-{number:04d}", "model", version, ALIAS, "why", decision=decision)
    return recorder


def test_the_history_tells_all_moves_and_what_was_done_by_hand(tmp_path: Path, uri: str) -> None:
    recorder = three_versions(tmp_path, uri)
    assert recorder.flush(60) == 0
    client = connect(uri)
    state = read_model(client, MODEL)
    assert (state.aliases, state.last(ALIAS), state.by_hand(ALIAS)) == ({ALIAS: "3"}, "3", False)
    assert [state.versions[v]["uid"] for v in "123"] == ["patch-0000", "patch-0001", "patch-0002"]
    found = read_run(uri, state.versions["2"]["run_id"])
    assert found is not None and found.uid == "patch-0001"
    client.set_registered_model_alias(MODEL, ALIAS, "1")
    assert read_model(client, MODEL).by_hand(ALIAS)
    recorder.moved(MODEL, ALIAS, "3", "1", "by hand", Decision(kind="by hand"))
    assert recorder.flush(60) == 0 and not read_model(client, MODEL).by_hand(ALIAS)
    client.delete_registered_model_alias(MODEL, ALIAS)
    assert read_model(client, MODEL).by_hand(ALIAS)
    recorder.point(MODEL, ALIAS, "2", "put back", Decision(kind="put back"))
    assert recorder.close(60) == 0
    history = read_model(client, MODEL).history
    moves = [(e.kind, e.before, e.to) for e in history]
    promoted = [("promotion", None, "1"), ("promotion", "1", "2"), ("promotion", "2", "3")]
    assert moves == [*promoted, ("by hand", "3", "1"), ("put back", None, "2")]
    assert history[-1].remark == "moved by hand before, from 1 to None"
    assert history[0].gates == {"confirm": "holds"} and all(e.who and e.id for e in history)
    copy = (tmp_path / "records/history.jsonl").read_text()
    assert [HistoryEntry.model_validate_json(line) for line in copy.splitlines()] == history


def test_a_repeated_word_leaves_no_entry(tmp_path: Path, uri: str) -> None:
    recorder = three_versions(tmp_path, uri)
    recorder.register(MODEL, "patch-0002", "model", {"digest": "d2"}, ALIAS, "again", decision=Decision(by="person"))
    recorder.point(MODEL, ALIAS, "3", "again")
    assert recorder.registered("sweep") == ("patch-0000", "d0")
    recorder.close(60)
    (tmp_path / "records/position.json").unlink()  # as after a kill: everything is told once more
    recorder = Recorder(tmp_path / "records", uri, "patch")
    assert recorder.registered("sweep") == ("patch-0000", "d0") and recorder.registered("person") is not None
    assert recorder.close(60) == 0
    state = read_model_state(uri, MODEL)
    assert state is not None and [e.to for e in state.history] == ["1", "2", "3"]
    assert (state.aliases, len(state.versions)) == ({ALIAS: "3"}, 3)


def test_a_way_back_without_a_version_goes_one_back(tmp_path: Path, uri: str) -> None:
    recorder = three_versions(tmp_path, uri)
    for _ in range(3):  # the third finds none before
        recorder.point(MODEL, ALIAS, None, "worse", Decision(kind="rollback"))
    assert recorder.close(60) == 0
    state = read_model_state(uri, MODEL)
    assert state is not None and state.aliases == {ALIAS: "1"}
    assert [(e.before, e.to) for e in state.history if e.kind == "rollback"] == [("3", "2"), ("2", "1")]
    refused = (tmp_path / "records/refused.jsonl").read_text()
    assert refused.count("\n") == 1 and "no champion before the present one" in refused


def test_a_kill_between_history_and_alias_is_made_good(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = three_versions(tmp_path, uri)
    recorder.flush(60)
    client = connect(uri)
    with monkeypatch.context() as patch:
        patch.setattr(type(client), "set_registered_model_alias", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        recorder.point(MODEL, ALIAS, "1", "rolled back", Decision(kind="rollback"))
        assert recorder.flush(20) == 1
    assert read_model(client, MODEL).aliases == {ALIAS: "3"} and read_model(client, MODEL).last(ALIAS) == "1"
    assert recorder.close(60) == 0
    state = read_model(client, MODEL)
    assert state.aliases == {ALIAS: "1"} and [e.to for e in state.history] == ["1", "2", "3", "1"]


@pytest.mark.parametrize(
    ("moves", "left", "stack"),
    [
        ([("promotion", "1"), ("promotion", "2"), ("promotion", "3")], {"1", "3"}, ["1", "3"]),
        ([("promotion", "1"), ("promotion", "2"), ("promotion", "3")], {"3"}, ["3"]),
        ([("promotion", "1"), ("promotion", "2"), ("promotion", "3")], {"1", "2"}, ["1", "2", "3"]),
        ([("promotion", "1"), ("promotion", "2"), ("promotion", "1")], {"1"}, ["1"]),
        ([("promotion", "1"), ("promotion", "2"), ("rollback", "1")], {"1", "2"}, ["1"]),
    ],
)
def test_a_way_back_passes_over_deleted_versions(
    moves: list[tuple[str, str | None]], left: set[str], stack: list[str]
) -> None:
    assert champions([entry(kind, to) for kind, to in moves], ALIAS, left) == stack


def test_rollback_over_a_deleted_version(tmp_path: Path, uri: str) -> None:
    three_versions(tmp_path, uri).close(60)
    connect(uri).delete_model_version(MODEL, "2")
    state = read_model_state(uri, MODEL)
    assert state is not None and target(state, None, "worse") == "1"
    with pytest.raises(InputError, match="--to 2: was deleted in MLflow; there are 1, 3"):
        target(state, "2", "worse")
    recorder = Recorder(tmp_path / "records", uri, "patch")
    recorder.point(MODEL, ALIAS, None, "worse", Decision(kind="rollback"))  # as where the store was away
    recorder.point(MODEL, ALIAS, "2", "worse", Decision(kind="rollback"))
    assert recorder.close(60) == 0 and recorder.refused == 1
    state = read_model_state(uri, MODEL)
    assert state is not None and state.aliases == {ALIAS: "1"}


def test_an_entry_of_the_first_version_is_read() -> None:
    first = {"who": "ann", "when": 1.5, "model": MODEL, "alias": ALIAS, "from": None, "to": "1", "why": "w"}
    read = read_entry(MODEL, "promotion.0a", json.dumps(first))
    assert (read.id, read.kind, read.by, read.overridden) == ("0a", "promotion", None, ())
    assert read.to_json() == {"id": "0a", **first}, "nothing is added when it is copied"


@pytest.mark.parametrize(
    ("text", "why"), [("{}", "who: Field required"), ("[1]", "no JSON object"), ("{", "no JSON object")]
)
def test_a_tag_that_is_no_entry_is_named(text: str, why: str) -> None:
    line = f"cpn-patch: tag promotion.0a is no entry of the promotion history ({why}); delete it in MLflow"
    with pytest.raises(WorkError, match=f"^{re.escape(line)}$"):
        read_entry(MODEL, "promotion.0a", text)
