"""The rule for image ids, one for `cpn.prepare`'s lists and `cpn.coco`'s pictures, and files that lie beside a name.

An id is a file's name without its ending. It may hold blanks, dots and any letters; it names files in many folders, so
it is no path, is no longer than a file's name can be, has no control characters, neither begins nor ends with a blank,
and does not end like a picture's file, because a list may also give `ID.jpg`.
"""

import unicodedata
from pathlib import Path

LONGEST_ID = 230
"""Bytes of an id in UTF-8: a file's name holds 255, and an id gets an ending and, while it is written, marks more."""
PICTURES = (".jpg", ".jpeg", ".png")
"""Endings of pictures, in small or capital letters."""
OTHER_PICTURES = (".bmp", ".tif", ".tiff", ".gif", ".webp", ".heic", ".avif", ".jp2", ".jfif", ".jpe")
"""Endings of pictures that have to be converted or renamed first."""

_FORMATS = (
    (b"RIFF", "WebP"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"version https://git-lfs", "Git LFS pointer"),
)
CONVERTIBLE = ("WebP", "GIF", "BMP", "TIFF", "HEIC", "AVIF", "JPEG 2000")
"""Kinds of `format_of` that are pictures, and become readable by conversion."""
_BOXES = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}


def is_image_id(text: str) -> bool:
    """Return whether `text` can be the id of an image."""
    return (
        bool(text)
        and len(text.encode(errors="replace")) <= LONGEST_ID
        and text == text.strip()
        and text.isprintable()
        and not any(mark in text for mark in "/\\")
        and text not in (".", "..")
        and Path(text).suffix.lower() not in PICTURES
    )


def format_of(data: bytes) -> str | None:
    """Name the file format that begins like this; None for an unknown one."""
    if data[4:8] == b"ftyp":
        return _BOXES.get(data[8:12])
    if data[:4] == b"RIFF" and data[8:12] != b"WEBP":
        return None
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "web page"
    return next((name for start, name in _FORMATS if data.startswith(start)), None)


def pictures_by_name(folder: Path) -> dict[str, list[str]]:
    """Return the files in a folder that may be pictures, of any format, by `loose_name`, each list in order."""
    names: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in (*PICTURES, *OTHER_PICTURES):
            names.setdefault(loose_name(path.stem), []).append(path.name)
    return names


def loose_name(text: str) -> str:
    """Return a name without the difference of capitals and of Unicode forms, which file systems treat differently."""
    return unicodedata.normalize("NFC", text).casefold()
