"""Whatever stands in a file, it is read or refused in one line: specifications, lists, pictures, XML, .params."""

import io
import os
import string
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from platform.base.yaml_files import load_yaml, yaml_text
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cpn.config import known_names
from cpn.core.errors import InputError
from cpn.data.voc import IGNORE, VOC_CLASSES, encode_mask
from cpn.models.mxnet_params import read_params
from cpn.sources.class_names import read_classes
from cpn.sources.voc_folder import Checked, Entry, check_entry, read_annotation
from cpn.sources.voc_lists import listed_ids
from tests.bad_input.case import SPEC

T = TypeVar("T")
# The folder is made once and every example replaces the file in it.
often = settings(max_examples=100)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("any")


def read_or_refused(read: Callable[[], T], about: str) -> T | None:
    """What is read, or None when it is refused as it should be; anything else that is raised fails the test."""
    try:
        return read()
    except InputError as refusal:
        said = str(refusal)
        assert about in said and said.isprintable() and len(said) < 2000, said
        return None


# Specifications

NOISE = st.text(st.sampled_from(string.printable + "é\ufeff\u2028\x85"), max_size=60)
MARKS = st.sampled_from(["&a ", "*a", "<<: *a", "!!int ", "!!map ", "!!set ", "!!null ", "? ", ": ", "\n", "\t", "[",
                         "- ", "]", "{", "}", "'", '"', "|\n", ">\n", "---\n", "%YAML 1.1\n", "#", "1e9", ".nan", "~",
                         "=", "name: ", "base: ", "  "])  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["auto", "grid", "scenes", "x", "", "a/b"]) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["float", "int", "choice", "curve", "log", "step", "when", "x"]), inner,
                      max_size=3),
    max_leaves=5,
)  # fmt: skip
SECTIONS = st.sampled_from([*SweepSpec.model_fields, "preset", "x"])
NAMES = st.sampled_from([*known_names(), "patches", "x", "data.x"])


@often
@given(st.one_of(NOISE, st.lists(MARKS | NOISE, max_size=12).map("".join)))
def test_any_text_is_yaml_or_refused(place: Path, text: str) -> None:
    path = place / "any.yaml"
    path.write_bytes(text.encode())
    found = read_or_refused(lambda: load_yaml(path), str(path))
    assert found is None or isinstance(found, dict)


@often
@given(st.binary(max_size=40))
def test_any_bytes_are_yaml_or_refused(place: Path, content: bytes) -> None:
    path = place / "any.yaml"
    path.write_bytes(content)
    read_or_refused(lambda: load_yaml(path), str(path))


@often
@given(
    st.dictionaries(SECTIONS, VALUES, max_size=3),
    st.dictionaries(NAMES, VALUES, max_size=2),
    st.dictionaries(SECTIONS, st.dictionaries(st.sampled_from(["trials", "workers", "seed", "uri", "x"]), VALUES),
                    max_size=2),
)  # fmt: skip
def test_any_sections_and_domains_are_a_sweep_or_refused(
    place: Path, sections: dict[str, Any], search: dict[str, Any], inner: dict[str, Any]
) -> None:
    path = place / "spec.yaml"
    path.write_text(yaml_text({**SPEC, "search": search, **sections, **inner}), encoding="utf-8")
    found = read_or_refused(lambda: load_spec(path), str(path))
    assert found is None or found.reference is not None


@often
@given(st.one_of(NAMES, SECTIONS, NOISE), st.one_of(VALUES.map(str), NOISE, st.lists(MARKS, max_size=5).map("".join)))
def test_any_set_is_read_or_refused(place: Path, name: str, value: str) -> None:
    path = place / "good.yaml"
    path.write_text(yaml_text(SPEC))
    read_or_refused(lambda: load_spec(path, [f"{name}={value}"]), "")


# Lists and classes

LINES = st.lists(
    st.sampled_from(["a", "b", "c", "a.jpg", " a ", "../a", "/JPEGImages/a.jpg /SegmentationClass/a.png", "a 1", "",
                     "\ufeffa", "a\r", "..", ".", "/", "//", "\\a", "a\0", "a.", ".jpg"]) | NOISE,
    max_size=5,
).map("\n".join)  # fmt: skip


@often
@given(st.one_of(LINES.map(str.encode), st.binary(max_size=40)))
def test_any_list_is_read_or_refused(place: Path, content: bytes) -> None:
    folder = place / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.txt").write_bytes(content)
    found = read_or_refused(lambda: listed_ids(place, "train"), str(folder / "train.txt"))
    for image_id in found or ():
        assert image_id not in ("", ".", "..") and not set("/\\\n") & set(image_id)
        assert os.path.dirname(os.path.normpath(f"out/{image_id}.png")) == "out"


@often
@given(st.one_of(LINES.map(str.encode), st.binary(max_size=40)))
def test_any_classes_are_read_or_refused(place: Path, content: bytes) -> None:
    (place / "classes.txt").write_bytes(content)
    for name in read_or_refused(lambda: read_classes(place), str(place / "classes.txt")) or ():
        assert name and "/" not in name and name.isprintable()


