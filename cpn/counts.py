"""Counts of many images in one file: what mIoU, its beta curve and its bootstrap are computed from again later."""

from pathlib import Path

import numpy as np

from cpn.files import whole_file


def save_counts(path: Path, ids: list[str], counts: np.ndarray) -> None:
    """Write per-image counts int (N, ..., C), whole or absent, with the images' ids."""
    with whole_file(path) as file:
        np.savez_compressed(file, ids=np.array(ids), counts=counts.astype(np.int32))


def load_counts(path: Path) -> tuple[list[str], np.ndarray]:
    """Read what `save_counts` wrote: ids and int64 counts (N, ..., C)."""
    with np.load(path, allow_pickle=False) as file:
        return [str(i) for i in file["ids"]], file["counts"].astype(np.int64)
