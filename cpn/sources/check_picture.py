"""Five images of a data set with their masks and labels, to see at once whether they belong together."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cpn.data.voc import IGNORE, palette
from cpn.sources.voc_folder import LARGE, Checked

COUNT = 5
SIDE, WORDS, GAP = 260, 380, 12
"""Pixels of an image's longer side, of the column of words, and between them."""
INK, FAINT = (20, 20, 20), (110, 110, 110)


def chosen(checked: Mapping[str, Sequence[Checked]], scored: Sequence[str]) -> list[tuple[str, Checked]]:
    """Up to five images, each with its list: those with masks first, then those that add most classes, in list order.

    Lists without labels have none.
    """
    names = [*(name for name in scored if name in checked), *(name for name in checked if name not in scored)]
    rows = {row.entry.image: (name, row) for name in reversed(names) for row in checked[name]}
    left = [rows[image] for image in dict.fromkeys(row.entry.image for name in names for row in checked[name])]
    left = [pair for pair in left if pair[1].classes is not None]
    picked: list[tuple[str, Checked]] = []
    seen: set[int] = set()

    def worth(pair: tuple[str, Checked]) -> tuple[bool, bool, bool, int]:
        row = pair[1]
        classes = set(row.classes or ()) | set(row.mask_classes or ())
        large = row.shape[0] * row.shape[1] > LARGE  # it has to be decoded again
        return row.mask_classes is not None, not large, bool(classes), len(classes - seen)

    while left and len(picked) < COUNT:
        best = max(left, key=worth)
        left.remove(best)
        picked.append(best)
        seen |= set(best[1].classes or ()) | set(best[1].mask_classes or ())
    return picked


def check_picture(rows: Sequence[tuple[str, Checked]], classes: Sequence[str]) -> bytes:
    """Draw one line for each image: it, it under its mask in VOC's colours (ignore in white), and what its label says;
    PNG.

    Images and masks are read again, scaled down.
    """
    width = 3 * GAP + 2 * SIDE + WORDS
    parts = [_line(name, row, classes) for name, row in rows]
    sheet = Image.new("RGB", (width, GAP + sum(part.height + GAP for part in parts)), (255, 255, 255))
    top = GAP
    for part in parts:
        sheet.paste(part, (GAP, top))
        top += part.height + GAP
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _line(name: str, row: Checked, classes: Sequence[str]) -> Image.Image:
    with Image.open(row.entry.image) as picture:
        picture.draft("RGB", (2 * SIDE, 2 * SIDE))
        shown = picture.convert("RGB")
    scale = SIDE / max(row.shape)
    size = max(1, round(row.shape[1] * scale)), max(1, round(row.shape[0] * scale))
    shown = shown.resize(size, Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.NEAREST)
    label, mask = set(row.classes or ()), set(row.mask_classes or ())
    words: list[tuple[str, int | None]] = [(f"{row.entry.name} ({name})", None)]
    words.append(("label: " + (", ".join(classes[at] for at in sorted(label)) or "no class"), None))
    if row.entry.mask is None:
        words.append(("no mask", None))
    else:
        words.append(("mask: " + ("" if mask else "no class"), None))
        words += [
            (f"{at + 1} {classes[at]}" + ("" if at in label else ", not in label"), at + 1) for at in sorted(mask)
        ]
        if row.ignored:
            words.append((f"{IGNORE} ignore: {row.ignored:.0%} of the pixels", IGNORE))
    font = ImageFont.load_default(14)
    part = Image.new("RGB", (2 * SIDE + GAP + WORDS, max(size[1], 19 * min(len(words), 12))), (255, 255, 255))
    part.paste(shown, (0, 0))
    if row.entry.mask is not None:
        with Image.open(row.entry.mask) as opened:
            values = np.array(opened.resize(size, Image.Resampling.NEAREST), np.uint8)
        part.paste(Image.fromarray(_under(np.asarray(shown), values)), (SIDE + GAP, 0))
    pen = ImageDraw.Draw(part)
    left = 2 * (SIDE + GAP)
    for at, (text, value) in enumerate(words[:12]):
        if value is not None:
            colour = (255, 255, 255) if value == IGNORE else tuple(palette()[value].tolist())
            pen.rectangle((left, 19 * at + 3, left + 12, 19 * at + 14), colour, FAINT)
        pen.text((left + 18 * (value is not None), 19 * at), text[:60], INK if at else FAINT, font)
    return part


def _under(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay the mask's colours over the image: classes at 60 %, IGNORE white, background darkened."""
    colours = palette()[mask].astype(np.float32)
    colours[mask == IGNORE] = 255
    share = np.where(mask == 0, 0.5, np.where(mask == IGNORE, 0.8, 0.6))[..., None]
    result: NDArray[np.uint8] = np.rint((1 - share) * image + share * colours).astype(np.uint8)
    return result


def write_check(
    path: Path, checked: Mapping[str, Sequence[Checked]], scored: Sequence[str], classes: Sequence[str]
) -> None:
    """Write the picture, unless no list has labels."""
    if rows := chosen(checked, scored):
        path.write_bytes(check_picture(rows, classes))
