"""Files of other methods: what is read of them, and what is refused in one line before it costs anything."""

import io
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZipFile

import numpy as np
import PIL.Image
import pytest
from numpy.lib import format as npy
from PIL import Image

from cpn.core.errors import InputError
from cpn.data.map_files import load_maps, save_maps
from cpn.data.voc import encode_mask
from cpn.scoring import prediction_files
from cpn.scoring.prediction_files import RESAVE, find_predictions, pickle_words, read_label, read_maps
from tests.conftest import CHECKOUT

SHAPE, C = (4, 6), 4
MAPS = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
LABEL = np.arange(24, dtype=np.uint8).reshape(SHAPE) % C


def npz(**arrays: Any) -> Callable[[Path], None]:
    """Write an npz with numpy; what is not named is a good one's."""
    whole = {"classes": np.array([3, 1]), "maps": MAPS} | arrays

    def write(path: Path) -> None:
        np.savez_compressed(path, **{name: array for name, array in whole.items() if array is not None})

    return write


def member(
    header: dict[str, Any], data: bytes = b"", name: str = "maps", how: int = ZIP_DEFLATED
) -> Callable[[Path], None]:
    """Write an npz whose `maps` has a header of one's own, and `classes` that are good."""

    def write(path: Path) -> None:
        with ZipFile(path, "w", how) as members:
            classes = io.BytesIO()
            np.save(classes, np.array([3, 1]))
            members.writestr("classes.npy", classes.getvalue())
            written = io.BytesIO()
            npy.write_array_header_1_0(written, header)
            members.writestr(f"{name}.npy", written.getvalue() + data)

    return write


def with_an_array_twice(path: Path) -> None:
    """An npz with a second `maps` behind the first, which zip readers take."""
    npz()(path)
    with ZipFile(path, "a") as members, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        members.writestr("maps.npy", members.read("maps.npy"))


def lying_about_its_size(path: Path) -> None:
    """An npz whose maps unpack to 4 GB, as its central directory says."""
    npz()(path)
    data = bytearray(path.read_bytes())
    with ZipFile(path) as members:
        info = members.getinfo("maps.npy")
    at = data.find(b"PK\x01\x02", members.start_dir)
    while struct.unpack("<I", data[at + 24 : at + 28])[0] != info.file_size:
        at = data.find(b"PK\x01\x02", at + 4)
    data[at + 24 : at + 28] = struct.pack("<I", 4_000_000_000)
    path.write_bytes(bytes(data))


def png(array: np.ndarray, mode: str) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(array).convert(mode).save(path)


def test_maps_come_back_with_the_first_class_first(tmp_path: Path) -> None:
    npz()(tmp_path / "a.npz")
    found = read_maps(tmp_path / "a.npz", SHAPE, C)
    assert found.present.tolist() == [3, 1] and not found.with_background
    np.testing.assert_array_equal(found.maps, MAPS)


def test_our_own_maps_are_read_as_the_stages_read_them(tmp_path: Path) -> None:
    save_maps(tmp_path / "a.npz", MAPS, np.array([2, 3]))
    found, (maps, present) = read_maps(tmp_path / "a.npz", SHAPE, C), load_maps(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.maps, maps)
    np.testing.assert_array_equal(found.present, present)
    assert found.maps.dtype == np.float32


def test_a_background_comes_first_and_its_scale_is_free(tmp_path: Path) -> None:
    npz(classes=np.array([3, 0]), maps=50 * MAPS.astype(np.float64))(tmp_path / "a.npz")
    found = read_maps(tmp_path / "a.npz", SHAPE, C)
    assert found.present.tolist() == [0, 3] and found.with_background and found.maps.dtype == np.float64
    np.testing.assert_array_equal(found.maps, 50 * MAPS.astype(np.float64)[::-1])


def test_halved_maps_are_doubled_exactly(tmp_path: Path) -> None:
    npz(maps=MAPS / 2)(tmp_path / "a.npz")
    np.testing.assert_array_equal(read_maps(tmp_path / "a.npz", SHAPE, C, halved=True).maps, MAPS)


def test_an_image_without_a_class_is_fine(tmp_path: Path) -> None:
    npz(classes=np.array([]), maps=np.zeros((0, *SHAPE)))(tmp_path / "a.npz")
    assert read_maps(tmp_path / "a.npz", SHAPE, C).maps.shape == (0, *SHAPE)


