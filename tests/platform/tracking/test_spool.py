"""The spool: nothing lost by kill -9, order kept, what waits is known."""

import json
import os
import threading
import time
from pathlib import Path
from platform.tracking import spool
from platform.tracking.spool import Event, Spool, waiting
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
    assert [event["n"] for event in waiting(tmp_path, None)] == [0, 1, 2, 7], "all of them"
    write_json(tmp_path / "position.json", {"a": behind - 1})
    assert [event["n"] for event in waiting(tmp_path, "a")] == [0, 1, 2, 7], "a position that fits no line"
    write_json(tmp_path / "position.json", {"a": behind})
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    records.close()


def test_after_a_clock_was_put_back_ids_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
