"""Every reader of what the product wrote, against every kind of damage: one line with the file and a cure."""

import json
import os
import pickle
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from benchmarks.chaos.damage_files import DAMAGES
from cpn.core.checked import (
    KEPT_DAYS,
    LOOKED,
    damaged_among,
    forget_old,
    is_png,
    read_typed,
    reading,
    sealed_line,
    unsealed_line,
    verified,
)
from cpn.core.files import DamagedFile, file_digest, read_json, write_json
from cpn.core.object_storage import SCRATCH
from cpn.data.map_files import load_label, load_maps, save_label, save_maps
from cpn.models.checkpoint import load_model, read_metadata, save_model
from cpn.plots.run_pictures import PanelImage, load_panel, save_panel
from cpn.scoring.counts import each_counts, load_counts, save_counts
from cpn.scoring.mask_free import MaskFreeScores, load_scores, save_scores

RNG = np.random.default_rng(0)
ARRAY = RNG.random((3, 9, 11)).astype(np.float32)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Linear(40, 30)


def read_model(path: Path) -> None:
    read_metadata(path)
    load_model(path, network())


READERS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "a.json": (lambda path: write_json(path, {"miou": 44.25, "classes": ["ant"]}), read_json),
    "list.json": (lambda path: write_json(path, [{"epoch": 1, "loss": 0.5}]), read_json),
    "counts.npz": (
        lambda path: save_counts(path, ["a", "b"], RNG.integers(0, 99, (2, 5, 3, 4))),
        lambda path: (load_counts(path), list(each_counts(path))),
    ),
    "mask_free.npz": (
        lambda path: save_scores(path, ["a", "b"], MaskFreeScores(ARRAY[0], ARRAY[1], ARRAY[2][0])),
        load_scores,
    ),
    "panel.npz": (
        lambda path: save_panel(path, [PanelImage("a", "first", {"CAM": (255 * ARRAY[0]).astype(np.uint8)})]),
        load_panel,
    ),
    "maps.npz": (lambda path: save_maps(path, ARRAY, np.array([1, 2, 3])), load_maps),
    "label.png": (lambda path: save_label(path, RNG.integers(0, 5, (40, 50)).astype(np.uint8)), load_label),
    "model.safetensors": (lambda path: save_model(path, network(), {"kind": "cam", "beta": 0.5}), read_model),
}
"""File name -> what writes such a file and what reads it."""


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "older copy"])
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_one_line_with_file_and_cure(tmp_path: Path, name: str, damage: str) -> None:
    path, (write, read) = tmp_path / name, READERS[name]
    write(path)
    read(path)
    assert DAMAGES[damage](path, tmp_path / "none")
    # Whoever asks for JSON that may be absent looks for FileNotFoundError; an InputError is what the command says.
    from cpn.core.errors import InputError

    with pytest.raises((InputError, FileNotFoundError) if path.suffix == ".json" else InputError) as caught:
        read(path)
    if isinstance(caught.value, InputError):
        said = str(caught.value)
        assert str(path) in said and "; " in said and "\n" not in said


@pytest.mark.parametrize("name", ["a.json", "list.json", "model.safetensors"])
def test_every_byte_counts(tmp_path: Path, name: str) -> None:
    """A flipped bit anywhere is noticed, or the content that is read is the same."""
    path, (write, read) = tmp_path / name, READERS[name]
    write(path)
    whole, content = path.read_bytes(), read(path)
    for at in range(0, len(whole), 1 if len(whole) < 500 else 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            found = read(path)
        except (ValueError, RuntimeError):
            continue
        except Exception as error:
            assert "safetensors" in str(error) or "checkpoint" in str(error)
            continue
        without = {k: v for k, v in found.items() if k in content} if isinstance(content, dict) else found
        assert without == content, at


def test_the_line_crosses_processes() -> None:
    for error in (DamagedFile("a", "delete it", "torn"), DamagedFile("a", "delete it", missing=True)):
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error) and again.path == Path("a") and isinstance(again, DamagedFile)
    assert str(DamagedFile("a: is damaged; delete it")) == "a: is damaged; delete it"


def test_json_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for value in ({"miou": 44.0}, [1, 2]):
        path.write_text(json.dumps(value))
        assert read_json(path) == value
        with pytest.raises(DamagedFile, match="no digest of itself"):
            read_json(path, sealed=True)


def test_a_models_file_is_the_same_for_the_same_network(tmp_path: Path) -> None:
    for name in "abc":
        save_model(tmp_path / name, network(), {"kind": "cam"})
    assert len({file_digest(tmp_path / name) for name in "abc"}) == 1


