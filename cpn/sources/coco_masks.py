"""Masks of MS COCO's annotations: polygons, run lengths plain and compressed, and all objects of an image in one mask.

A polygon covers the pixels whose centre lies in it, by scikit-image: of the drawing functions at hand (cv2 and PIL
colour every pixel that the outline touches) it is the one without a bias against COCO's own masks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from cpn.core.errors import InputError
from cpn.data.voc import IGNORE

FURTHEST = 1e9
"""Size in pixels beyond which a number of a box is none."""
RUN_CHARACTERS = 12
"""The most characters of one compressed run length: 60 bits, more pixels than any image has."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated object, or a crowd of them."""

    number: int
    """Its id, for messages."""
    image: int
    """Id of its image."""
    category: int
    """Id of its category, which is not a mask value: ids have gaps."""
    crowd: bool
    polygons: tuple[NDArray[np.float64], ...] | None
    """Each (n, 2), x and y in pixels from the left and upper edge of the image; None where there are runs."""
    runs: list[int] | str | None
    """Lengths of runs of 0 and 1 by turns, column by column, or the same compressed; None where there are polygons."""
    size: tuple[int, int] | None
    """Height and width that the runs fill."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, width and height in pixels; None where there is none."""
    thin: int = 0
    """How many polygons of fewer than three points it had: they hold no pixel, and are not among `polygons`."""
    odd_box: bool = False
    """Whether it has a box that is none: not four finite numbers, or without area."""

    @property
    def named(self) -> str:
        """Name the annotation in messages."""
        return f"annotation {self.number} of image {self.image}"

    @property
    def shapeless(self) -> bool:
        """Whether neither polygons nor runs say which pixels belong to it: that is unknown, and not nowhere."""
        return self.polygons == () and self.runs is None


def read_annotation(values: dict[str, object]) -> Annotation:
    """Return one entry of `annotations`. InputError (without the file's name) names the entry and what is wrong with
    it.
    """
    where = f"annotation {values.get('id')} of image {values.get('image_id')}"
    number, image, category = (whole_number(values.get(key)) for key in ("id", "image_id", "category_id"))
    if number is None or image is None or category is None:
        raise InputError(f"{where}: id, image_id and category_id have to be whole numbers")
    crowd, segmentation = _crowd(values.get("iscrowd", 0), where), values.get("segmentation")
    raw_box = values.get("bbox")
    box = _box(raw_box)
    odd_box = box is None and raw_box not in (None, [])
    if segmentation is None:
        segmentation = []
    if isinstance(segmentation, list):
        polygons = tuple(_polygon(p, where) for p in segmentation if p != [])
        whole = tuple(p for p in polygons if len(p) > 2)
        if odd_box and not whole:
            raise InputError(
                f"{where}: it has no polygon of three points, and its bbox is {brief(raw_box)}: write polygons, or "
                "left, top, width and height with some area, or delete it"
            )
        thin = len(polygons) - len(whole)
        return Annotation(number, image, category, crowd, whole, None, None, box, thin, odd_box)
    runs, size = (
        (segmentation.get("counts"), segmentation.get("size")) if isinstance(segmentation, dict) else (None, None)
    )
    if not isinstance(runs, (list, str)) or not _is_size(size):
        raise InputError(f"{where}: segmentation is neither polygons nor run lengths with their size")
    return Annotation(number, image, category, crowd, None, runs, (size[0], size[1]), odd_box=odd_box)


def extent(annotation: Annotation) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of the polygons, or of the box of what has no shape; None where there is neither."""
    if annotation.polygons:
        points = np.concatenate(annotation.polygons)
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
        return left, top, right, bottom
    if annotation.shapeless and annotation.box is not None:
        left, top, width, height = annotation.box
        return left, top, left + width, top + height
    return None


def _crowd(value: object, where: str) -> bool:
    """Read `iscrowd`. InputError for anything but 0 and 1: "0", null and true mean what their writer meant."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value not in (0, 1):
        raise InputError(f"{where}: iscrowd is {brief(value)}: write 0 for one object, 1 for a crowd")
    return value == 1


def brief(value: object) -> str:
    """Return a value of a file as a message quotes it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole_number(value: object) -> int | None:
    """Return a whole number, which some tools write as `3.0` or `"3"`; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _box(value: object) -> tuple[float, float, float, float] | None:
    """Return a box of four finite numbers and some area; None for anything else."""
    if not isinstance(value, list) or len(value) != 4 or not set(map(type, value)) <= {int, float}:  # true is no number
        return None
    if not all(abs(v) < FURTHEST for v in value):  # also an integer too large for a float
        return None
    left, top, width, height = (float(v) for v in value)
    return (left, top, width, height) if width > 0 and height > 0 else None


