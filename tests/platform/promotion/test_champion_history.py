"""The history of a champion where its store has it, has lost it, or is away."""

from collections.abc import Callable
from pathlib import Path
from platform.base.paths import Storage
from platform.promotion.champion_history import history, in_words, recorded_history
from platform.tracking.in_mlflow.promotion_history import ROLLED_BACK, Decision, HistoryEntry
from platform.tracking.recorder import Recorder
from platform.tracking.registry import HISTORY

import pytest

from cpn.core.checked import sealed_line
from cpn.core.files import write_bytes

AWAY = "http://127.0.0.1:9"
ENTRY = {
    "id": "1",
    "who": "ann",
    "when": 1.0,
    "model": "cpn-s",
    "alias": "champion",
    "from": None,
    "to": "1",
    "why": "w",
}
"""As the first version wrote it: without kind, run and gates."""
MOVE = HistoryEntry.model_validate(ENTRY)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return Storage(tmp_path / "sweeps")


def keep(store: Storage, *lines: bytes) -> Path:
    path = store.sweep("s").records / HISTORY
    write_bytes(path, b"".join(lines))
    return path


def test_nothing_was_recorded_yet(store: Storage) -> None:
    assert recorded_history(store, "s") == []


def test_damaged_lines_are_counted_and_left_out(store: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    second = {**ENTRY, "id": "2"}
    path = keep(store, sealed_line(ENTRY), sealed_line(second).replace(b"ann", b"bob"), b'{"no": "id"}\n', b"{\n")
    assert recorded_history(store, "s") == [MOVE]
    line = f"{path}: 3 damaged lines; the store has them, and gives them again"
    assert line in capsys.readouterr().err


def test_a_store_that_is_away_leaves_what_was_recorded(store: Storage) -> None:
    keep(store, sealed_line(ENTRY))
    entries, warning = history(store, "s", AWAY)
    assert entries == [MOVE] and warning is not None
    assert warning.startswith("tracking.uri: ") and warning.endswith("it was last told something from here")


def test_moves_that_wait_come_last_and_say_so(store: Storage) -> None:
    keep(store, sealed_line(ENTRY))
    recorder = Recorder(store.sweep("s").records, AWAY, "s", lambda line: None)
    recorder.tags("s-0000", {"promoted": "true"})
    recorder.point("cpn-s", "champion", "2", "worse", Decision(kind=ROLLED_BACK))
    recorder.close(0)
    entries, _ = history(store, "s", AWAY)
    assert entries[0] == MOVE and len(entries) == 2
    move = entries[1]
    assert (move.before, move.to, move.why, move.kind) == (None, "2", "worse", ROLLED_BACK)
    assert move.waiting is True


def test_a_model_that_the_store_lost_is_said(store: Storage, new_store: Callable[[str], str]) -> None:
    uri = new_store("lost")
    assert history(store, "s", uri) == ([], None)
    keep(store, sealed_line(ENTRY))
    entries, warning = history(store, "s", uri)
    assert entries == [MOVE] and warning is not None
    assert warning.startswith("registered model cpn-s is gone from the store; the sweep's own command makes it again;")


def test_an_entry_names_what_it_overrides() -> None:
    told = {"uid": "a-0001", "overridden": ["confirm"], "gates": {"confirm": "not run again"}}
    lines = in_words(HistoryEntry.model_validate({**ENTRY, **told})).splitlines()
    assert lines[0].endswith("cpn-s  version 1: promotion of a-0001 by ann: w")
    assert lines[1] == "    overrides confirm: not run again"