HEAD = {"descr": "<f4", "fortran_order": False, "shape": (2, *SHAPE)}
BAD_MAPS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no classes": (npz(classes=None), "holds no `maps` with their `classes`"),
    "two keys": (npz(present=np.array([1, 2])), "holds no `maps` with their `classes`"),
    "no maps": (npz(maps=None), "holds no `maps`"),
    "class from 0 to F and above": (npz(classes=np.array([4, 1])), r"holds 4, and classes are 1 to 3"),
    "negative class": (npz(classes=np.array([-1, 1])), r"holds -1, and classes"),
    "class twice": (npz(classes=np.array([1, 1])), "holds a class twice"),
    "classes in halves": (npz(classes=np.array([1.0, 2.0])), "of type float64; write class indices"),
    "classes in a square": (npz(classes=np.array([[1, 2]])), r"`classes` has shape \(1, 2\)"),
    "too many classes": (npz(classes=np.arange(9)), r"`classes` has shape \(9,\)"),
    "another size": (npz(maps=MAPS[:, :2]), r"`maps` has shape \(2, 2, 6\).* make it \(2, 4, 6\)"),
    "a map too few": (npz(maps=MAPS[:1]), r"`maps` has shape \(1, 4, 6\)"),
    "whole numbers": (npz(maps=(255 * MAPS).astype(np.uint8)), "of type uint8; write scores as float16"),
    "not a number": (npz(maps=np.where(MAPS > 0.5, np.nan, MAPS)), "a score that is not finite"),
    "infinite": (npz(maps=np.where(MAPS > 0.5, -np.inf, MAPS)), "a score that is not finite"),
    "not brought to 0 to 1": (npz(maps=30 * np.ones((2, *SHAPE))), "a score of 30, .* bring scores to"),
    "objects": (npz(classes=np.array([{}, {}], object)), "Python objects, a pickle that is not read"),
    "a header of a terabyte": (member(HEAD | {"shape": (2, 500_000, 500_000)}), "is damaged .*not the 500000000000"),
    "a truth in the shape": (member(HEAD | {"shape": (True, *SHAPE)}, bytes(96)), r"is damaged .*\(True, 4, 6\)"),
    "an array twice": (with_an_array_twice, "holds an array of one name twice; write it again with each once"),
    "fewer numbers": (member(HEAD, b"1234"), "is damaged .*not the 48 numbers"),
    "unpacks to gigabytes": (lying_about_its_size, "unpacks to 4000000000 bytes"),
    "zeros without end": (member(HEAD, bytes(2_000_000)), r"unpacks to 2000\d+ bytes, more than scores of all"),
    "another compression": (member(HEAD, MAPS.tobytes(), how=ZIP_BZIP2), "numpy does not write"),
    "no zip": (lambda path: path.write_bytes(b"PK" * 50) and None, "is damaged"),
    "empty": (lambda path: path.write_bytes(b"") and None, "is damaged"),
    "a pipe": (os.mkfifo, "is a pipe"),
    "a folder": (Path.mkdir, "a.npz is a folder and cannot be read: put a file there"),
    "a link to nowhere": (lambda path: path.symlink_to("gone"), "a.npz is a link to gone, which is not there"),
    "too large a file": (lambda path: path.write_bytes(bytes(3_000_000)) and None, "is larger than 1 MB"),
}


@pytest.mark.parametrize("name", BAD_MAPS)
def test_maps_that_are_refused(name: str, tmp_path: Path) -> None:
    write, words = BAD_MAPS[name]
    write(tmp_path / "a.npz")
    with pytest.raises(InputError, match=words) as caught:
        read_maps(tmp_path / "a.npz", SHAPE, C)
    assert "a.npz" in str(caught.value)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_scores_that_doubling_makes_infinite_are_refused(kind: type, tmp_path: Path) -> None:
    maps = np.full(MAPS.shape, -1.0, kind)
    maps[0, 0, 0] = np.finfo(kind).max
    np.savez(tmp_path / "a.npz", classes=[0, 1], maps=maps)
    with pytest.raises(InputError, match="too large to be doubled; leave out --halved"):
        read_maps(tmp_path / "a.npz", SHAPE, C, halved=True)
    assert read_maps(tmp_path / "a.npz", SHAPE, C).maps.max() == np.finfo(kind).max


def test_doubled_maps_that_were_not_halved_are_refused(tmp_path: Path) -> None:
    npz()(tmp_path / "a.npz")
    with pytest.raises(InputError, match="twice its score of 1.9.* or leave out --halved"):
        read_maps(tmp_path / "a.npz", SHAPE, C, halved=True)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", classes=np.array([3, 1]), maps=MAPS)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.find(MAPS.tobytes()) + 40] ^= 1
    (tmp_path / "a.npz").write_bytes(bytes(data))
    with pytest.raises(InputError, match="is damaged .*CRC"):
        read_maps(tmp_path / "a.npz", SHAPE, C)


@pytest.mark.parametrize("mode", ["palette", "grey"])
def test_labels_come_back(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode_mask(LABEL)) if mode == "palette" else Image.fromarray(LABEL).save(path)
    np.testing.assert_array_equal(read_label(path, SHAPE, C), LABEL)


