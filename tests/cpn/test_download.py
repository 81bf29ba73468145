"""The command that gets published files: what it says, checks, unpacks and takes up again."""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from platform import sweep
from typing import Any

import pytest
import torch

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
        more: dict[str, Any] = {"to": file, "md5": md5(data)} | archive
        one = Archive(file, f"http://127.0.0.1:9/{file}", "its finder", len(data), **more)
        source = Source("a thing", "free", (one,), next=("echo {to}",))
        monkeypatch.setitem(SOURCES, "thing", source)

    return make


def get(server: Server, to: Path, *more: str) -> int:
    """The command."""
    return download.main(["thing", "--to", str(to), "--mirror", server.url, *more], pause_s=0.0)


def test_a_downloaded_file_is_checked_and_not_fetched_again(
    server: Server, offer: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(DATA, digest_from="its maker")
    assert get(server, tmp_path, "--show") == 0 and server.asked == []
    said = capsys.readouterr().out
    assert "terms: free" in said and "thing.bin (about 5 MB; the address is stated by its finder)" in said
    assert f"    checked: its MD5 has to be {md5(DATA)}, stated by its maker\n" in said
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
    assert "not verified: no digest is published" in said and "note: thing.bin was not checked" in said


def test_a_web_page_in_place_of_a_file_is_told(server: Server, offer: Callable[..., None], tmp_path: Path) -> None:
    offer(DATA)
    server.files["thing.bin"] = b"<!DOCTYPE html><title>Log in</title>"
    with pytest.raises(InputError, match="sent a web page in place of the file"):
        get(server, tmp_path)
    assert not (tmp_path / "thing.bin").exists()
    server.files["thing.bin"], server.tag = DATA, '"two"'
    assert get(server, tmp_path) == 0 and (tmp_path / "thing.bin").read_bytes() == DATA


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


def test_what_has_no_address_names_its_page_and_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = SOURCES["resnet38"]
    file = tmp_path / source.by_hand
    assert download.main(["resnet38", "--to", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "open https://github.com/itijyou/ademxapp" in said and "next:" not in said
    assert f"checked: its MD5 has to be {source.by_hand_md5}, stated by ademxapp" in said
    for data, words in ((b" <HTML>log in", "is a web page"), (DATA, f"its MD5 is {md5(DATA)}, published is")):
        file.write_bytes(data)
        with pytest.raises(
            InputError, match=f"{re.escape(str(file))}: {words}.*delete it, and get it again from https"
        ):
            download.main(["resnet38", "--to", str(tmp_path)])
        assert file.read_bytes() == data, "what a person put there is theirs"
    monkeypatch.setitem(SOURCES, "resnet38", replace(source, by_hand_md5=md5(DATA)))
    assert download.main(["resnet38", "--to", str(tmp_path)]) == 0
    assert "next: python -m cpn.weights" in capsys.readouterr().out


LAYERS = {"CPN": ("fc8.weight", "f9.weight", "f10.weight"), "SEAM": ("fc8.weight", "f9.weight")}
"""Names by which a released network is known."""


@pytest.mark.parametrize("name", ["cpn_released", "seam_released"])
def test_a_checkpoint_put_by_hand_must_be_of_its_method(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = SOURCES[name]
    file = tmp_path / source.by_hand
    other = "SEAM" if source.method == "CPN" else "CPN"
    for layers in (LAYERS[other], ("conv1a.weight",)):
        torch.save({layer: torch.zeros(1) for layer in layers}, file)
        with pytest.raises(InputError, match=f"is no whole {source.method} as its authors released it: delete it"):
            download.main([name, "--to", str(tmp_path)])
    file.write_bytes(b"<!doctype html>")
    with pytest.raises(InputError, match="is a web page"):
        download.main([name, "--to", str(tmp_path)])
    file.write_bytes(DATA)
    with pytest.raises(InputError, match="neither MXNet .params, torch nor safetensors; delete it"):
        download.main([name, "--to", str(tmp_path)])
    torch.save({layer: torch.zeros(1) for layer in LAYERS[source.method]}, file)
    capsys.readouterr()
    assert download.main([name, "--to", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"is there, a whole {source.method}; no digest is published" in said and "not verified" in said


def test_sbd_alone_is_refused_where_voc_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sbd goes into the folder of voc2012"):
        download.main(["sbd", "--to", str(tmp_path)])


def test_three_commands_from_an_empty_folder_to_a_priced_plan(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """README's own lines, with VOC and SBD in small: trainaug is made of both, and the plan counts what is packed."""
    monkeypatch.chdir(tmp_path)
    write_small_voc(tmp_path / "made", sbd=False)
    voc = {f"VOCdevkit/VOC2012/{path.relative_to('made')}": path.read_bytes() for path in files_in(Path("made"))}
    sbd = {f"benchmark_RELEASE/dataset/cls/{name}.mat": b"never read" for name in (*EXTRA, "2007_000033")}
    server.files = {"VOCtrainval_11-May-2012.tar": tar_of(voc, "w"), "benchmark.tgz": tar_of(sbd)}
    for name in ("voc2012", "sbd"):
        (archive,) = SOURCES[name].archives
        small = replace(archive, md5=md5(server.files[archive.file]), size=len(server.files[archive.file]))
        monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], archives=(small,)))

    commands = three_commands(CHECKOUT / "README.md")
    assert commands == three_commands(CHECKOUT / "docs" / "voc.md")
    mains = (("cpn.download", download.main), ("cpn.prepare", prepare.main), ("platform.sweep", sweep.main))
    for (module, *words), (expected, main) in zip(commands, mains, strict=True):
        assert module == expected
        words += ["--mirror", server.url] if module == "cpn.download" else []
        assert not main([str(CHECKOUT / word) if word.startswith("search_spaces/") else word for word in words])
    said = " ".join(capsys.readouterr().out.split())
    assert "next: python -m cpn.prepare data/VOC2012" in said
    assert "priced for 5 images to train on, 2 scored, of 14 x 20 pixels and 21 classes" in said
    assert "nothing was started; next: python -m platform.sweep" in said


def three_commands(page: Path) -> list[list[str]]:
    """What a page gives from an empty disk to the plan: the words after `python -m` of the block with the download."""
    blocks = page.read_text().split("\n\n")
    (block,) = (block for block in blocks if block.startswith("    python -m cpn.download voc2012"))
    return [shlex.split(line, comments=True)[2:] for line in block.splitlines()]


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
