"""Reads MXNet's `.params` files without MXNet: a list of dense arrays, then the list of their names.

    uint64 0x112, uint64 reserved, uint64 number of arrays, the arrays, uint64 number of names, the names
    name  = uint64 length, that many bytes
    array = version 2: uint32 0xF993fac9, int32 storage type (0 dense), uint32 ndim, int64 per axis
            version 1: uint32 0xF993fac8,                               uint32 ndim, int64 per axis
            before   :                                                  uint32 ndim, uint32 per axis
            then in each: int32 device type, int32 device number, int32 element type, the elements in C order

All little-endian. A file comes from anywhere, so every length is held against what is left of the file before
anything is allocated: reading takes no more memory than the file has bytes.
"""

import math
import os
import struct
from io import BufferedReader
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cpn.core.errors import InputError

MAGIC = 0x112
VERSION_1 = 0xF993FAC8
VERSION_2 = 0xF993FAC9
ELEMENT_TYPES = ("<f4", "<f8", "<f2", "<u1", "<i4", "<i1", "<i8")
MAX_AXES = 8


def read_params(path: Path) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a `.params` file by name, names as they stand (`arg:conv1a_weight`, `aux:bn7_moving_mean`).

    Raises InputError when the file is cut short, damaged, or holds something else than named dense arrays.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _ParamsReader(path, file, size).named_arrays()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give an MXNet .params file") from error


class _ParamsReader:
    """The place in one file, and the questions that are asked of it."""

    def __init__(self, path: Path, file: BufferedReader, size: int) -> None:
        self.path = path
        self.file = file
        self.left = size

    def named_arrays(self) -> dict[str, NDArray[np.generic]]:
        magic, _ = self.unpack("<QQ", "the header")
        if magic != MAGIC:
            raise self.error("does not start like an MXNet .params file")
        (count,) = self.unpack("<Q", "the number of arrays")
        arrays: list[NDArray[np.generic]] = []
        while len(arrays) < count:  # each takes 21 bytes or more, so a wrong count ends with the file
            arrays.append(self.array(f"array {len(arrays) + 1} of {count}"))
        (names,) = self.unpack("<Q", "the number of names")
        if names != count:
            raise self.error(f"has {count} arrays but {names} names")
        result = {}
        for array in arrays:
            name = self.name()
            if name in result:
                raise self.error(f"has two arrays called {name!r}")
            result[name] = array
        if self.left:
            raise self.error(f"goes on for {self.left} bytes after its end")
        return result

    def array(self, what: str) -> NDArray[np.generic]:
        (word,) = self.unpack("<I", what)
        if word == VERSION_2:
            (storage,) = self.unpack("<i", what)
            if storage != 0:
                raise self.error(f"holds a sparse array ({what}, storage type {storage})")
        axes = self.unpack("<I", what)[0] if word in (VERSION_1, VERSION_2) else word
        if not 1 <= axes <= MAX_AXES:
            raise self.error(f"has no array where one should begin ({what})")
        shape = self.unpack(f"<{axes}{'q' if word in (VERSION_1, VERSION_2) else 'I'}", what)
        _, _, element = self.unpack("<iii", what)
        if min(shape) < 1 or not 0 <= element < len(ELEMENT_TYPES):
            raise self.error(f"has an impossible shape or element type ({what}: {shape}, type {element})")
        dtype = np.dtype(ELEMENT_TYPES[element])
        flat = np.frombuffer(self.read(math.prod(shape) * dtype.itemsize, what), dtype)
        return flat.reshape(shape)

    def name(self) -> str:
        (length,) = self.unpack("<Q", "a name")
        try:
            return self.read(length, "a name").decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error("has a name that is no text") from error

    def unpack(self, layout: str, what: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.read(struct.calcsize(layout), what))

    def read(self, length: int, what: str) -> bytearray:
        """Return the next `length` bytes, in memory that may be written to; refused before allocating when there are
        fewer.
        """
        if length > self.left:
            raise self.error(f"ends inside {what}: {length} bytes are due and {self.left} left")
        data = bytearray(length)
        if self.file.readinto(data) != length:
            raise self.error(f"became shorter while {what} was read")
        self.left -= length
        return data

    def error(self, problem: str) -> InputError:
        return InputError(f"{self.path}: {problem}; download the .params file again and compare its size")
