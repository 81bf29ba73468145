"""Downloads from a server on this machine that breaks off, lies and changes its mind."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from platform import sweep

import pytest

from cpn import download, prepare
from cpn.core.errors import InputError, WorkError
from cpn.sources.download_sources import SOURCES, Archive, Source
from cpn.sources.fetch import TRIES
from tests.conftest import CHECKOUT
from tests.cpn.small_voc import EXTRA, write_small_voc

DATA = bytes(range(256)) * 20_000
"""5 MB that are no archive."""


@dataclass
class Server:
    """What the server has, how it behaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    breaks_after: list[int] = field(default_factory=list)
    """Bytes of each of the next answers after which it hangs up."""
    statuses: list[int] = field(default_factory=list)
    """Status of each of the next answers, which are empty."""
    promises: int = 0
    """Bytes by which the promised length differs from what is sent."""
    ranges: bool = True
    """Whether it can send a rest."""
    tag: str = '"one"'
    asked: list[str | None] = field(default_factory=list)
    """The Range of every request."""
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            name = self.path.rsplit("/", 1)[-1]
            if state.statuses or name not in state.files:
                self.send_response(state.statuses.pop(0) if state.statuses else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data, start = state.files[name], 0
            if wanted and state.ranges and self.headers.get("If-Range") == state.tag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("ETag", state.tag)
            self.send_header("Content-Length", str(len(data) - start + state.promises))
            self.end_headers()
            cut = state.breaks_after.pop(0) if state.breaks_after else len(data)
            self.wfile.write(data[start : start + cut])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{running.server_port}"
    yield state
    running.shutdown()
    thread.join()
    running.server_close()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def tar_of(files: dict[str, bytes], kind: str = "w:gz", links: dict[str, str] | None = None) -> bytes:
    """A tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=kind) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    """A zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


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


def test_it_goes_on_where_the_server_broke_off(server: Server, offer: Callable[..., None], tmp_path: Path) -> None:
    offer(DATA)
    server.breaks_after = [1_500_000, 0, 2_000_000]
    assert get(server, tmp_path) == 0 and (tmp_path / "thing.bin").read_bytes() == DATA
    starts = [int(wanted.removeprefix("bytes=").rstrip("-")) for wanted in server.asked if wanted]
    assert len(server.asked) == 4 and starts == sorted(starts) and starts[0] > 1_000_000


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


@pytest.mark.parametrize("change", ["another file", "no ranges"])
def test_a_part_of_another_file_is_not_gone_on_with(
    server: Server, offer: Callable[..., None], tmp_path: Path, change: str
) -> None:
    offer(DATA[::-1])
    (tmp_path / "thing.bin.part").write_bytes(DATA[:3_000_000])
    (tmp_path / "thing.bin.part.json").write_text('{"validator": "\\"one\\""}')
    server.tag, server.ranges = ('"two"', True) if change == "another file" else ('"one"', False)
    assert get(server, tmp_path) == 0 and (tmp_path / "thing.bin").read_bytes() == DATA[::-1]


def test_a_busy_server_is_asked_again_and_a_dead_one_given_up(
    server: Server, offer: Callable[..., None], tmp_path: Path
) -> None:
    offer(DATA)
    server.statuses = [503] * (TRIES - 1)
    assert get(server, tmp_path) == 0
    (tmp_path / "thing.bin").unlink()
    server.statuses = [503] * TRIES
    with pytest.raises(WorkError, match=r"cannot be downloaded \(status 503; 6 tries\): try again later, or name"):
        get(server, tmp_path)


@pytest.mark.parametrize(
    ("promises", "expected"),
    [(1000, WorkError), (-1000, InputError)],
    ids=["promises more than it has", "promises less than it has"],
)
def test_a_server_that_lies_about_the_size_leaves_no_file(
    server: Server, offer: Callable[..., None], tmp_path: Path, promises: int, expected: type[Exception]
) -> None:
    """Less than there is looks whole: the digest tells."""
    offer(DATA)
    server.promises, server.ranges = promises, False
    with pytest.raises(expected):
        get(server, tmp_path)
    assert not (tmp_path / "thing.bin").exists()


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Log in", b"\n <HTML><body>quota exceeded"])
def test_a_web_page_in_place_of_the_file_is_refused(
    server: Server, offer: Callable[..., None], tmp_path: Path, page: bytes
) -> None:
    offer(DATA)
    server.files["thing.bin"] = page
    with pytest.raises(InputError, match="a web page in place of the file"):
        get(server, tmp_path)
    assert not (tmp_path / "thing.bin").exists()


def test_a_file_with_another_digest_is_put_aside(server: Server, offer: Callable[..., None], tmp_path: Path) -> None:
    offer(DATA, digest_from="its maker")
    (tmp_path / "thing.bin").parent.mkdir(exist_ok=True)
    server.files["thing.bin"] = DATA[:-1] + b"?"
    with pytest.raises(InputError, match=f"its MD5 is .*published is {md5(DATA)}.*put aside as thing.bin.wrong"):
        get(server, tmp_path)
    server.files["thing.bin"] = DATA
    assert get(server, tmp_path) == 0 and (tmp_path / "thing.bin").read_bytes() == DATA


def test_what_is_not_there_is_one_line(server: Server, offer: Callable[..., None], tmp_path: Path) -> None:
    offer(DATA)
    del server.files["thing.bin"]
    with pytest.raises(InputError, match=r"is not there \(status 404\): name another server by --mirror"):
        get(server, tmp_path)


def test_what_has_no_published_digest_is_said(
    server: Server, offer: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(DATA, md5=None)
    assert get(server, tmp_path) == 0
    said = capsys.readouterr().out
    assert "not checked)" in said and "note: thing.bin was not checked" in said


@pytest.mark.parametrize(("kind", "make"), [("tar", tar_of), ("zip", zip_of)])
def test_an_archive_is_unpacked_whole_or_not_at_all(
    server: Server,
    offer: Callable[..., None],
    tmp_path: Path,
    kind: str,
    make: Callable[[dict[str, bytes]], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {"top/VOC/a.txt": b"a", "top/VOC/b/c.txt": b"c", "top/else.txt": b"e"}
    offer(make(files), "thing.pack", unpack=kind, holds="top/VOC", to="data/VOC")

    def kill(what: str, done: int, total: int) -> None:
        if what.startswith("unpacking"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(download, "shown_progress", lambda: _as_context(kill))
        get(server, tmp_path)
    assert not (tmp_path / "data/VOC").exists() and (tmp_path / "thing.pack").exists()
    assert get(server, tmp_path, "--keep-archives") == 0
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found.pop("thing.pack") and found == {"data/VOC/a.txt": b"a", "data/VOC/b/c.txt": b"c"}


@pytest.mark.parametrize(
    "archive",
    [
        tar_of({"../out.txt": b"x", "top/a": b"a"}),
        tar_of({"/tmp/out.txt": b"x", "top/a": b"a"}, links={"top/l": "/etc/passwd"}),
        tar_of({"top/a": b"a"}, links={"top/l": "../../etc"}),
        tar_of({"top/a": bytes(100_000)})[:-40],
        b"not an archive",
        tar_of({"other/a": b"a"}),
    ],
    ids=["..", "absolute", "link", "cut", "none", "another"],
)
def test_an_archive_that_reaches_out_or_is_damaged_is_refused(
    server: Server, offer: Callable[..., None], tmp_path: Path, archive: bytes
) -> None:
    offer(archive, "thing.tgz", unpack="tar", holds="top", to="in/top")
    with pytest.raises(InputError, match="cannot be unpacked|holds no folder top"):
        get(server, tmp_path)
    assert not (tmp_path / "in/top").exists() and not (tmp_path / "out.txt").exists()
    assert not (tmp_path / "in/out.txt").exists()


def test_a_zip_that_reaches_out_is_refused(server: Server, offer: Callable[..., None], tmp_path: Path) -> None:
    offer(zip_of({"../out.txt": b"x"}), "thing.zip", unpack="zip", holds="top", to="in/top")
    with pytest.raises(InputError, match="outside of its folder"):
        get(server, tmp_path)


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


def test_every_digest_names_its_source_and_every_source_its_terms() -> None:
    for source in SOURCES.values():
        assert source.licence and (source.archives or (source.page and source.by_hand))
        for archive in source.archives:
            assert bool(archive.digest_from) == (archive.md5 is not None or archive.sha256_start is not None)
            assert archive.address.endswith(f"/{archive.file}")


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
