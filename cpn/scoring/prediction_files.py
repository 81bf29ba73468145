"""Score maps and pseudo labels of any method, read from a folder with one file an image; nothing in it is trusted.

    ID.npz   `classes` int (K,): class indices 1..F, each once; `maps` float (K, H, W): their scores, in [0, 1] at the
             image's size. Or `present` in the place of `classes`, as `map_files.save_maps` writes it. A class 0
             is the background's own map: then no background score is needed, and the scale is free.
    ID.png   the class of every pixel, 0 = background: palette or grey PNG of 8 bits

The size of what is unpacked is known from the headers, and checked, before anything is unpacked. A `.npy` dictionary is
a pickle, which runs code when it is read: it is never read here; of any `.npy` the header says what is to be done.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from cpn.core.checked import is_png, reading
from cpn.core.errors import InputError
from cpn.core.plain_file import MB, is_there, read_input, refuse_irregular
from cpn.data.voc import IGNORE
from cpn.scoring.metrics import BETAS

CURE = "write it again"
MAPS, LABELS = ".npz", ".png"
NAMED = 3
"""How many missing images a message names."""
HEADER = 16_384
"""Bytes that numpy's header of an array takes at most, with room to spare."""

RESAVE = (
    "import glob, numpy as np",
    'save = lambda f, d: np.savez_compressed(f[:-3] + "npz", classes=np.array(d["keys"] if "keys" in d else list(d)) + '
    '1, maps=np.stack(list(d["high_res"] if "keys" in d else d.values())))',
    "[save(f, np.load(f, allow_pickle=True).item()) for f in glob.glob({files!r})]",
)
"""The lines with which the owner of SEAM's or IRN's dictionaries saves them as npz; classes count from 0 there."""


@dataclass(frozen=True)
class PredictionFiles:
    """One file for each image of a list."""

    folder: Path
    paths: tuple[Path, ...]
    """In the order of the list."""
    undecided: Literal["background"] | None = None
    """As what undecided pixels (255) of labels are taken; None refuses them."""

    @property
    def are_maps(self) -> bool:
        """Score maps; else labels."""
        return self.paths[0].suffix == MAPS


@dataclass(frozen=True)
class ScoreMaps:
    """The score maps of one image."""

    present: NDArray[np.int64]
    """Their classes, (K,), the background first where it has a map."""
    maps: NDArray[np.floating]
    """(K, H, W)."""

    @property
    def with_background(self) -> bool:
        """Whether the background has a map of its own."""
        return bool(len(self.present) and self.present[0] == 0)


def find_predictions(
    folder: Path, ids: Sequence[str], other_list: str = "name another list in --list"
) -> PredictionFiles:
    """Find the file of every image; other files are not looked at.

    `other_list` tells how another list is named. InputError for images without one, for maps and labels in one folder,
    and for pickles in their place.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give the folder with ID.npz or ID.png for every image of the list")
    paths = []
    for kind in (MAPS, LABELS):
        candidates = [folder / f"{name}{kind}" for name in ids]
        paths.append([path for path in candidates if is_there(path)])
    maps, labels = paths
    if maps and labels:
        raise InputError(
            f"{folder}: holds score maps and labels, such as {maps[0].name} and {labels[0].name}; "
            "give each kind a folder of its own"
        )
    chosen = maps or labels
    kind = LABELS if labels else MAPS
    having = {path.name for path in chosen}
    missing = [name for name in ids if f"{name}{kind}" not in having]
    if not missing:
        return PredictionFiles(folder, tuple(chosen))
    if (folder / f"{missing[0]}.npy").exists():
        raise InputError(npy_words(folder / f"{missing[0]}.npy"))
    named = ", ".join(missing[:NAMED]) + ", ..." * (len(missing) > NAMED)
    wanted = f"ID{kind}" if chosen else "ID.npz or ID.png"
    raise InputError(
        f"{folder}: has no file for {len(missing)} of {len(ids)} images ({named}); put {wanted} there for each, or "
        f"{other_list}"
    )


def npy_words(path: Path) -> str:
    """Say why a .npy is refused, by its header alone: a pickle, with or without numpy's header, or a plain array."""
    refuse_irregular(path)
    try:
        with open(path, "rb") as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, kind = read(file)
    except (ValueError, EOFError):
        return pickle_words(path)
    if kind.hasobject:
        return pickle_words(path)
    cure = f"numpy.savez_compressed({path.with_suffix(MAPS).name!r}, classes=numbers of its classes from 1, maps=array)"
    if len(shape) == 2:
        cure = f"PIL.Image.fromarray(array.astype('uint8')).save({path.with_suffix(LABELS).name!r})"
    what = f"a plain array of shape {shape} and type {kind}"
    wanted = "classes of all pixels are read from ID.png" if len(shape) == 2 else "score maps are read from ID.npz"
    return f"{path}: is {what}, and {wanted}; save each array by {cure}"