def test_lines_have_checksums() -> None:
    line = sealed_line({"kind": "metrics", "values": {"miou": 44.25}, "text": "ä"})
    assert unsealed_line(line) == {"kind": "metrics", "values": {"miou": 44.25}, "text": "ä"}
    assert unsealed_line(line.replace(b"44.25", b"84.25")) is None
    assert unsealed_line(b'{"kind": "end"}\n') == {"kind": "end"}, "an earlier version's"
    assert unsealed_line(b"[1]") is unsealed_line(b"\0\0") is unsealed_line(b"") is None


def test_an_untouched_file_is_digested_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCRATCH, str(tmp_path / "scratch"))
    path = tmp_path / "big.arrow"
    path.write_bytes(b"x" * 1000)
    sha256, computed = file_digest(path), []
    monkeypatch.setattr("cpn.core.checked.file_digest", lambda p: computed.append(p) or file_digest(p))
    assert verified(path, sha256) and verified(path, sha256) and computed == [path]
    assert verified(path, sha256, again=True) and computed == [path] * 2
    assert not verified(path, "0" * 64) and not verified(tmp_path / "none", sha256)
    stat = path.stat()
    path.write_bytes(b"x" * 999 + b"y")
    assert not verified(path, sha256)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a disk that rots changes no time:
    assert not verified(path, sha256, again=True)  # a command's start reads all of it
    assert not verified(path, sha256), "and what it found is remembered"


def test_nothing_is_remembered_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(SCRATCH, str(tmp_path / "file"))
    path = tmp_path / "a"
    path.write_bytes(b"1")
    assert verified(path, file_digest(path)) and verified(path, file_digest(path))


def test_what_is_damaged_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCRATCH, str(tmp_path / "scratch"))
    folder = tmp_path / "run"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_text(name)
    digests = {name: file_digest(folder / name) for name in "ab"}
    assert damaged_among(folder, digests) == damaged_among(folder, digests) == []
    (folder / "a").write_text("c")
    assert damaged_among(folder, digests) == ["a"]
    (folder / "b").unlink()
    assert damaged_among(folder, digests) == ["b"], "what is missing is known without reading the rest"


def test_a_whole_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_label(path, np.arange(12, dtype=np.uint8).reshape(3, 4))
    data = path.read_bytes()
    assert is_png(data)
    assert not any(is_png(data[:end]) for end in range(len(data)))
    assert not any(is_png(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) for at in range(len(data)))


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), EOFError(), zlib.error("x"), OSError("no image")])
def test_what_readers_raise(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(DamagedFile, match="a.npz: is damaged"), reading(tmp_path / "a.npz"):
        raise error


def test_what_the_disk_answers_stays_its_own(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), reading(tmp_path / "a"):
        raise PermissionError(13, "no", str(tmp_path / "a"))
    with pytest.raises(DamagedFile, match="a: is missing; delete it"), reading(tmp_path / "a"):
        (tmp_path / "a").read_bytes()


class Written(BaseModel):
    """A file as a test writes it."""

    name: str
    numbers: dict[str, int] = {}


def test_a_file_is_read_as_its_model(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError):
        read_typed(path, Written)
    write_json(path, {"name": "n", "numbers": {"a": 1}})
    assert read_typed(path, Written) == Written(name="n", numbers={"a": 1})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({}, "name: Field required"),
        ({"name": "n", "numbers": {"a": "x"}}, "numbers.a: Input should be a valid integer"),
        (["n"], "no dictionary"),
    ],
)
def test_another_content_is_damage_in_one_line(tmp_path: Path, value: object, why: str) -> None:
    path = tmp_path / "a.json"
    write_json(path, value)
    with pytest.raises(DamagedFile) as raised:
        read_typed(path, Written, "write it again")
    assert str(raised.value).startswith(f"{path}: is damaged ({why}") and str(raised.value).endswith("; write it again")
    assert "\n" not in str(raised.value)


def test_old_marks_are_looked_for_once_a_day(tmp_path: Path) -> None:
    forget_old.cache_clear()
    long_ago = time.time() - 86400 * (KEPT_DAYS + 1)

    def old_mark(name: str) -> Path:
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (long_ago, long_ago))
        return tmp_path / name

    first, young = old_mark("a"), tmp_path / "young"
    young.write_bytes(b"")
    forget_old(tmp_path)
    assert not first.exists() and young.exists()
    second = old_mark("b")
    forget_old.cache_clear()  # another process, on the same day
    forget_old(tmp_path)
    assert second.exists()
    os.utime(tmp_path / LOOKED, (long_ago, long_ago))
    forget_old.cache_clear()
    forget_old(tmp_path)
    assert not second.exists() and (tmp_path / LOOKED).exists() and young.exists()
