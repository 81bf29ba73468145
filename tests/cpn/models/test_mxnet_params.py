"""The `.params` reader against a writer of its own, cut and damaged files, and files that lie about lengths."""

import struct
import tempfile
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cpn.core.errors import InputError
from cpn.models.mxnet_params import read_params

FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}
Array = NDArray[np.generic]


def array_bytes(array: Array, version: int) -> bytes:
    """One array as MXNet writes it: version 2 since 1.0, 1 before that, 0 up to 0.9."""
    head = {
        0: struct.pack("<I", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape),
        1: struct.pack("<II", 0xF993FAC8, array.ndim) + struct.pack(f"<{array.ndim}q", *array.shape),
        2: struct.pack("<IiI", 0xF993FAC9, 0, array.ndim) + struct.pack(f"<{array.ndim}q", *array.shape),
    }[version]
    return head + struct.pack("<iii", 1, 0, FLAGS[array.dtype.name]) + array.tobytes()


def params_bytes(arrays: Mapping[str, Array], version: int = 2) -> bytes:
    body = b"".join(array_bytes(array, version) for array in arrays.values())
    names = b"".join(struct.pack("<Q", len(name.encode())) + name.encode() for name in arrays)
    return struct.pack("<QQQ", 0x112, 0, len(arrays)) + body + struct.pack("<Q", len(arrays)) + names


def read_bytes(data: bytes) -> dict[str, Array]:
    with tempfile.NamedTemporaryFile(suffix=".params") as file:
        file.write(data)
        file.flush()
        return read_params(Path(file.name))


def refused(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        read_bytes(data)
    message = str(caught.value)
    assert "\n" not in message and ".params" in message
    return message


def examples() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {"arg:é": rng.standard_normal((2, 3, 1, 1)).astype(np.float32)}
    for name in FLAGS:
        arrays[f"aux:{name}"] = (100 * rng.random((2, 5))).astype(name)
    return arrays


@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_version_and_element_type_is_read_back_exactly(version: int) -> None:
    arrays = examples()
    read = read_bytes(params_bytes(arrays, version))
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype and read[name].flags.writeable
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_file_cut_anywhere_is_refused(version: int) -> None:
    data = params_bytes({"arg:a": np.ones((2, 3), np.float32), "aux:b": np.ones(2, np.float16)}, version)
    for end in range(len(data)):
        assert "ends inside" in refused(data[:end])
    assert len(read_bytes(data)) == 2


def test_bytes_after_the_end_are_refused() -> None:
    assert "goes on for 3 bytes" in refused(params_bytes(examples()) + b"abc")


def test_what_is_no_list_of_named_dense_arrays_is_refused() -> None:
    one = array_bytes(np.ones(2, np.float32), 2)
    start = struct.pack("<QQQ", 0x112, 0, 1)
    name = struct.pack("<QQ", 1, 1) + b"a"
    assert read_bytes(start + one + name)["a"].tolist() == [1, 1]
    assert "does not start like" in refused(struct.pack("<QQQ", 0x113, 0, 1) + one + name)
    assert "sparse" in refused(start + one[:4] + struct.pack("<i", 1) + one[8:] + name)
    assert "no array" in refused(start + struct.pack("<I", 0xF993FACA) + one[4:] + name)
    assert "no array" in refused(start + struct.pack("<IiI", 0xF993FAC9, 0, 0) + name)
    assert "but 0 names" in refused(start + one + struct.pack("<Q", 0))
    assert "no text" in refused(start + one + struct.pack("<QQ", 1, 1) + b"\xff")
    assert "two arrays called 'a'" in refused(
        struct.pack("<QQQ", 0x112, 0, 2) + one + one + struct.pack("<Q", 2) + 2 * (struct.pack("<Q", 1) + b"a")
    )


@pytest.mark.parametrize("axis", [-1, 0])
def test_axes_below_one_are_refused(axis: int) -> None:
    head = struct.pack("<QQQ", 0x112, 0, 1) + struct.pack("<IiIqq", 0xF993FAC9, 0, 2, axis, 2**62)
    assert "impossible shape" in refused(head + struct.pack("<iii", 1, 0, 0) + bytes(64))


@pytest.mark.parametrize("element", [-1, 7, 2**31 - 1])
def test_unknown_element_types_are_refused(element: int) -> None:
    head = struct.pack("<QQQ", 0x112, 0, 1) + struct.pack("<IiIq", 0xF993FAC9, 0, 1, 2)
    assert "element type" in refused(head + struct.pack("<iii", 1, 0, element) + bytes(64))


def test_lengths_that_lie_cost_no_memory() -> None:
    one = array_bytes(np.ones(2, np.float32), 2)
    huge_array = struct.pack("<IiIqqiii", 0xF993FAC9, 0, 2, 2**40, 2**40, 1, 0, 0)
    half_gigabyte = struct.pack("<IiIqiii", 0xF993FAC9, 0, 1, 2**27, 1, 0, 0)
    lies = [
        struct.pack("<QQQ", 0x112, 0, 2**64 - 1) + one,
        struct.pack("<QQQ", 0x112, 0, 1) + huge_array + bytes(100),
        struct.pack("<QQQ", 0x112, 0, 1) + half_gigabyte + bytes(100),
        struct.pack("<QQQI", 0x112, 0, 1, 0x7FFFFFFF) + bytes(100),
        struct.pack("<QQQ", 0x112, 0, 1) + one + struct.pack("<QQ", 1, 2**63) + b"a",
        struct.pack("<QQQ", 0x112, 0, 1) + one + struct.pack("<Q", 2**64 - 1) + b"a",
    ]
    tracemalloc.start()
    for data in lies:
        refused(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@given(st.binary(max_size=200), st.sampled_from([b"", struct.pack("<QQQ", 0x112, 0, 1)]))
def test_noise_is_read_or_refused_in_words(noise: bytes, start: bytes) -> None:
    try:
        assert isinstance(read_bytes(start + noise), dict)
    except InputError:
        pass


@given(st.data(), st.sampled_from([0, 1, 2]))
def test_a_damaged_file_is_read_or_refused_in_words(data: st.DataObject, version: int) -> None:
    whole = bytearray(params_bytes({"arg:a": np.ones((2, 3), np.float32), "aux:b": np.ones(2, np.int8)}, version))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.sampled_from([0, 1, 8, 127, 128, 255]))
    try:
        for array in read_bytes(bytes(whole)).values():
            assert array.nbytes <= len(whole)
    except InputError:
        pass


def test_absent_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.params", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_params(path)
