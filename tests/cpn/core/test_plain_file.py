import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from cpn.core.errors import InputError
from cpn.core.plain_file import read_input, read_plain, refuse_irregular


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (os.mkfifo, "is a pipe"),
    "a link to a pipe": (lambda p: (os.mkfifo(p.with_name("pipe")), p.symlink_to(p.with_name("pipe"))), "is a pipe"),
    "endless zeros": (lambda p: p.symlink_to("/dev/zero"), "is a device"),
    "nothing": (lambda p: p.symlink_to("/dev/null"), "is a device"),
    "a socket": (listening, "is a socket"),
}


@pytest.mark.parametrize(("make", "message"), KINDS.values(), ids=list(KINDS))
def test_what_is_no_regular_file(
    tmp_path: Path, make: Callable[[Path], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make(Path("x").absolute() if message != "is a socket" else Path("x"))
    with pytest.raises(InputError, match=message):
        read_plain(Path("x"), 10)
    with pytest.raises(InputError, match=message):
        refuse_irregular(Path("x"))


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    assert read_plain(path, 10) == b"0123456789"
    with pytest.raises(InputError, match="x is larger than 0 kB, the most that is read here"):
        read_plain(path, 9)
    with open(path, "wb") as file:
        file.truncate(10**12)
    with pytest.raises(InputError, match="x is larger than 5 MB"):
        read_plain(path, 5_000_000)


def test_what_the_system_refuses_stays_its_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "gone", 10)
    with pytest.raises(IsADirectoryError) as error:
        read_plain(tmp_path, 10)
    assert error.value.filename == str(tmp_path)
    refuse_irregular(tmp_path / "gone")
    refuse_irregular(tmp_path)


UNREAD: dict[str, tuple[Callable[[Path], object], str]] = {
    **KINDS,
    "a folder": (Path.mkdir, "x is a folder and cannot be read: put a file there"),
    "a link to a folder": (lambda p: p.symlink_to("."), "x is a folder and cannot be read: put a file there"),
    "nothing at all": (lambda p: None, "x cannot be read .No such file or directory.: make it readable"),
    "a link to nowhere": (lambda p: p.symlink_to("gone"), "x is a link to gone, which is not there: lay the link"),
}


@pytest.mark.parametrize(("make", "message"), UNREAD.values(), ids=list(UNREAD))
def test_an_input_that_cannot_be_read_is_one_line(
    tmp_path: Path, make: Callable[[Path], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("x").absolute() if message != "is a socket" else Path("x"))
    with pytest.raises(InputError, match=message):
        read_input(Path("x"), 10)