BAD_LABELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "another size": (png(LABEL[:, :5], "L"), "is 5x4, its image 6x4 pixels"),
    "colours": (png(LABEL, "RGB"), "holds no class indices but colours"),
    "16 bits": (lambda path: Image.fromarray(LABEL.astype(np.uint16)).save(path), "no class indices but colours"),
    "a class above": (png(LABEL + 1, "L"), "holds 4, and classes are 0 to 3; write it again"),
    "undecided": (png(np.where(LABEL == 3, 255, LABEL).astype(np.uint8), "L"), r"255 \(undecided\).* 0 where you"),
    "a folder": (Path.mkdir, "a.png is a folder and cannot be read: put a file there"),
    "a pipe": (os.mkfifo, "is a pipe"),
    "a JPEG": (lambda path: Image.fromarray(LABEL).save(path, "JPEG"), "is no whole PNG"),
    "cut off": (lambda path: path.write_bytes(encode_mask(LABEL)[:-20]) and None, "is no whole PNG"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_labels_that_are_refused(name: str, tmp_path: Path) -> None:
    write, words = BAD_LABELS[name]
    write(tmp_path / "a.png")
    with pytest.raises(InputError, match=words) as caught:
        read_label(tmp_path / "a.png", SHAPE, C)
    assert "a.png" in str(caught.value)


def test_a_file_for_every_image_in_the_order_of_the_list(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "other.png", "a.npy", "notes.txt"):
        (tmp_path / name).touch()
    found = find_predictions(tmp_path, ["b", "a"])
    assert [path.name for path in found.paths] == ["b.png", "a.png"] and not found.are_maps
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "a.npz").touch()
    assert find_predictions(tmp_path / "maps", ["a"]).are_maps


FOLDERS = {
    "nothing": ([], "has no file for 5 of 5 images (a, b, c, ...); put ID.npz or ID.png there"),
    "two missing": (["a.npz", "c.npz", "d.npz"], "no file for 2 of 5 images (b, e); put ID.npz there"),
    "both kinds": (["a.npz", "b.png"], "holds score maps and labels, such as a.npz and b.png"),
    "both of an image": ([f"{i}.png" for i in "abcde"] + ["c.npz"], "such as c.npz and a.png"),
    "pickles": ([f"{i}.npy" for i in "abcde"], "a.npy: a .npy dictionary is a pickle"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_are_refused(name: str, tmp_path: Path) -> None:
    files, words = FOLDERS[name]
    for file in files:
        (tmp_path / file).touch()
    with pytest.raises(InputError) as caught:
        find_predictions(tmp_path, list("abcde"))
    assert words in str(caught.value)
    with pytest.raises(InputError, match="is no folder"):
        find_predictions(tmp_path / "none", ["a"])


def test_a_link_to_nowhere_is_no_missing_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("gone.png")
    with pytest.raises(InputError, match="a.png is a link to gone.png, which is not there"):
        find_predictions(tmp_path, ["a"])


KINDS: dict[str, Any] = {
    "SEAM": {2: MAPS[0], 0: MAPS[1]},
    "IRN": {"keys": np.array([2, 0]), "cam": MAPS[:, ::4, ::4], "high_res": MAPS},
}


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (MAPS, "is a plain array of shape (2, {h}, {w}) and type float"),
        (np.zeros(SHAPE, np.int64), "and classes of all pixels are read from ID.png; save each array by PIL.Image"),
    ],
)
def test_a_plain_array_is_no_pickle(array: np.ndarray, words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError) as caught:
        find_predictions(tmp_path, ["a"])
    said = str(caught.value)
    assert words.format(h=SHAPE[0], w=SHAPE[1]) in said and "pickle" not in said
    from_message = (
        said.split("save each array by ")[1]
        .replace("'a.", f"'{tmp_path}/a.")
        .replace("numbers of its classes from 1", "np.array([1, 3])")
    )
    exec(from_message, {"numpy": np, "np": np, "PIL": PIL, "array": array})
    (tmp_path / "a.npy").unlink()
    assert find_predictions(tmp_path, ["a"]).are_maps == (array is MAPS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_of_the_message_save_what_the_method_wrote(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "2007_1.npy", KINDS[kind], allow_pickle=True)
    said = pickle_words(tmp_path / "2007_1.npy")
    lines = [line.format(files=str(tmp_path / "*.npy")) for line in RESAVE]
    assert said.endswith("; ".join(lines)) and len(lines) == 3 and "\n" not in said
    exec(compile(said.split("without the + 1): ")[1], "message", "exec"), {})
    found = read_maps(find_predictions(tmp_path, ["2007_1"]).paths[0], SHAPE, C)
    assert found.present.tolist() == [3, 1]
    np.testing.assert_array_equal(found.maps, MAPS)


def test_nothing_of_a_large_header_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr(prediction_files, "_array", refuse)
    for name in ("a header of a terabyte", "unpacks to gigabytes", "objects", "another size"):
        write, words = BAD_MAPS[name]
        write(tmp_path / "a.npz")
        with pytest.raises(InputError, match=words):
            read_maps(tmp_path / "a.npz", SHAPE, C)


def test_the_page_has_the_lines_of_the_message() -> None:
    page = (CHECKOUT / "docs" / "judge.md").read_text(encoding="utf-8")
    assert "\n".join(" " * 4 + line.format(files="FOLDER/*.npy") for line in RESAVE) in page
