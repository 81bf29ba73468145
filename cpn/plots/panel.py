"""Panels: several images in one PNG, each with its masks, heat maps and errors side by side.

Masks have the VOC colours; heat maps are viridis and error colours are Okabe and Ito's, which colour-blind people tell
apart too. A panel is 1080 pixels wide: the MLflow UI shows it unscaled or at three quarters. Drawn with Pillow, a
twentieth of a second each, since every trial has one.
"""

import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cpn.core.errors import printable
from cpn.data.voc import IGNORE, palette

HEAT = "viridis"
WIDTH, MARGIN, GAP = 1080, 14, 8
WIDEST, TALLEST = 210, 160
"""Pixels of a cell at most."""
TEXT, HEAD, TITLE = 14, 14, 18
"""Font sizes in pixels."""
PLACES = "places"
"""Keyword of a panel's text that says where its blocks are: JSON, of each image id, first row of pixels, and the one
behind its last.
"""
INK, FAINT = (20, 20, 20), (90, 90, 90)

ERRORS: dict[str, tuple[int, int, int]] = {
    "correct": (178, 178, 178),
    "background": (38, 38, 38),
    "false negative": (86, 180, 233),
    "false positive": (213, 94, 0),
    "wrong class": (240, 228, 66),
    "ignored": (255, 255, 255),
}
"""Colours of `error_map`: object pixels of the right class, background rightly left alone, and the kinds of error: an
object taken for background is a false negative, background taken for an object a false positive.
"""


class PanelRow(NamedTuple):
    """One image of a panel.

    `image` is uint8 (H, W, 3); `truth` uint8 (H, W) with IGNORE, or None. `columns` maps a head to an array: float
    (H, W) in [0, 1] is shown as heat, uint8 (H, W) as a mask, uint8 (H, W, 3) as it is. Sizes may differ. `caption`
    stands behind the id; `notes` maps a head to a few words in the corner of its cell.
    """

    id: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None
    columns: Mapping[str, NDArray[Any] | None]
    caption: str = ""
    notes: Mapping[str, str] = {}