# Masks, pictures and annotations


def checked(place: Path, image: bytes, mask: bytes) -> Checked | None:
    (place / "a.png").write_bytes(image)
    (place / "mask.png").write_bytes(mask)
    entry = Entry("a", "train.txt line 1", place / "a.png", place / "mask.png", None, True, True)
    return read_or_refused(lambda: check_entry(entry, VOC_CLASSES), str(place))


def png_of(values: np.ndarray, mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


MASK = encode_mask(np.repeat(np.array([[0, 1, 20, IGNORE]], np.uint8), 3, axis=0))
PICTURE = png_of(np.zeros((3, 4), np.uint8), "RGB")
PHOTOGRAPH = io.BytesIO()
Image.new("RGB", (4, 3), (90, 10, 200)).save(PHOTOGRAPH, "JPEG")
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6)


def damaged(content: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    """Some bytes replaced, and the end cut off when `cut` lies in it."""
    data = bytearray(content)
    for at, value in changes:
        data[at % len(data)] = value
    return bytes(data[:cut])


@often
@given(
    st.lists(st.integers(0, 255), min_size=12, max_size=12),
    st.sampled_from(["L", "P", "RGB", "RGBA", "1", "LA"]),
    st.sampled_from([(3, 4), (4, 3), (1, 12)]),
)
def test_any_mask_is_read_or_refused(place: Path, values: list[int], mode: str, shape: tuple[int, int]) -> None:
    pixels = np.array(values, np.uint8).reshape(shape)
    found = checked(place, PICTURE, png_of(pixels, mode))
    if mode == "L":
        right = shape == (3, 4) and all(v <= 20 or v == IGNORE for v in values)
        assert (found is not None) == right
        assert found is None or found.classes == tuple(sorted({v - 1 for v in values} - {-1, IGNORE - 1}))
    elif mode not in ("P", "L"):
        assert found is None


@often
@given(CHANGES, st.integers(0, 400), st.sampled_from(["mask", "picture", "photograph"]))
def test_any_damage_to_a_picture_is_read_or_refused(
    place: Path, changes: list[tuple[int, int]], cut: int, which: str
) -> None:
    if which == "mask":
        checked(place, PICTURE, damaged(MASK, changes, cut))
    else:
        checked(place, damaged(PICTURE if which == "picture" else PHOTOGRAPH.getvalue(), changes, 4 * cut), MASK)


XML = (
    b'<?xml version="1.0"?><annotation><object><name>dog</name></object><object><name>cat</name></object></annotation>'
)


@often
@given(CHANGES, st.integers(0, 200), st.binary(max_size=8))
def test_any_damage_to_an_annotation_is_read_or_refused(
    place: Path, changes: list[tuple[int, int]], cut: int, more: bytes
) -> None:
    path = place / "a.xml"
    path.write_bytes(damaged(XML, changes, cut) + more)
    found = read_or_refused(lambda: read_annotation(path, VOC_CLASSES), str(path))
    assert found is None or found.classes <= set(range(len(VOC_CLASSES)))


# MXNet's .params


def params_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """A whole file, version 2."""
    data = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        data += struct.pack("<IiI", 0xF993FAC9, 0, array.ndim) + struct.pack(f"<{array.ndim}q", *array.shape)
        data += struct.pack("<iii", 1, 0, 0) + array.tobytes()
    names = b"".join(struct.pack("<Q", len(name)) + name.encode() for name in arrays)
    return data + struct.pack("<Q", len(arrays)) + names


WHOLE = params_bytes({"arg:conv1a_weight": np.ones((2, 3), np.float32), "aux:bn": np.zeros(4, np.float32)})
WORDS = st.sampled_from([0, 1, 2, 7, 8, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 0xF993FAC8])
EDITS = st.lists(
    st.tuples(st.sampled_from(["byte", "word", "drop", "double"]), st.integers(0, 10**6), WORDS), max_size=5
)


def edited(edits: list[tuple[str, int, int]]) -> bytes:
    """The whole file with bytes and numbers replaced, parts dropped and parts doubled."""
    data = bytearray(WHOLE)
    for kind, place, value in edits:
        at = place % max(1, len(data))
        if kind == "byte":
            data[at : at + 1] = bytes([value % 256])
        elif kind == "word":
            data[at : at + 8] = struct.pack("<Q", value)[: min(8, len(data) - at)]
        elif kind == "drop":
            del data[at : at + value % 40]
        else:
            data[at:at] = data[at : at + value % 40]
    return bytes(data)


@settings(often, max_examples=400)
@given(
    st.one_of(st.binary(max_size=120), st.binary(max_size=80).map(lambda more: WHOLE[:24] + more), EDITS.map(edited))
)
def test_any_params_file_is_read_or_refused_in_little_memory(place: Path, content: bytes) -> None:
    path = place / "any.params"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        found = read_or_refused(lambda: read_params(path), str(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20
    for name, array in (found or {}).items():
        assert isinstance(name, str) and array.nbytes <= len(content) and array.size > 0
