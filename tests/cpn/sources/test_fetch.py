"""Downloads from a server on this machine that breaks off, lies and changes its mind."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpn.core.errors import InputError, WorkError
from cpn.sources import fetch as fetch_module
from cpn.sources.fetch import TRIES, check_digest, fetch
from tests.cpn.sources.file_server import DATA, Server, md5, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        state.files["thing.bin"] = DATA
        yield state


def get(server: Server, to: Path, file: str = "thing.bin") -> Path:
    """Download a file to the folder `to` without pauses."""
    fetch(f"{server.url}/{file}", to / file, lambda done, total: None, pause_s=0.0)
    return to / file


def test_a_file_is_whole_and_nothing_lies_beside_it(server: Server, tmp_path: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    fetch(f"{server.url}/thing.bin", tmp_path / "a", lambda done, total: reports.append((done, total)))
    assert (tmp_path / "a").read_bytes() == DATA and [path.name for path in tmp_path.iterdir()] == ["a"]
    assert reports == sorted(reports) and reports[-1] == (len(DATA), len(DATA))


def test_it_goes_on_where_the_server_broke_off(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [1_500_000, 0, 2_000_000]
    assert get(server, tmp_path).read_bytes() == DATA
    starts = [int(wanted.removeprefix("bytes=").rstrip("-")) for wanted in server.asked if wanted]
    assert len(server.asked) == 4 and starts == sorted(starts) and starts[0] > 1_000_000


@pytest.mark.parametrize("change", ["another file", "no ranges"])
def test_a_part_of_another_file_is_not_gone_on_with(server: Server, tmp_path: Path, change: str) -> None:
    server.files["thing.bin"] = DATA[::-1]
    (tmp_path / "thing.bin.part").write_bytes(DATA[:3_000_000])
    (tmp_path / "thing.bin.part.json").write_text('{"validator": "\\"one\\""}')
    server.tag, server.ranges = ('"two"', True) if change == "another file" else ('"one"', False)
    assert get(server, tmp_path).read_bytes() == DATA[::-1]


def test_a_weak_tag_names_no_file_to_go_on_with(server: Server, tmp_path: Path) -> None:
    server.tag, server.breaks_after = 'W/"one"', [1_500_000]
    assert get(server, tmp_path).read_bytes() == DATA and server.asked == [None, None]


def test_a_busy_server_is_asked_again_and_a_dead_one_given_up(server: Server, tmp_path: Path) -> None:
    server.statuses = [503] * (TRIES - 1)
    get(server, tmp_path).unlink()
    server.statuses = [503] * TRIES
    with pytest.raises(
        WorkError, match=r"cannot be downloaded \(status 503; 6 tries in a row brought nothing more\): try again later"
    ):
        get(server, tmp_path)


def test_each_further_try_is_said_before_it_is_waited_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    waited: list[float] = []
    monkeypatch.setattr(fetch_module.time, "sleep", lambda seconds: waited.append((seconds, len(said))))
    server.breaks_after, server.statuses = [1_500_000], [503, 503]
    address = f"{server.url}/thing.bin"
    fetch(address, tmp_path / "a", lambda done, total: None, say=said.append)
    assert waited == [(2.0, 1), (4.0, 2), (2.0, 3)]  # no wait goes by in silence
    assert said[0] == f"{address}: status 503; 0 bytes are here, trying again in 2 s (try 2 of 6 without a new byte)"
    assert "trying again in 4 s (try 3 of 6" in said[1] and "1,500,000 bytes are here, trying again in 2 s" in said[2]


def test_a_connection_that_brings_bytes_is_not_counted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "CHUNK", 100_000)
    server.breaks_after = [600_000] * (TRIES + 1)
    assert get(server, tmp_path).read_bytes() == DATA and len(server.asked) == TRIES + 2


@pytest.mark.parametrize("size", [1, 700, 65_536, 999_999])
def test_breaks_with_some_progress_end_in_a_whole_file(server: Server, tmp_path: Path, size: int) -> None:
    breaks = 4 * TRIES
    server.breaks_after = [size] * breaks
    assert get(server, tmp_path).read_bytes() == DATA
    starts = [int(wanted.removeprefix("bytes=").rstrip("-")) for wanted in server.asked if wanted]
    assert starts == [min(len(DATA), size * at) for at in range(1, len(starts) + 1)]
    assert len(starts) == min(breaks, len(DATA) // size)


def test_a_server_that_begins_anew_each_time_is_given_up(server: Server, tmp_path: Path) -> None:
    server.ranges, server.breaks_after = False, [1000, 2000] * TRIES * 3
    with pytest.raises(WorkError, match="6 tries in a row brought nothing more.: 1,000 bytes are kept"):
        get(server, tmp_path)
    assert len(server.asked) == TRIES + 1


def test_a_server_that_promises_more_than_it_has_leaves_no_file(server: Server, tmp_path: Path) -> None:
    server.promises, server.ranges = 1000, False
    with pytest.raises(WorkError):
        get(server, tmp_path)
    assert not (tmp_path / "thing.bin").exists()


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Log in", b"\n <HTML><body>quota exceeded"])
def test_a_web_page_in_place_of_the_file_is_refused(server: Server, tmp_path: Path, page: bytes) -> None:
    server.files["thing.bin"] = page
    with pytest.raises(InputError, match="a web page in place of the file"):
        get(server, tmp_path)
    assert not (tmp_path / "thing.bin").exists()


def test_what_is_not_there_is_one_line(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not there \(status 404\): name another server by --mirror") as refused:
        get(server, tmp_path, "other.bin")
    assert "\n" not in str(refused.value) and len(server.asked) == 1


def test_a_disk_that_cannot_be_written_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "thing.bin.part").mkdir()
    with pytest.raises(IsADirectoryError):
        get(server, tmp_path)
    assert len(server.asked) == 1


def test_a_digest_is_compared_as_far_as_it_is_known(tmp_path: Path) -> None:
    path, sha = tmp_path / "a", hashlib.sha256(DATA).hexdigest()
    path.write_bytes(DATA)
    assert check_digest(path, None, None) is None
    assert check_digest(path, md5(DATA), sha[:8]) is None
    assert check_digest(path, "0" * 32, None) == f"its MD5 is {md5(DATA)}, published is {'0' * 32}"
    assert check_digest(path, None, "00000000") == f"its SHA256 is {sha}, published is 00000000..."
