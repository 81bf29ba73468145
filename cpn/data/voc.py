"""VOC 2012 names and constants, the data section, and reading packed data sets.

A packed data set is the folder ROOT/packed that `python -m cpn.prepare ROOT` writes:

    manifest.json        classes, fingerprint, and for each list its number of rows and the sizes of its files
    LIST.arrow           Arrow IPC, one row per record batch: `image` and `mask` as encoded bytes (a mask may be null)
    LIST.index.arrow     Arrow IPC, one record batch: `id` (string) and `label` (list<float32>, F entries; NaN: unknown)

Rows are memory-mapped from a local disk, or read one by one through `pyarrow.fs` when ROOT is a URL (`s3://bucket/voc`);
a sweep copies such a data set to each of its machines once (cpn/data/packed_copy.py).
"""

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pyarrow import ipc

from cpn.core import object_storage
from cpn.core.checked import reading, verified
from cpn.core.errors import InputError
from cpn.core.files import DamagedFile, unsealed
from cpn.core.opencv import cv2
from cpn.core.plain_file import folder_there, refuse_irregular

IGNORE = 255
"""Mask value of pixels that belong to no class: never trained on, never scored."""

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 foreground classes of VOC 2012 in alphabetical order; mask value = position + 1, background = 0."""

PACK_FORMAT = 1
"""Layout number of the packed folder; a reader refuses any other."""


def palette() -> NDArray[np.uint8]:
    """Return the VOC colour map, uint8 (256, 3): bit j of the index, three bits a level, sets bit 7 - level of
    R, G, B.
    """
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = (index >> (3 * level + channel)) & 1
            colours[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return colours


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode JPEG or PNG bytes to RGB, uint8 (H, W, 3).

    The orientation tag of EXIF is ignored: masks are drawn on the stored pixels, a turned image would not fit its mask.
    Raises ValueError when the bytes are no image.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError("not a JPEG or PNG image")
    rgb: NDArray[Any] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def decode_mask(data: bytes) -> NDArray[np.uint8]:
    """Decode a PNG mask to class indices, uint8 (H, W). PIL, because cv2 would turn palette indices into colours."""
    with Image.open(io.BytesIO(data)) as mask:
        return np.array(mask, dtype=np.uint8)


def encode_mask(mask: NDArray[np.uint8], texts: Mapping[str, str] | None = None) -> bytes:
    """Encode class indices uint8 (H, W) as a palette PNG in VOC colours; `texts` are kept in it by keyword."""
    picture = Image.fromarray(mask)
    picture.putpalette(palette().tobytes())
    info = PngInfo()
    for keyword, text in (texts or {}).items():
        info.add_text(keyword, text)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _open(folder: str, name: str) -> Any:
    """Open one packed file: memory map on a local disk, pyarrow.fs for a URL."""
    if object_storage.is_url(folder):
        system, path = object_storage.filesystem(folder)
        return system.open_input_file(f"{path}/{name}")
    refuse_irregular(Path(folder, name))
    return pa.memory_map(os.path.join(folder, name))


class Split:
    """One packed list. Cheap to pickle: each process maps the file at its own first access."""

    def __init__(
        self, folder: str, name: str, digest: str, ids: list[str], labels: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> None:
        self.name = name
        """Name of the list."""
        self.ids = ids
        """Image names in list order, N of them."""
        self.labels = labels
        """Image-level labels, float32 (N, F), 0 or 1, or all NaN in a list without labels; read-only."""
        self._folder, self._digest, self._rows = folder, digest, rows
        self._reader: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """SHA-256 over the content of the whole list."""
        return self._digest

    @property
    def labelled(self) -> bool:
        """Whether the labels are known; those of VOC's test list are not, and it serves prediction only."""
        return not bool(np.isnan(self.labels).any())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return the image at `index` as RGB, uint8 (H, W, 3)."""
        return decode_image(self._row(index)["image"][0].as_buffer())

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels of the image at `index`, by its header alone."""
        with Image.open(pa.BufferReader(self._row(index)["image"][0].as_buffer())) as image:
            return image.height, image.width

    def mask(self, index: int) -> NDArray[np.uint8] | None:
        """Return the mask at `index` as class indices, uint8 (H, W), with IGNORE; None where the data set has none."""
        cell = self._row(index)["mask"][0]
        return decode_mask(cell.as_py()) if cell.is_valid else None

    @property
    def masked(self) -> bool:
        """Whether its images have masks. InputError when some have one and some do not."""
        missing = [name for at, name in enumerate(self.ids) if not self._row(at)["mask"][0].is_valid]
        if missing and len(missing) < len(self):
            raise InputError(
                f"list {self.name} has masks for {len(self) - len(missing)} of {len(self)} images, {missing[0]} has "
                "none: add the others, or take them all away to do without"
            )
        return not missing

    def subset(self, ids: Sequence[str]) -> "Split":
        """Return the list restricted to `ids`, in that order. KeyError names an id that is not in it."""
        position = {name: at for at, name in enumerate(self.ids)}
        missing = [name for name in ids if name not in position]
        if missing:
            raise KeyError(f"list {self.name} holds no image {missing[0]}")
        rows = np.array([position[name] for name in ids], np.int64)
        labels = self.labels[rows]
        labels.flags.writeable = False
        return Split(self._folder, self.name, self._digest, list(ids), labels, self._rows[rows])

    def _row(self, index: int) -> Any:
        if self._reader is None or self._reader[0] != os.getpid():
            with reading(Path(self._folder, f"{self.name}.arrow"), _again(self._folder)):
                reader = ipc.open_file(_open(self._folder, f"{self.name}.arrow"))
            file_digest = (reader.schema.metadata or {}).get(b"digest", b"").decode()
            if file_digest != self._digest:
                raise InputError(
                    f"{self._folder}/{self.name}.arrow was packed anew while it was in use: start the command again"
                )
            self._reader = (os.getpid(), reader)
        if not -len(self) <= index < len(self):
            raise IndexError(f"list {self.name} has {len(self)} images, no index {index}")
        return self._reader[1].get_batch(int(self._rows[index]))