def error_map(prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what a mask gets wrong: two uint8 (H, W) masks -> uint8 RGB (H, W, 3) in the colours of ERRORS."""
    kinds = np.full(truth.shape, "wrong class", dtype=object)
    kinds[prediction == truth] = "correct"
    kinds[(prediction == 0) & (truth == 0)] = "background"
    kinds[(prediction == 0) & (truth != 0)] = "false negative"
    kinds[(prediction != 0) & (truth == 0)] = "false positive"
    kinds[truth == IGNORE] = "ignored"
    picture = np.zeros((*truth.shape, 3), np.uint8)
    for kind, colour in ERRORS.items():
        picture[kinds == kind] = colour
    return picture


def heat_over(image: NDArray[np.uint8], heat: NDArray[np.floating], strength: float = 0.5) -> NDArray[np.uint8]:
    """Lay a map (H, W) in [0, 1] over an image, uint8 (H, W, 3), in the colours of heat: which part of it is meant."""
    mixed = (1 - strength) * image + strength * _coloured(heat)
    over: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return over


def cam_panel(
    rows: Sequence[PanelRow],
    names: Sequence[str] | None = None,
    title: str = "",
    across: int | None = None,
    scale: str = "class score",
) -> bytes:
    """Draw one block per image: image, truth, then the columns of all rows in the order of their first appearance.

    At most `across` cells stand side by side, all of them by default; the rest follows below, in lines of equal length.
    Where each block stands is kept in the PNG (PLACES). `names` are the class names from background on, for the legend
    of the mask colours, `scale` what the colours of heat mean. A legend of ERRORS is added if a
    column's head begins with "error". A cell without its array holds its note, or "none". ValueError without rows, and
    for a mask with a label that has no name.
    """
    if not rows:
        raise ValueError("a panel needs at least one row")
    if names is not None:
        _check_labels(rows, len(names))
    truth = ["truth"] if any(row.truth is not None for row in rows) else []
    heads = ["image", *truth, *dict.fromkeys(head for row in rows for head in row.columns)]
    lines_needed = -(-len(heads) // (across or len(heads)))
    across = -(-len(heads) // lines_needed)
    lines = [heads[start : start + across] for start in range(0, len(heads), across)]
    side = min(WIDEST, (WIDTH - 2 * MARGIN - (across - 1) * GAP) // across)
    keys = [*_class_keys(rows, names), *_error_keys(heads)]
    heat = any(_is_heat(array) for row in rows for array in row.columns.values())
    wrapped = [[_wrapped(head, side) for head in line] for line in lines]
    above = [max(map(len, heads_of)) * (HEAD + 3) + 3 for heads_of in wrapped]
    tall = [_cell_size(row.image, side)[1] for row in rows]
    blocks = [TEXT + 10 + sum(space + height + GAP for space in above) + 6 for height in tall]
    legend = _placed(keys, WIDTH - 2 * MARGIN - (300 if heat else 0))
    below = 12 + max(22 * len({y for _, _, y in legend}), 30 if heat else 0) + 8
    sheet = Image.new("RGB", (WIDTH, (TITLE + 18 if title else 8) + sum(blocks) + below), "white")
    pen = ImageDraw.Draw(sheet)
    y = 8
    if title:
        pen.text((MARGIN, y), _fitting(title, WIDTH - 2 * MARGIN, TITLE), INK, _font(TITLE))
        y += TITLE + 10
    places: list[tuple[str, int, int]] = []
    for row, height, block in zip(rows, tall, blocks, strict=True):
        places.append((row.id, y, y + block))
        pen.line((MARGIN, y, WIDTH - MARGIN, y), (210, 210, 210))
        caption = " · ".join(filter(None, [row.id, row.caption]))
        pen.text((MARGIN, y + 5), _fitting(caption, WIDTH - 2 * MARGIN, TEXT, True), INK, _font(TEXT, True))
        top = y + TEXT + 10
        cells = {"image": row.image, "truth": row.truth, **row.columns}
        for line, heads_of, space in zip(lines, wrapped, above, strict=True):
            for place, (head, words) in enumerate(zip(line, heads_of, strict=True)):
                x = MARGIN + place * (side + GAP)
                for at, text in enumerate(words):
                    pen.text((x, top + space - (len(words) - at) * (HEAD + 3) - 2), text, INK, _font(HEAD))
                _cell(sheet, pen, cells.get(head), row.notes.get(head, ""), (x, top + space), (side, height))
            top += space + height + GAP
        y += block
    _legend(sheet, pen, [(key, x + MARGIN, y + 12 + at) for key, x, at in legend])
    if heat:
        _heat_key(sheet, pen, WIDTH - MARGIN - 280, y + 12, scale)
    info = PngInfo()
    info.add_text(PLACES, json.dumps(places))
    buffer = io.BytesIO()
    sheet.save(buffer, "png", pnginfo=info)
    return buffer.getvalue()


def _cell(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    array: NDArray[Any] | None,
    note: str,
    at: tuple[int, int],
    room: tuple[int, int],
) -> None:
    """Draw one cell: picture and note, or in place of a picture the note."""
    if array is None:
        pen.rectangle((*at, at[0] + room[0] - 1, at[1] + room[1] - 1), (244, 244, 244))
        for line, text in enumerate(_wrapped(note or "none", room[0] - 16)):
            pen.text((at[0] + 8, at[1] + 8 + line * (TEXT + 4)), text, FAINT, _font(TEXT))
        return
    is_mask = array.ndim == 2 and not _is_heat(array)
    picture = Image.fromarray(_coloured(array))
    size = _fitted(array.shape, room)
    small = max(array.shape[:2]) < 150
    how = Image.Resampling.NEAREST if is_mask or small else Image.Resampling.LANCZOS
    sheet.paste(picture.resize(size, how), at)
    if note:
        width = round(_font(TEXT).getlength(note)) + 8
        low = at[1] + size[1]
        pen.rectangle((at[0], low - TEXT - 6, at[0] + width, low - 1), (0, 0, 0))
        pen.text((at[0] + 4, low - TEXT - 5), note, (255, 255, 255), _font(TEXT))


def _check_labels(rows: Sequence[PanelRow], classes: int) -> None:
    """Raise ValueError for a mask with a label that is none of the classes: heat in whole numbers looks like one."""
    for row in rows:
        for head, array in row.columns.items():
            if array is not None and array.ndim == 2 and not _is_heat(array):
                labels = array[array != IGNORE]
                if labels.size and labels.max() >= classes:
                    raise ValueError(f"column {head!r} is a mask with label {labels.max()}, and {classes} have names")


def _coloured(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Heat, mask or RGB as RGB."""
    if _is_heat(array):
        heat: NDArray[np.uint8] = (255 * colormaps[HEAT](np.clip(array, 0, 1))[..., :3]).astype(np.uint8)
        return heat
    return palette()[array] if array.ndim == 2 else array


def _is_heat(array: NDArray[Any] | None) -> bool:
    return array is not None and array.ndim == 2 and np.issubdtype(array.dtype, np.floating)


def _cell_size(image: NDArray[np.uint8], side: int) -> tuple[int, int]:
    """Width and height of a row's cells."""
    return _fitted(image.shape, (side, min(TALLEST, side)))


def _fitted(shape: Sequence[int], room: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a picture of `shape` (H, W, ...) as large as `room` allows."""
    scale = min(room[0] / shape[1], room[1] / shape[0])
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


Key = tuple[str, tuple[int, int, int] | None]
"""Words and colour of a legend's entry; None: words alone."""


def _class_keys(rows: Sequence[PanelRow], names: Sequence[str] | None) -> list[Key]:
    """Keys for the classes that the panel's masks hold; none if their names are unknown."""
    if names is None:
        return []
    masks = [mask for row in rows for mask in (row.truth, *row.columns.values())
             if mask is not None and mask.ndim == 2 and not _is_heat(mask)]  # fmt: skip
    seen = sorted({int(value) for mask in masks for value in np.unique(mask)})
    keys: list[Key] = [(names[value], _rgb(palette()[value])) for value in seen if value < len(names)]
    return keys + ([("ignored", _rgb(palette()[IGNORE]))] if IGNORE in seen else [])


def _error_keys(heads: Sequence[str]) -> list[Key]:
    """Keys for ERRORS if a column shows them."""
    if not any(head.startswith("error") for head in heads):
        return []
    return [("errors:", None), *ERRORS.items()]


def _rgb(colour: NDArray[Any]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in colour)
    return red, green, blue


def _placed(keys: Sequence[Key], width: int) -> list[tuple[Key, int, int]]:
    """Keys from left to right in lines of `width` pixels; the errors begin a line: each with x and y."""
    placed: list[tuple[Key, int, int]] = []
    x = y = 0
    for key in keys:
        wide = round(_font(TEXT).getlength(key[0])) + (18 if key[1] else 0) + 18
        if x and (x + wide > width or key[1] is None):
            x, y = 0, y + 22
        placed.append((key, x, y))
        x += wide
    return placed


def _legend(sheet: Image.Image, pen: ImageDraw.ImageDraw, keys: Sequence[tuple[Key, int, int]]) -> None:
    for (words, colour), x, y in keys:
        if colour is not None:
            pen.rectangle((x, y + 1, x + 12, y + 13), colour, (140, 140, 140))
        pen.text((x + (18 if colour else 0), y - 1), words, INK, _font(TEXT))


def _heat_key(sheet: Image.Image, pen: ImageDraw.ImageDraw, x: int, y: int, scale: str) -> None:
    """Draw the colour bar, 280 pixels wide with its words."""
    bar = Image.fromarray(_coloured(np.tile(np.linspace(0, 1, 120), (12, 1))))
    pen.text((x, y - 1), f"{scale}  0", INK, _font(TEXT))
    left = x + round(_font(TEXT).getlength(f"{scale}  0")) + 6
    sheet.paste(bar, (left, y + 2))
    pen.text((left + 126, y - 1), "1", INK, _font(TEXT))


@functools.cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: the same letters on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines that fit `width` pixels, broken at blanks; a longer word is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(HEAD).getlength(longer) > width:
            lines.append(_fitting(word, width, HEAD))
        else:
            lines[-1] = longer if lines[-1] else _fitting(word, width, HEAD)
    return lines


def _fitting(text: str, width: int, size: int, bold: bool = False) -> str:
    """Return a text cut to `width` pixels; of a long id the end stays, which tells ids apart."""
    font = _font(size, bold)
    text = printable(text[-400:])  # Pillow draws no line break, and no font has a terminal's codes
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text