def pickle_words(path: Path) -> str:
    """Say why a .npy is refused, and with which lines its owner saves a folder of them as npz."""
    lines = "; ".join(RESAVE).format(files=str(path.parent / "*.npy"))
    return (
        f"{path}: a .npy dictionary is a pickle, which runs code when it is read; if it is your own, save it as npz "
        f"with these three lines of Python (where key 0 is the background, without the + 1): {lines}"
    )


def read_maps(path: Path, shape: tuple[int, int], classes: int, halved: bool = False) -> ScoreMaps:
    """Read score maps that have to fit a mask of `shape` (H, W) and `classes` C; float16 as float32.

    With `halved` they are doubled, exactly. InputError, before anything is unpacked, for another size or a class
    outside 0..F; and for scores that are not finite, or that no background score of BETAS can be compared with.
    """
    most = 8 * classes * math.prod(shape) + HEADER
    data = read_input(path, 2 * most + MB)
    with reading(path, CURE), ZipFile(io.BytesIO(data)) as members:
        if len(set(members.namelist())) < len(members.namelist()):
            raise InputError(f"{path}: holds an array of one name twice; {CURE} with each once")
        keys = [key for key in ("present", "classes") if f"{key}.npy" in members.namelist()]
        if len(keys) != 1 or "maps.npy" not in members.namelist():
            raise InputError(f"{path}: holds no `maps` with their `classes` (or `present`); write both, and no third")
        kind, size = _header(path, members, keys[0], most)
        if kind.kind not in "iu" and size != (0,):
            raise InputError(f"{path}: `{keys[0]}` is of type {kind}; write class indices as whole numbers")
        if len(size) != 1 or size[0] > classes:
            raise InputError(
                f"{path}: `{keys[0]}` has shape {size}; write each of the data set's {classes - 1} classes once at most"
            )
        wanted = (size[0], *shape)
        kind, map_shape = _header(path, members, "maps", most)
        if kind.kind != "f" or kind.itemsize > 8:
            raise InputError(f"{path}: `maps` is of type {kind}; write scores as float16, float32 or float64")
        if map_shape != wanted:
            raise InputError(
                f"{path}: `maps` has shape {map_shape}, its {size[0]} classes and its image make it {wanted}; "
                "write a map for each class at the image's own size"
            )
        present, maps = _array(members, keys[0]).astype(np.int64), _array(members, "maps")
    _check_classes(path, keys[0], present, classes)
    maps = maps.astype(np.float64 if maps.dtype.itemsize == 8 else np.float32)
    if not np.isfinite(maps).all():
        raise InputError(f"{path}: `maps` holds a score that is not finite; {CURE} without NaN and infinity")
    if halved:
        if maps.size and np.abs(maps).max() > np.finfo(maps.dtype).max / 2:
            raise InputError(f"{path}: `maps` holds a score too large to be doubled; leave out --halved, or {CURE}")
        maps = maps * maps.dtype.type(2)
    order = np.argsort(present != 0, kind="stable")  # the background first: a tie is its, as everywhere
    result = ScoreMaps(present[order], maps[order])
    if maps.size and not result.with_background and maps.max() > BETAS[-1]:
        quantity = "twice its score" if halved else "a score"
        raise InputError(
            f"{path}: `maps` holds {quantity} of {maps.max():.4g}, and background scores are tried up to {BETAS[-1]}; "
            f"bring scores to [0, 1]{', or leave out --halved' * halved}"
        )
    return result


