"""The command that gets published files: what it says, checks, unpacks and takes up again."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from platform import sweep

import pytest

from cpn import download, prepare
from cpn.core.errors import InputError
from cpn.sources.download_sources import SOURCES, Archive, Source
from tests.conftest import CHECKOUT
from tests.cpn.small_voc import EXTRA, write_small_voc
from tests.cpn.sources.file_server import DATA, Server, md5, serving, tar_of


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


@pytest.fixture
def offer(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes `thing` a source of one archive that the server has."""

    def make(data: bytes, file: str = "thing.bin", **archive: object) -> None:
        server.files[file] = data
        one = Archive(file, f"http://127.0.0.1:9/{file}", len(data), **{"to": file, "md5": md5(data)} | archive)  # type: ignore[arg-type]
        source = Source("a thing", "free", (one,), next=("echo {to}",))
        monkeypatch.setitem(SOURCES, "thing", source)

    return make


def get(server: Server, to: Path, *more: str) -> int:
    """The command."""
    return download.main(["thing", "--to", str(to), "--mirror", server.url, *more], pause_s=0.0)


def test_a_file_is_told_downloaded_checked_and_not_downloaded_again(
    server: Server, offer: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(DATA, digest_from="its maker")
    assert get(server, tmp_path, "--show") == 0 and server.asked == []
    said = capsys.readouterr().out
    assert "terms: free" in said and "5 MB; checked against the digest of its maker" in said
    assert get(server, tmp_path) == 0 and (tmp_path / "thing.bin").read_bytes() == DATA
    assert f"next: echo {tmp_path}" in capsys.readouterr().out
    assert get(server, tmp_path) == 0 and len(server.asked) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thing.bin"]


def test_a_killed_download_goes_on_with_the_next_command(
    server: Server, offer: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(DATA)

    def kill(what: str, done: int, total: int) -> None:
        if done >= 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(download, "shown_progress", lambda: _as_context(kill))
        get(server, tmp_path)
    assert not (tmp_path / "thing.bin").exists()
    assert get(server, tmp_path) == 0 and (tmp_path / "thing.bin").read_bytes() == DATA
    assert server.asked[0] is None and (server.asked[1] or "").startswith("bytes=")


def test_a_file_shorter_than_its_server_has_it_is_no_file(
    server: Server, offer: Callable[..., None], tmp_path: Path
) -> None:
    """A promise of less than there is looks whole: the digest tells."""
    offer(DATA)
    server.promises, server.ranges = -1000, False
    with pytest.raises(InputError, match="its MD5 is"):
        get(server, tmp_path)
    assert not (tmp_path / "thing.bin").exists()


def test_a_killed_unpacking_goes_on_and_archives_stay_if_asked(
    server: Server, offer: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tar_of({"top/VOC/a.txt": b"a"}), "thing.pack", unpack="tar", holds="top/VOC", to="data/VOC")

    def kill(what: str, done: int, total: int) -> None:
        if what.startswith("unpacking"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(download, "shown_progress", lambda: _as_context(kill))
        get(server, tmp_path)
    assert not (tmp_path / "data/VOC").exists() and (tmp_path / "thing.pack").exists()
    assert get(server, tmp_path, "--keep-archives") == 0 and len(server.asked) == 1
    assert (tmp_path / "data/VOC/a.txt").read_bytes() == b"a" and (tmp_path / "thing.pack").exists()
    shutil.rmtree(tmp_path / "data")
    assert get(server, tmp_path) == 0 and [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_file_with_another_digest_is_put_aside(server: Server, offer: Callable[..., None], tmp_path: Path) -> None:
    offer(DATA, digest_from="its maker")
    (tmp_path / "thing.bin").parent.mkdir(exist_ok=True)
    server.files["thing.bin"] = DATA[:-1] + b"?"
    with pytest.raises(InputError, match=f"its MD5 is .*published is {md5(DATA)}.*put aside as thing.bin.wrong"):
        get(server, tmp_path)
    server.files["thing.bin"] = DATA
    assert get(server, tmp_path) == 0 and (tmp_path / "thing.bin").read_bytes() == DATA


def test_what_has_no_published_digest_is_said(
    server: Server, offer: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(DATA, md5=None)
    assert get(server, tmp_path) == 0
    said = capsys.readouterr().out
    assert "not checked)" in said and "note: thing.bin was not checked" in said


def test_room_is_looked_at_before_anything_is_downloaded(
    server: Server, offer: Callable[..., None], tmp_path: Path
) -> None:
    offer(DATA)
    (archive,) = SOURCES["thing"].archives
    huge = replace(SOURCES["thing"], archives=(replace(archive, size=10**18),))
    SOURCES["thing"] = huge
    with pytest.raises(InputError, match="MB are needed there"):
        get(server, tmp_path)
    assert server.asked == []


def test_what_has_no_address_names_its_page_and_is_taken_when_it_lies_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download.main(["resnet38", "--to", str(tmp_path)]) == 1
    assert "open https://github.com/itijyou/ademxapp" in capsys.readouterr().out
    (tmp_path / SOURCES["resnet38"].by_hand).write_bytes(b"put here by a person")
    assert download.main(["resnet38", "--to", str(tmp_path)]) == 0
    assert "next: python -m cpn.weights" in capsys.readouterr().out


def test_sbd_alone_is_refused_where_voc_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sbd goes into the folder of voc2012"):
        download.main(["sbd", "--to", str(tmp_path)])


def test_three_commands_from_an_empty_folder_to_a_priced_plan(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """VOC and SBD in small, as their archives unpack: trainaug is made of both, and the plan counts what is packed."""
    monkeypatch.chdir(tmp_path)
    write_small_voc(tmp_path / "made", sbd=False)
    voc = {f"VOCdevkit/VOC2012/{path.relative_to('made')}": path.read_bytes() for path in files_in(Path("made"))}
    sbd = {f"benchmark_RELEASE/dataset/cls/{name}.mat": b"never read" for name in (*EXTRA, "2007_000033")}
    server.files = {"VOCtrainval_11-May-2012.tar": tar_of(voc, "w"), "benchmark.tgz": tar_of(sbd)}
    for name in ("voc2012", "sbd"):
        (archive,) = SOURCES[name].archives
        small = replace(archive, md5=md5(server.files[archive.file]), size=len(server.files[archive.file]))
        monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], archives=(small,)))

    assert download.main(["sbd", "voc2012", "--to", "data", "--mirror", server.url]) == 0
    assert "next: python -m cpn.prepare data/VOC2012" in capsys.readouterr().out
    prepare.main(["data/VOC2012"])
    space = CHECKOUT / "search_spaces" / "patch.yaml"
    sweep.main([str(space), "--set", "data.root=data/VOC2012", "--dry-run"])
    said = " ".join(capsys.readouterr().out.split())
    assert "priced for 5 images to train on, 2 scored, of 14 x 20 pixels and 21 classes" in said
    assert "nothing was started; next: python -m platform.sweep" in said


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


class _as_context:
    """A progress that is given."""

    def __init__(self, report: Callable[[str, int, int], None]) -> None:
        self.report = report

    def __enter__(self) -> Callable[[str, int, int], None]:
        return self.report

    def __exit__(self, *_: object) -> None:
        pass
