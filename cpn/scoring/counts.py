"""Counts of many images in one file: what mIoU, its beta curve and its bootstrap are computed from again later.

The file is numpy's npz with `ids` and `counts` int32 (N, ..., C), and is written and read image by image: 40,000
images of 81 classes have 2.4 GB of counts, and nobody needs them in memory at once.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cpn.core.checked import OF_RUN, reading
from cpn.core.files import whole_file

KEPT = np.dtype("<i4")


@contextmanager
def counts_file(path: Path, ids: list[str], shape: tuple[int, ...]) -> Iterator[Callable[[NDArray[np.integer]], None]]:
    """Write counts as they come: give a function that takes each image's (of `shape`), in the order of `ids`.

    The file is whole or absent; ValueError when in the end images are missing or too many, or one has another shape.
    """
    written = 0
    with whole_file(path) as file, ZipFile(file, "w", ZIP_DEFLATED) as members:
        with members.open("ids.npy", "w") as member:
            npy.write_array(member, np.array(ids, np.str_), allow_pickle=False)
        with members.open("counts.npy", "w", force_zip64=True) as member:
            whole = (len(ids), *shape)
            npy.write_array_header_1_0(member, {"descr": KEPT.str, "fortran_order": False, "shape": whole})

            def add(counts: NDArray[np.integer]) -> None:
                nonlocal written
                if counts.shape != shape:
                    raise ValueError(f"{path}: counts of shape {counts.shape} for {shape}")
                written += 1
                member.write(np.ascontiguousarray(counts, KEPT).tobytes())

            yield add
        if written != len(ids):
            raise ValueError(f"{path}: counts of {written} images for {len(ids)}")


def save_counts(path: Path, ids: list[str], counts: NDArray[np.integer]) -> None:
    """Write per-image counts int (N, ..., C), whole or absent, with the images' ids."""
    with counts_file(path, ids, counts.shape[1:]) as add:
        for one in counts:
            add(one)


def load_counts(path: Path, cure: str = OF_RUN) -> tuple[list[str], NDArray[np.int64]]:
    """Read the whole of what was written: ids and int64 counts (N, ..., C). DamagedFile where that cannot be."""
    with _opened(path, cure) as file:
        return [str(i) for i in file["ids"]], file["counts"].astype(np.int64)


def load_ids(path: Path) -> list[str]:
    """Return the images whose counts a file has. DamagedFile where it is missing or damaged."""
    with _opened(path) as file:
        return [str(i) for i in file["ids"]]


@contextmanager
def _opened(path: Path, cure: str = OF_RUN) -> Iterator[Any]:
    """Open an npz file; np.load alone would leave a damaged one open."""
    with reading(path, cure), open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
        yield file


def each_counts(path: Path) -> Iterator[NDArray[np.int64]]:
    """Yield the counts (..., C) of one image after the other, in the order of `load_ids`. DamagedFile: not written
    here.
    """
    with reading(path, OF_RUN), ZipFile(path) as members, members.open("counts.npy") as member:
        npy.read_magic(member)
        shape, by_columns, dtype = npy.read_array_header_1_0(member)
        if by_columns:
            raise ValueError(f"{path}: its counts lie in Fortran's order, image by image they cannot be read")
        size = int(np.prod(shape[1:]))
        for _ in range(shape[0]):
            yield np.frombuffer(member.read(size * dtype.itemsize), dtype).reshape(shape[1:]).astype(np.int64)


def two_sums(path: Path, second: Collection[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the counts (..., C) summed over the images that are not in `second` (places in `load_ids`), and over those
    in it.
    """
    sums: list[NDArray[np.int64] | None] = [None, None]
    for index, counts in enumerate(each_counts(path)):
        before = sums[index in second]
        sums[index in second] = counts if before is None else before + counts
    first, last = sums
    if first is None or last is None:
        raise ValueError(f"{path}: all of its images are on one side")
    return first, last