def read_label(
    path: Path,
    shape: tuple[int, int],
    classes: int,
    undecided: Literal["background"] | None = None,
    option: str | None = None,
) -> NDArray[np.uint8]:
    """Read the classes of all pixels, uint8 (H, W), that have to fit a mask of `shape` (H, W) and `classes` C.

    With `undecided` background, 255 becomes 0, as IRN's own evaluation takes it; `option` is the command's for that,
    where it has one, and is named where such a pixel is met without it. InputError for another size, before anything is
    unpacked, for colours in the place of classes, and for a class outside 0..F.
    """
    data = read_input(path, 4 * math.prod(shape) + MB)
    if not is_png(data) or data[12:16] != b"IHDR":
        raise InputError(f"{path}: is no whole PNG; {CURE}")
    width, height, bits, colours = (
        int.from_bytes(data[a:b], "big") for a, b in ((16, 20), (20, 24), (24, 25), (25, 26))
    )
    if (height, width) != shape:
        raise InputError(
            f"{path}: is {width}x{height}, its image {shape[1]}x{shape[0]} pixels; {CURE} at the image's own size"
        )
    if colours not in (0, 3) or (colours == 0 and bits != 8):
        raise InputError(f"{path}: holds no class indices but colours; {CURE} as a palette or grey PNG of 8 bits")
    with reading(path, CURE), Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        label: NDArray[np.uint8] = np.array(picture, np.uint8)
    if undecided == "background":
        label[label == IGNORE] = 0
    if (largest := int(label.max(initial=0))) >= classes:
        ignored = largest == IGNORE
        offered = f"{option} takes such pixels as background, or " if ignored and option else ""
        raise InputError(
            f"{path}: holds {largest}{' (undecided)' * ignored}, and classes are 0 to {classes - 1}; {offered}{CURE} "
            f"with a class for every pixel{', 0 where you would train on background' * ignored}"
        )
    return label


def _header(path: Path, members: ZipFile, name: str, most: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape of an array in a zip, by its header alone; its bytes have to be those that the header makes."""
    info = members.getinfo(f"{name}.npy")
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise InputError(f"{path}: `{name}` is compressed in a way that numpy does not write; {CURE} with numpy.savez")
    if info.file_size > most:
        raise InputError(
            f"{path}: `{name}` unpacks to {info.file_size} bytes, more than scores of all classes at the image's size "
            f"take ({most}); write maps at the image's own size"
        )
    with members.open(info) as member:
        version = npy.read_magic(member)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, kind = read(member)
        begun = member.tell()
    if kind.hasobject:
        raise InputError(f"{path}: `{name}` holds Python objects, a pickle that is not read; {CURE} as plain numbers")
    if not all(type(side) is int and side >= 0 for side in shape):  # numpy takes true for 1, and fails on it later
        raise ValueError(f"{name} has the shape {shape}")
    if begun + math.prod(shape) * kind.itemsize != info.file_size:
        raise ValueError(f"{name} has not the {math.prod(shape)} numbers that its header says")
    return kind, tuple(shape)


def _array(members: ZipFile, name: str) -> NDArray[Any]:
    """Return an array of a zip whose header has been checked; never a pickle."""
    with members.open(f"{name}.npy") as member:
        array: NDArray[Any] = npy.read_array(member, allow_pickle=False)
    return array


def _check_classes(path: Path, key: str, present: NDArray[np.int64], classes: int) -> None:
    outside = [int(label) for label in present if not 0 <= label < classes]
    if outside:
        raise InputError(
            f"{path}: `{key}` holds {outside[0]}, and classes are 1 to {classes - 1}, 0 the background; count from 1"
        )
    if len(np.unique(present)) != len(present):
        raise InputError(f"{path}: `{key}` holds a class twice; write one map for each")
