import errno
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cpn.core.errors import InputError
from cpn.core.files import (
    DamagedFile,
    check_file,
    check_place,
    digest,
    file_digest,
    read_json,
    whole_file,
    whole_folder,
    write_bytes,
    write_json,
)

WRITER = """
import sys
from pathlib import Path
from cpn.core.files import whole_file, whole_folder

kind, path = sys.argv[1], Path(sys.argv[2])
with whole_file(path) if kind == "file" else whole_folder(path) as target:
    if kind == "file":
        target.write(b"new, but only in part")
        target.flush()
    else:
        (target / "a").write_bytes(b"new")
    print("in the middle", flush=True)
    sys.stdin.read()
"""


def kill_in_the_middle(kind: str, path: Path) -> None:
    """Start a process that writes to `path`, and kill -9 it when it has written a part."""
    command = [sys.executable, "-c", WRITER, kind, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in the middle\n"
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_a_written_file_is_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.bin"
    write_bytes(path, b"first")
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second" and [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_an_exception_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for before in (None, b"old"):
        if before is not None:
            path.write_bytes(before)
        with pytest.raises(RuntimeError, match="in the middle"):
            with whole_file(path) as file:
                file.write(b"half")
                raise RuntimeError("in the middle")
        assert [p.name for p in tmp_path.iterdir()] == ([] if before is None else ["a.bin"])
    assert path.read_bytes() == b"old"


def test_nobody_sees_a_file_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with whole_file(path) as file:
        file.write(b"new")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_kill_9_in_the_middle_leaves_the_old_one(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "result"
    kill_in_the_middle(kind, path)
    assert not path.exists()
    if kind == "file":
        path.write_bytes(b"old")
    else:
        path.mkdir()
        (path / "a").write_bytes(b"old")
    kill_in_the_middle(kind, path)
    assert (path if kind == "file" else path / "a").read_bytes() == b"old"
    # What the killed process left does not match any name that a reader looks for.
    assert all(p.name.startswith(".") for p in tmp_path.iterdir() if p != path)


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result"
    with pytest.raises(RuntimeError, match="in the middle"):
        with whole_folder(path) as temporary:
            (temporary / "a").write_bytes(b"half")
            raise RuntimeError("in the middle")
    assert list(path.parent.iterdir()) == []
    with whole_folder(path) as temporary:
        (temporary / "a").write_bytes(b"old")
        assert not path.exists()
    with pytest.raises(RuntimeError, match="in the middle"):
        with whole_folder(path) as temporary:
            raise RuntimeError("in the middle")
    assert (path / "a").read_bytes() == b"old"
    with whole_folder(path) as temporary:
        (temporary / "b").write_bytes(b"new")
    assert [p.name for p in path.iterdir()] == ["b"] and list(path.parent.iterdir()) == [path]


def test_a_link_to_a_folder_stays(tmp_path: Path) -> None:
    """Who has little room lays a folder on another disk."""
    (disk := tmp_path / "disk" / "large").mkdir(parents=True)
    (disk / "old").touch()
    (path := tmp_path / "result").symlink_to(disk)
    with whole_folder(path) as temporary:
        (temporary / "new").touch()
    assert path.is_symlink() and [p.name for p in disk.iterdir()] == ["new"]
    assert sorted(tmp_path.iterdir()) == [disk.parent, path] and list(disk.parent.iterdir()) == [disk]


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"b": [1, 0.1, None, True], "a": {"ä": 1e-300}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["a", "b", "digest"]


@pytest.mark.parametrize(
    ("data", "why"), [(b"", "it is empty"), (bytes(11), "it is no text"), (b"\xff{", "it is no text")]
)
def test_json_of_other_bytes_is_damaged(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DamagedFile) as damaged:
        read_json(tmp_path / "a.json", "make it again")
    assert str(damaged.value) == f"{tmp_path / 'a.json'}: is damaged ({why}); make it again"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(tmp_path: Path, number: float) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"miou": number})
    assert read_json(tmp_path / "a.json") == 1
    with pytest.raises(ValueError):
        digest({"lr": number})


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    value = {"a": 1, "b": {"c": [1, 2], "d": None}}
    assert digest(value) == digest({"b": {"d": None, "c": [1, 2]}, "a": 1})
    others = [{"a": 1, "b": {"c": [2, 1], "d": None}}, {"a": 1.5, "b": value["b"]}, {"a": "1", "b": value["b"]}, {}]
    assert len({digest(v) for v in [value, *others]}) == 5
    # It names runs and stages on disk, so it must be the same in every version: sha256 of '{"a":[1,0.1,null]}'.
    assert digest({"a": [1, 0.1, None]}) == "59cf0eef00952c18"


def test_the_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_place_is_looked_at_and_nothing_is_left_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_place(tmp_path / "new" / "deeper", "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/x")):
        with pytest.raises(InputError, match="^--out: .* cannot be written .*; choose another folder$"):
            check_place(place, "--out")


def test_a_file_is_refused_before_the_work_that_fills_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for good in ("file", "new", "deep/new"):
        check_file(tmp_path / good, "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for bad, words in (
        ("", "is a folder; give the name of a file"),
        ("file/below", "cannot be written"),
        ("x" * 300, "is too long for the name of a file"),
    ):
        with pytest.raises(InputError, match=f"^--out: .*{words}"):
            check_file(tmp_path / bad, "--out")


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as full, whole_file(tmp_path / "x"):
        raise OSError(28, "No space left on device")
    assert full.value.filename == str(tmp_path / "x")
    with pytest.raises(ConnectionResetError) as reset, whole_file(tmp_path / "x"):
        raise ConnectionResetError(104, "Connection reset by peer")
    assert reset.value.filename is None, "what else goes wrong while a file is being written is not its fault"


def test_a_disk_that_syncs_no_folders_is_no_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> Callable[[int], None]:
        def synced(file: int) -> None:
            if stat.S_ISDIR(os.fstat(file).st_mode):
                raise OSError(number, os.strerror(number))

        return synced

    monkeypatch.setattr("os.fsync", refuse(errno.EINVAL))
    write_bytes(tmp_path / "a", b"whole")
    monkeypatch.setattr("os.fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        write_bytes(tmp_path / "b", b"whole")
