"""The spool: nothing lost by kill -9, order kept, refusals set aside, a dead store waited for."""

import json
import os
import threading
import time
from pathlib import Path
from platform.tracking import spool
from platform.tracking.replay import Replay
from platform.tracking.spool import Event, Refused, Spool, StoreDown, waiting
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpn.core.errors import WorkError
from cpn.core.files import read_json, write_json


def numbers(found: Spool, offset: int = 0) -> list[Any]:
    return [event["n"] for event, _ in found.read(offset) if event is not None]


def filled(folder: Path, count: int) -> Spool:
    made = Spool(folder, store="a")
    for n in range(count):
        made.append({"n": n})
    return made


@settings(max_examples=30)
@given(cut=st.integers(0, 400))
def test_a_cut_anywhere_loses_only_what_was_not_whole(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("spool")
    filled(folder, 10).close()
    data = (folder / "events.jsonl").read_bytes()[:cut]
    (folder / "events.jsonl").write_bytes(data)
    whole = data.count(b"\n")
    again = Spool(folder, store="a")
    assert numbers(again) == list(range(whole))
    again.append({"n": "next"})
    assert numbers(again) == [*range(whole), "next"]
    again.close()


def test_pending_counts_from_the_saved_position_of_this_store(tmp_path: Path) -> None:
    first = filled(tmp_path, 3)
    (_, behind), *_ = first.read()
    first.advance(behind)
    first.save()
    first.close()
    second = Spool(tmp_path, store="a")
    assert (second.pending, numbers(second, second.offset)) == (2, [1, 2])
    second.close()
    other = Spool(tmp_path, store="b")
    assert other.pending == 3
    other.close()


def test_a_position_that_does_not_fit_the_file_means_the_start(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    for wrong in (5, 10_000, -1):
        (tmp_path / "position.json").write_text(json.dumps({"a": wrong}))
        again = Spool(tmp_path, store="a")
        assert (again.offset, again.pending) == (0, 3)
        again.close()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    first = filled(tmp_path, 1)
    with pytest.raises(WorkError, match="another process writes these records"):
        Spool(tmp_path, store="a")
    first.close()
    Spool(tmp_path, store="a").close()


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = filled(tmp_path, 1)
    real = os.write

    def half(file: int, line: bytes) -> int:
        return real(file, line[: len(line) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(WorkError, match="cannot be kept"):
            one.append({"n": 1})
    one.append({"n": 2})
    assert numbers(one) == [0, 2]
    one.close()


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


def test_a_refused_record_that_cannot_be_set_aside_stays_in_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_what_is_worth_another_attempt_comes_again_at_the_next_start(tmp_path: Path) -> None:
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


def test_what_is_waiting_is_seen_without_a_change(tmp_path: Path) -> None:
    assert waiting(tmp_path / "nowhere", "a") == [] and not (tmp_path / "nowhere").exists()
    records = filled(tmp_path, 3)
    (_, behind), *_ = records.read()
    records.advance(behind)
    records.save()
    records.set_aside({"id": "x", "n": 7}, "no space", again=True)
    records.set_aside({"id": "y", "n": 8}, "no such thing", again=False)
    with open(tmp_path / "events.jsonl", "ab") as file:
        file.write(b'{"n": 9')  # torn
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert [event["n"] for event in waiting(tmp_path, "a")] == [1, 2, 7]
    assert [event["n"] for event in waiting(tmp_path, "b")] == [0, 1, 2, 7]
    write_json(tmp_path / "position.json", {"a": behind - 1})
    assert [event["n"] for event in waiting(tmp_path, "a")] == [0, 1, 2, 7], "a position that fits no line"
    write_json(tmp_path / "position.json", {"a": behind})
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    records.close()


def test_after_a_clock_that_was_put_back_ids_sort_in_the_order_of_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process, and in the next one: the promotion history in the store is sorted by them."""
    now = [2_000_000_000_000_000_000]
    monkeypatch.setattr(spool, "time", SimpleNamespace(time_ns=lambda: now[0], monotonic=time.monotonic))
    ids = []
    for _ in range(2):
        records = Spool(tmp_path, store="a")
        for _ in range(2):
            ids.append(records.append({"n": len(ids)})["id"])
            now[0] -= 86_400_000_000_000
        records.close()
    assert ids == sorted(ids) and len(set(ids)) == 4 and numbers(Spool(tmp_path, store="b")) == [0, 1, 2, 3]


def test_a_disk_that_cannot_be_read_for_a_while_is_said_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"a": "x"}', "\0\0\0\0"])
def test_a_damaged_position_means_the_start(tmp_path: Path, damage: str) -> None:
    filled(tmp_path, 3).close()
    (tmp_path / "position.json").write_text(damage)
    again = Spool(tmp_path, store="a")
    assert (again.offset, again.pending, len(waiting(tmp_path, "a"))) == (0, 3, 3)
    again.save()
    again.close()
    assert read_json(tmp_path / "position.json") == {"a": 0}


@pytest.mark.parametrize("size", [0, 1, spool.BLOCK - 1, spool.BLOCK, spool.BLOCK + 1, 3 * spool.BLOCK])
def test_a_torn_line_of_any_length_goes(tmp_path: Path, size: int) -> None:
    filled(tmp_path, 2).close()
    with open(tmp_path / "events.jsonl", "ab") as file:
        file.write(b"x" * size)
    again = Spool(tmp_path, store="a")
    assert numbers(again) == [0, 1] and again.size == (tmp_path / "events.jsonl").stat().st_size
    again.close()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/events.jsonl").write_bytes(b"x" * size)
    alone = Spool(tmp_path / "torn", store="a")
    assert alone.size == 0
    alone.close()


def test_what_is_refused_again_at_once_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the thread took an event that was appended anew before the list of refused ones was."""
    records = filled(tmp_path, 1)
    (event, _) = next(records.read())
    assert event is not None
    records.set_aside(event, "no space", again=True)
    real, threads = records.append, list[threading.Thread]()

    def append(again: Event) -> Event:
        found = real(again)
        threads.append(threading.Thread(target=records.set_aside, args=(again, "no space", True)))
        threads[0].start()
        threads[0].join(0.2)
        return found

    monkeypatch.setattr(records, "append", append)
    assert records.retry_refused()
    threads[0].join()
    assert records.refused == 1
    records.close()
    assert (tmp_path / "refused.jsonl").read_text().count("\n") == 1