class Pack:
    """A packed data set. `root` is the path or URL it was opened from."""

    def __init__(self, root: str, folder: str, manifest: dict[str, Any]) -> None:
        self.root = root
        """Path or URL of the data set."""
        self.fingerprint: str = manifest["fingerprint"]
        """SHA-256 over the content of all packed lists with labels and the class names, wherever the data set lies."""
        self.classes: tuple[str, ...] = tuple(manifest["classes"])
        """The F foreground class names; mask value = position + 1."""
        self.lists: tuple[str, ...] = tuple(sorted(manifest["lists"]))
        """Names of the packed lists."""
        self.manifest = manifest
        """What manifest.json says."""
        self._folder = folder

    def notes(self, name: str | None = None) -> list[str]:
        """Return the notes for the user from packing list `name`, or all lists; older packs have none."""
        lines = (self.manifest if name is None else self.manifest["lists"][name]).get("notes", [])
        return [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []

    def check(self, lists: Sequence[str] | None = None, again: bool = False) -> None:
        """Raise DamagedFile unless the files of these lists (all) are what was packed. Remembered by machine; `again`
        reads them all the same. What an earlier version packed has no digests, and at a URL each copy is checked.
        """
        for name, (_, sha256) in () if object_storage.is_url(self._folder) else packed_files(self, lists).items():
            if sha256 is not None and not verified(Path(self._folder, name), sha256, again):
                if open_pack(self.root).manifest != self.manifest:
                    raise InputError(
                        f"{self._folder}/{name} was packed anew while it was in use: start the command again"
                    )
                raise DamagedFile(Path(self._folder, name), _again(self._folder), "it is not what was packed")

    @property
    def checkable(self) -> bool:
        """Whether its files have digests; earlier versions kept none."""
        return all(sha256 is not None for _, sha256 in packed_files(self).values())

    def split(self, name: str) -> Split:
        """Open one list, whose files are held against their digests once a machine (`check`).

        InputError if it was not packed; DamagedFile if it is not what was packed.
        """
        entry = self.manifest["lists"].get(name)
        if entry is None:
            known = ", ".join(self.lists)
            raise InputError(
                f"{self.root}: list {name} is not packed (there are {known}): "
                "run python -m cpn.prepare "
                f"{'FOLDER --out ' * object_storage.is_url(self.root)}{self.root} --lists {name}"
            )
        self.check([name])
        index = Path(self._folder, f"{name}.index.arrow")
        with reading(index, _again(self._folder)), _open(self._folder, index.name) as file:
            table = ipc.open_file(file).read_all()
            ids: list[str] = table["id"].to_pylist()
            flat = table["label"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        outside = next((name for name in ids if not re.fullmatch(r"[^/\\\0]+", name) or name in (".", "..")), None)
        if outside is not None:
            raise InputError(
                f"{self._folder}/{name}.index.arrow names an image {outside!r}, and files are named by it: run "
                f"python -m cpn.prepare {self.root}"
            )
        with reading(index, _again(self._folder)):
            labels = flat.astype(np.float32).reshape(len(ids), len(self.classes))
        labels.flags.writeable = False
        return Split(self._folder, name, entry["digest"], ids, labels, np.arange(len(ids)))


def open_pack(root: Path | str, key: str = "data.root") -> Pack:
    """Open the packed data set of `root`, a folder or URL that the option or value `key` named.

    Raises InputError if it is missing, not prepared, or not whole.
    """
    place = str(root)
    if "://" not in place and not folder_there(Path(place), key):
        how = f"{key} FOLDER" if key.startswith("--") else f"--set {key}=FOLDER"
        raise InputError(f"{key}: {place} is no folder: give the folder of the data set with {how}")
    folder = place.rstrip("/") + "/packed"
    cure = f"run python -m cpn.prepare {place}"
    if object_storage.is_url(place):
        object_storage.check_url(place, "data.root", write=False)
        cure = f"run python -m cpn.prepare FOLDER --out {place}"
    try:
        with _open(folder, "manifest.json") as file:
            manifest = unsealed(file.read(), f"{folder}/manifest.json", cure)
    except FileNotFoundError:
        raise InputError(f"data.root: {place} is not prepared: {cure}") from None
    except DamagedFile:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}/manifest.json cannot be read ({_one_line(error)}): {cure}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != PACK_FORMAT:
        raise InputError(f"{folder}/manifest.json is of another version: {cure}")
    if not _is_whole(manifest):
        raise DamagedFile(f"{folder}/manifest.json", cure)
    for name, entry in manifest["lists"].items():
        for file_name, size in ((f"{name}.arrow", entry["bytes"]), (f"{name}.index.arrow", entry["index_bytes"])):
            try:
                with _open(folder, file_name) as file:
                    actual_size = file.size()
            except OSError:
                actual_size = -1
            if actual_size != size:
                raise DamagedFile(
                    f"{folder}/{file_name}", cure, f"{actual_size} of {size} bytes", missing=actual_size < 0
                )
    return Pack(place, folder, manifest)


def packed_files(pack: "Pack", lists: Sequence[str] | None = None) -> dict[str, tuple[int, str | None]]:
    """Name -> size in bytes and SHA-256 (None where an earlier version packed it) of a packed folder's Arrow files, of
    all lists or of these.
    """
    files = {}
    for name in pack.manifest["lists"] if lists is None else lists:
        entry = pack.manifest["lists"][name]
        files[f"{name}.arrow"] = (int(entry["bytes"]), entry.get("sha256"))
        files[f"{name}.index.arrow"] = (int(entry["index_bytes"]), entry.get("index_sha256"))
    return files


def _is_whole(manifest: dict[str, Any]) -> bool:
    """Return whether a manifest, which may come from anywhere, says what readers ask of it, and names no file
    outside.
    """
    lists, classes = manifest.get("lists"), manifest.get("classes")
    return (
        isinstance(manifest.get("fingerprint"), str)
        and isinstance(classes, list)
        and all(isinstance(name, str) for name in classes)
        and isinstance(lists, dict)
        and all(re.fullmatch(r"\w[\w.-]*", name) for name in lists)
        and all(
            isinstance(entry, dict) and {"digest", "bytes", "index_bytes"} <= entry.keys() for entry in lists.values()
        )
    )


def mask_of(split: Split, index: int) -> NDArray[np.uint8]:
    """Return the mask of an image, uint8 (H, W). InputError where there is none."""
    truth = split.mask(index)
    if truth is None:
        raise InputError(
            f"{split.ids[index]}: has no mask, but list {split.name!r} is scored; name a list with masks in --list"
        )
    return truth


def _again(folder: str) -> str:
    """Return the command that repairs a packed folder."""
    root = folder.removesuffix("/packed")
    return f"run python -m cpn.prepare {'FOLDER --out ' if object_storage.is_url(root) else ''}{root}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