def _is_size(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) == 2 and all(type(side) is int for side in value)


def annotation_mask(annotation: Annotation, height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels of one annotation, bool (height, width). InputError when its runs do not fill the image.

    Without a shape: the pixels where it may be, those that its box touches, or all where it has no box.
    """
    if annotation.shapeless:
        return _box_mask(annotation.box, height, width)
    if annotation.polygons is not None:
        mask = np.zeros((height, width), np.bool_)
        for polygon in annotation.polygons:
            mask |= polygon_mask(polygon, height, width)
        return mask
    where = annotation.named
    if annotation.size != (height, width):
        raise InputError(f"{where}: its mask is of size {annotation.size}, the image (height, width) {height, width}")
    assert annotation.runs is not None
    runs = unpack_runs(annotation.runs, where) if isinstance(annotation.runs, str) else annotation.runs
    if odd := [run for run in runs if type(run) is not int]:
        raise InputError(f"{where}: its run {brief(odd[0])} is no whole number of pixels")
    if not all(run >= 0 for run in runs) or sum(runs) != height * width:
        raise InputError(f"{where}: its runs do not add up to the {height * width} pixels of the image")
    return runs_mask(runs, height, width)


def _box_mask(box: tuple[float, float, float, float] | None, height: int, width: int) -> NDArray[np.bool_]:
    if box is None:
        return np.ones((height, width), np.bool_)
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    mask = np.zeros((height, width), np.bool_)
    mask[top : max(0, math.ceil(box[1] + box[3])), left : max(0, math.ceil(box[0] + box[2]))] = True
    return mask


def polygon_mask(polygon: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels whose centre lies in a polygon (n, 2) of x and y; fewer than three points hold none."""
    # Imported here so that --help does not wait for it.
    from skimage.draw import polygon as inside

    mask = np.zeros((height, width), np.bool_)
    if len(polygon) >= 3:
        # Pixel 0 reaches from 0 to 1 in COCO's coordinates, its centre is the origin of scikit-image's.
        mask[inside(polygon[:, 1] - 0.5, polygon[:, 0] - 0.5, (height, width))] = True  # type: ignore[no-untyped-call]
    return mask


def runs_mask(runs: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Run lengths, the first of pixels outside, column by column -> bool (height, width)."""
    values = np.arange(len(runs)) % 2 == 1
    mask: NDArray[np.bool_] = np.repeat(values, runs).reshape(width, height).T
    return mask


def unpack_runs(text: str, where: str = "a mask") -> list[int]:
    """Run lengths from their compressed form. InputError when it is cut off or holds other characters.

    Each is written in digits of 5 bits, the lowest first, in characters from "0" on; bit 6 says that a digit follows,
    bit 5 of the last one is the sign. From the fourth on it is the difference to the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64:
            raise InputError(f"{where}: {character!r} does not belong into compressed run lengths")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            if shift >= 5 * RUN_CHARACTERS:  # else a text without end would take the square of its length
                raise InputError(f"{where}: a compressed run length has more than {RUN_CHARACTERS} characters")
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise InputError(f"{where}: its compressed run lengths are cut off")
    return runs


def image_mask(annotations: Sequence[Annotation], kinds: Sequence[int], height: int, width: int) -> NDArray[np.uint8]:
    """Return all annotations of an image in one mask, uint8 (height, width).

    `kinds` are their mask values. Where objects overlap the one of smaller area is on top. A crowd, what has no shape
    and what is of kind IGNORE is IGNORE, below all objects.
    """
    ignored = [a.crowd or a.shapeless or kind == IGNORE for a, kind in zip(annotations, kinds, strict=True)]
    masks = [annotation_mask(annotation, height, width) for annotation in annotations]
    areas = [int(mask.sum()) for mask in masks]
    order = sorted(range(len(masks)), key=lambda at: (not ignored[at], -areas[at]))
    combined = np.zeros((height, width), np.uint8)
    for at in order:
        combined[masks[at]] = IGNORE if ignored[at] else kinds[at]
    return combined


def _polygon(values: object, where: str) -> NDArray[np.float64]:
    try:
        numbers = np.array(values, np.float64)
        if isinstance(values, list) and bool in set(map(type, values)):
            numbers = np.array(np.nan)
    except (TypeError, ValueError, OverflowError):  # the last one: an integer of hundreds of digits
        numbers = np.array(np.nan)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise InputError(f"{where}: a polygon is a list of numbers, none of them NaN or infinite")
    if len(numbers) % 2:
        raise InputError(f"{where}: a polygon of {len(numbers)} numbers is cut off, x and y come in pairs")
    return numbers.reshape(-1, 2)
