"""Files of score maps and pseudo labels, one an image, as the stages keep them."""

from pathlib import Path

import numpy as np

from cpn.core.checked import is_png, reading
from cpn.core.files import AGAIN, DamagedFile, whole_file, write_bytes
from cpn.data.voc import decode_mask, encode_mask


def present_classes(labels: np.ndarray) -> np.ndarray:
    """Multi-hot labels (F,) -> class indices (P,) in 1..F."""
    return np.flatnonzero(labels > 0) + 1


def save_maps(path: Path, maps: np.ndarray, present: np.ndarray) -> None:
    """Write un-halved maps float (P, H, W) and their class indices (P,) compactly: float16, present classes only."""
    with whole_file(path) as file:
        np.savez_compressed(file, maps=maps.astype(np.float16), present=present.astype(np.uint8))


def load_maps(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read what `save_maps` wrote: float32 (P, H, W) in [0, 1], int64 (P,) in 1..F. DamagedFile: it is not that."""
    with reading(path), open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
        return file["maps"].astype(np.float32), file["present"].astype(np.int64)


def save_label(path: Path, label: np.ndarray) -> None:
    """Write class indices uint8 (H, W) as a palette PNG in VOC colours, whole or absent."""
    write_bytes(path, encode_mask(label))


def load_label(path: Path) -> np.ndarray:
    """Read what `save_label` wrote: class indices uint8 (H, W). DamagedFile where it is missing or damaged."""
    with reading(path):
        data = path.read_bytes()
        if not is_png(data):
            raise DamagedFile(path, AGAIN, "it is no whole PNG")
        return decode_mask(data)
