from collections.abc import Callable
from pathlib import Path

import pytest

from cpn.core.errors import InputError
from cpn.sources.unpack import unpack
from tests.cpn.sources.file_server import tar_of, zip_of

FILES = {"top/VOC/a.txt": b"a", "top/VOC/b/c.txt": b"c", "top/else.txt": b"e"}


def put(folder: Path, data: bytes) -> Path:
    """The archive as a file."""
    (folder / "thing.pack").write_bytes(data)
    return folder / "thing.pack"


@pytest.mark.parametrize(("kind", "make"), [("tar", tar_of), ("zip", zip_of)])
def test_the_folder_is_unpacked_whole_or_not_at_all(
    tmp_path: Path, kind: str, make: Callable[[dict[str, bytes]], bytes]
) -> None:
    archive, to = put(tmp_path, make(FILES)), tmp_path / "data" / "VOC"
    reports: list[tuple[int, int]] = []

    def kill(done: int, total: int) -> None:
        reports.append((done, total))
        if len(reports) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, kind, "top/VOC", to, kill)
    assert not to.exists() and all(0 < done <= total for done, total in reports)
    unpack(archive, kind, "top/VOC", to, kill)
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found.pop("thing.pack") and found == {"data/VOC/a.txt": b"a", "data/VOC/b/c.txt": b"c"}
    assert [path.name for path in to.parent.iterdir()] == ["VOC"]


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_of_any_compression_is_read(tmp_path: Path, kind: str) -> None:
    unpack(put(tmp_path, tar_of(FILES, kind)), "tar", "top", tmp_path / "out", lambda done, total: None)
    assert (tmp_path / "out/VOC/b/c.txt").read_bytes() == b"c"


@pytest.mark.parametrize(
    ("kind", "archive"),
    [
        ("tar", tar_of({"../out.txt": b"x", "top/a": b"a"})),
        ("tar", tar_of({"/tmp/out.txt": b"x", "top/a": b"a"}, links={"top/l": "/etc/passwd"})),
        ("tar", tar_of({"top/a": b"a"}, links={"top/l": "../../etc"})),
        ("tar", tar_of({"top/a": bytes(100_000)})[:-40]),
        ("tar", b"not an archive"),
        ("tar", tar_of({"other/a": b"a"})),
        ("zip", zip_of({"../out.txt": b"x", "top/a": b"a"})),
        ("zip", zip_of({"/tmp/out.txt": b"x", "top/a": b"a"})),
        ("zip", zip_of({"top/a": b"a"})[:-4]),
        ("zip", zip_of({"other/a": b"a"})),
    ],
    ids=[
        "tar ..",
        "tar absolute",
        "tar link",
        "tar cut",
        "no tar",
        "another tar",
        "zip ..",
        "zip absolute",
        "zip cut",
        "another zip",
    ],
)
def test_an_archive_that_reaches_out_or_is_damaged_is_refused(tmp_path: Path, kind: str, archive: bytes) -> None:
    path, to = put(tmp_path, archive), tmp_path / "in" / "top"
    words = "cannot be unpacked|holds no folder top: it is another archive"
    with pytest.raises(InputError, match=words) as refused:
        unpack(path, kind, "top", to, lambda done, total: None)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path] and not list(to.parent.iterdir())
