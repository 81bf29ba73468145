"""A packed data set in object storage, and each machine's one copy of it."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpn import prepare
from cpn.core import object_storage
from cpn.core.errors import InputError, run_command
from cpn.core.files import write_json
from cpn.data import packed_copy
from cpn.data.packed_copy import local_copy, publish
from cpn.data.voc import Pack, open_pack
from tests.cpn.small_voc import write_small_voc
from tests.s3_server import s3_server

BUCKET = "cpn-data"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server(BUCKET) as url:
        yield url


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("voc")
    write_small_voc(root, True)
    return prepare.prepare(root)


@pytest.fixture
def url(endpoint: str, pack: Pack, tmp_path: Path) -> str:
    place = f"s3://{BUCKET}/{tmp_path.name}"
    publish(pack, place)
    return place


def test_the_copy_is_the_data_set(url: str, pack: Pack, tmp_path: Path) -> None:
    copy = open_pack(local_copy(url, tmp_path))
    assert (copy.fingerprint, copy.lists, copy.classes) == (pack.fingerprint, pack.lists, pack.classes)
    ours, theirs = pack.split("train"), copy.split("train")
    assert ours.ids == theirs.ids and (ours.image(0) == theirs.image(0)).all() and theirs.masked
    there = open_pack(url).split("train")
    assert (ours.image(0) == there.image(0)).all(), "rows can be read one by one, too"


def test_it_is_copied_once(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    real = object_storage.fetch
    monkeypatch.setattr(
        object_storage, "fetch", lambda system, path, *rest: (fetched.append(path), real(system, path, *rest))
    )
    copies: list[Path] = []
    workers = [threading.Thread(target=lambda: copies.append(local_copy(url, tmp_path))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(copies) == 3 and len(set(copies)) == 1
    assert len(fetched) == len(set(fetched)) == len(packed_copy.packed_files(open_pack(url)))


def test_a_copy_that_was_killed_half_way_is_made_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(object_storage, "fetch", killed)
        local_copy(url, tmp_path)
    assert open_pack(local_copy(url, tmp_path)).fingerprint == open_pack(url).fingerprint


def test_what_was_changed_on_the_way_is_refused(url: str, tmp_path: Path) -> None:
    whole = object_storage.read_object(f"{url}/packed/train.arrow")
    assert whole is not None
    object_storage.write_object(f"{url}/packed/train.arrow", whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="train.arrow: is not what was written there; put it there again: python -m"):
        local_copy(url, tmp_path)
    assert not list(tmp_path.glob("data-*/packed"))


def test_another_data_set_at_the_same_place_is_another_copy(url: str, tmp_path: Path, pack: Pack) -> None:
    before = local_copy(url, tmp_path)
    other = tmp_path / "other"
    shutil.copytree(pack.root, other)
    shutil.rmtree(other / "packed")
    (other / "ImageSets/Segmentation/val.txt").write_text("\n".join(pack.split("train").ids) + "\n")
    publish(prepare.prepare(other), url)
    assert local_copy(url, tmp_path) != before


def test_no_room_is_one_line(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_copy.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(InputError, match=r"takes .* MB and 0 MB are free in .*set CPN_SCRATCH to a larger disk"):
        local_copy(url, tmp_path)


def test_an_earlier_pack_without_digests_is_read(url: str, tmp_path: Path, pack: Pack) -> None:
    manifest = {**pack.manifest}
    manifest["lists"] = {
        name: {k: v for k, v in entry.items() if not k.endswith("sha256")} for name, entry in manifest["lists"].items()
    }
    write_json(tmp_path / "m", manifest)
    object_storage.send(tmp_path / "m", f"{url}/packed/manifest.json")
    assert open_pack(local_copy(url, tmp_path)).fingerprint == pack.fingerprint


def test_the_command_packs_and_puts_it_there(endpoint: str, pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"s3://{BUCKET}/by-command"
    for _ in range(2):
        prepare.main([pack.root, "--out", url])
        said = capsys.readouterr().out
        assert f"put to {url}/packed" in said
        assert said.splitlines()[-1].endswith(f"--set data.root={url}")
    assert open_pack(url).fingerprint == pack.fingerprint


@pytest.mark.parametrize("url", ["s3://no-such-bucket/voc", "s3://UPPER"])
def test_an_impossible_place_is_said_before_packing(
    endpoint: str, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small_voc(tmp_path / "data", True)
    with pytest.raises(SystemExit) as left:
        run_command(lambda: prepare.main([str(tmp_path / "data"), "--out", url]))
    said = capsys.readouterr().err
    assert left.value.code == 2 and url in said and said.count("\n") == 1
    assert not (tmp_path / "data/packed").exists()


def test_nothing_there_is_one_line(endpoint: str) -> None:
    url = f"s3://{BUCKET}/nothing"
    with pytest.raises(InputError, match=f"data.root: {url} is not prepared: run python -m cpn.prepare FOLDER --out"):
        open_pack(url)
