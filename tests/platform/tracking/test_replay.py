"""The thread that brings a spool to the store: order kept, refusals set aside, a dead store waited for."""

import json
import threading
from pathlib import Path
from platform.tracking import spool
from platform.tracking.replay import Replay
from platform.tracking.spool import Event, Refused, Spool, StoreDown, Unfit
from typing import Any

import pytest

from tests.platform.tracking.test_spool import filled


def test_replay_keeps_the_order_and_sets_refusals_aside(tmp_path: Path) -> None:
    taken: list[int] = []
    lines: list[str] = []

    def apply(event: Event) -> None:
        if event["n"] == 2:
            raise Refused("not this one")
        taken.append(event["n"])

    records = filled(tmp_path, 5)
    with open(tmp_path / "events.jsonl", "ab") as file:
        file.write(b"\0\0no event\n")
    records.close()
    records = Spool(tmp_path, store="a")
    replay = Replay(records, apply, lines.append)
    assert replay.flush(20) == 0
    replay.stop(5)
    assert taken == [0, 1, 3, 4]
    entries = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [entry["reason"] for entry in entries] == [
        "not this one",
        f"a line of {tmp_path}/events.jsonl, up to byte 276, is damaged",
    ]
    assert records.refused == 2 and len(lines) == 2
    records.close()
    later = Spool(tmp_path, store="a")
    assert (later.pending, later.refused) == (0, 2)
    later.close()


def test_a_refusal_that_cannot_be_set_aside_stays_in_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(event: Event) -> None:
        raise Refused("no space", again=True)

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    records, lines = filled(tmp_path, 2), list[str]()
    monkeypatch.setattr(spool.os, "fsync", full)  # before the thread starts: it takes the first record at once
    replay = Replay(records, refuse, lines.append)
    assert replay.flush(20) == 2, "neither in the store nor set aside: still there"
    assert any("refused.jsonl cannot be written" in line for line in lines)
    assert (tmp_path / "refused.jsonl").read_bytes() == b"", "no half line"
    monkeypatch.undo()
    assert replay.flush(20) == 0
    replay.stop(5)
    assert [json.loads(line)["event"]["n"] for line in (tmp_path / "refused.jsonl").read_text().splitlines()] == [0, 1]
    records.close()


def test_what_is_worth_another_attempt_comes_again(tmp_path: Path) -> None:
    def full(event: Event) -> None:
        raise Refused("no space", again=True)

    records = filled(tmp_path, 2)
    replay = Replay(records, full, lambda line: None)
    replay.flush(20)
    replay.stop(5)
    records.close()
    taken: list[int] = []
    records = Spool(tmp_path, store="a")
    assert (records.pending, records.refused) == (2, 0)
    replay = Replay(records, lambda event: taken.append(event["n"]), lambda line: None)
    assert replay.flush(20) == 0
    replay.stop(5)
    records.close()
    assert taken == [0, 1]
    assert (tmp_path / "refused.jsonl").read_text() == ""


def test_a_dead_store_is_one_warning_and_comes_back(tmp_path: Path) -> None:
    alive = threading.Event()
    taken: list[int] = []
    lines: list[str] = []

    def apply(event: Event) -> None:
        if not alive.is_set():
            raise StoreDown("nobody there")
        taken.append(event["n"])

    records = filled(tmp_path, 3)
    replay = Replay(records, apply, lines.append)
    assert [replay.flush(20) for _ in range(3)] == [3, 3, 3]
    records.append({"n": 3})
    replay.notify()
    alive.set()
    assert replay.flush(20) == 0
    replay.stop(5)
    records.close()
    assert taken == [0, 1, 2, 3]
    assert len(lines) == 1 and "nobody there" in lines[0]


def test_a_store_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    hang = threading.Event()
    records = Spool(tmp_path, store="a")
    replay = Replay(records, lambda event: void(hang.wait(60)), lambda line: None)
    for n in range(20):
        records.append({"n": n})
        replay.notify()
    assert replay.flush(0.01) == 20
    hang.set()
    assert replay.flush(20) == 0
    replay.stop(5)
    records.close()


def void(_: object) -> None:
    """For lambdas that must return None."""


def test_a_rewind_while_applying_brings_everything_again(tmp_path: Path) -> None:
    records = filled(tmp_path, 3)
    offsets = [behind for _, behind in records.read()]
    records.advance(offsets[0])
    records.advance(offsets[1])
    taken: list[int] = []

    def apply(event: Event) -> None:
        if not taken:
            records.rewind()
        taken.append(event["n"])

    replay = Replay(records, apply, lambda line: None)
    assert replay.flush(20) == 0
    replay.stop(5)
    records.close()
    assert taken == [2, 0, 1, 2]


def test_an_unreadable_disk_is_said_and_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread died of it without a word, and every later record waited for ever."""
    records, lines, taken = filled(tmp_path, 2), list[str](), list[int]()
    real, broken = Spool.read, threading.Event()
    broken.set()

    def read(found: Spool, offset: int = 0) -> Any:
        if broken.is_set():
            raise OSError(5, "Input/output error")
        return real(found, offset)

    monkeypatch.setattr(Spool, "read", read)
    replay = Replay(records, lambda event: taken.append(event["n"]), lines.append)
    assert replay.flush(20) == 2
    assert len(lines) == 1 and "cannot be read (OSError: [Errno 5] Input/output error)" in lines[0]
    broken.clear()
    assert replay.flush(20) == 0 and taken == [0, 1]
    replay.stop(5)
    records.close()


def test_an_unfit_store_is_said_after_the_first_attempt(tmp_path: Path) -> None:
    """Whoever asks first hears of it otherwise: `Recorder.check`."""
    records, lines = filled(tmp_path, 1), list[str]()

    def unfit() -> None:
        raise Unfit("another sweep's experiment")

    replay = Replay(records, lambda event: None, lines.append, begin=unfit)
    replay.reach(20)
    assert not replay.begun and lines == []
    assert replay.flush(20) == 1
    assert lines == [f"another sweep's experiment; until then records wait in {tmp_path}"]
    replay.stop(5)
    records.close()


def test_begin_comes_first_and_end_last(tmp_path: Path) -> None:
    calls: list[Any] = []
    records = filled(tmp_path, 2)
    replay = Replay(
        records, lambda event: calls.append(event["n"]), calls.append, lambda: calls.append("begin"),
        lambda: calls.append("end"),
    )  # fmt: skip
    assert replay.flush(20) == 0
    replay.stop(5)
    records.close()
    assert calls[0] == "begin" and [call for call in calls if call != "begin"] == [0, 1, "end"]


def test_where_the_store_was_never_reached_nothing_ends(tmp_path: Path) -> None:
    def away() -> None:
        raise StoreDown("nobody there")

    ended: list[str] = []
    records = filled(tmp_path, 1)
    replay = Replay(records, lambda event: None, lambda line: None, begin=away, end=lambda: ended.append("end"))
    assert replay.flush(20) == 1
    replay.stop(5)
    records.close()
    assert ended == [] and Spool(tmp_path, store="a").pending == 1
