"""Where a method's masks are wrong: by kind of error, size of the object, number of classes, distance to a boundary.

All but the last is read off the per-image counts of cpn/scoring/metrics.py, int64 (N, 3, C): hits, predicted and true
pixels of each class, background first. A region is one class in one image, so that an image of two dogs has one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpn.core.opencv import cv2
from cpn.data.voc import IGNORE
from cpn.scoring.metrics import iou

SIZES = (("small", 0.0, 0.05), ("medium", 0.05, 0.2), ("large", 0.2, 1.01))
"""Size of a region, as its share of the image's labelled pixels: from, and below."""
CLASSES = (("1", 1, 1), ("2", 2, 2), ("3 or more", 3, 255))
"""Foreground classes in an image's mask."""
NEAR = 5
"""Pixels within which a boundary is near."""


def class_shares(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the counts (..., 3, C) -> IoU, false positives and false negatives of each class as shares of the union
    (..., 3, C).

    The three add up to 1: union = hits + predicted in vain + missed. All are 0 for a class never seen.
    """
    hits, predicted, true = counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]
    union = predicted + true - hits + 1e-10
    shares: NDArray[np.float64] = np.stack([iou(counts), (predicted - hits) / union, (true - hits) / union], axis=-2)
    return shares


def error_kinds(counts: NDArray[np.integer]) -> dict[str, float]:
    """Shares of the labelled pixels, in percent, of counts (3, C): the three kinds of error, which add up to all.

    false_negative: object called background; false_positive: background called object; wrong_class: an object's pixel
    given another object's class.
    """
    hits, predicted, true = counts
    missed, invented = int(predicted[0] - hits[0]), int(true[0] - hits[0])
    wrong = int(true.sum() - hits.sum()) - missed - invented
    pixels = max(1, int(true.sum()))
    kinds = {"false_positive": invented, "false_negative": missed, "wrong_class": wrong}
    return {name: 100 * number / pixels for name, number in kinds.items()}


def by_size(counts: NDArray[np.integer]) -> list[dict[str, Any]]:
    """Regions by their size, counts (N, 3, C): mean IoU of a region and, over all their pixels, the share found."""
    true = counts[:, 2]
    share = true / np.maximum(1, true.sum(axis=1, keepdims=True))
    share[:, 0] = 0
    rows = []
    for name, low, high in SIZES:
        chosen = (share > 0) & (share >= low) & (share < high)
        rows.append({"size": name, "from": 100 * low, "to": min(100.0, 100 * high), **_regions(counts, chosen)})
    return rows


def by_classes(counts: NDArray[np.integer]) -> list[dict[str, Any]]:
    """Return images by the number of foreground classes in their mask, counts (N, 3, C): as `by_size`, with errors."""
    regions = counts[:, 2] > 0
    regions[:, 0] = False
    number = regions.sum(axis=1)
    rows = []
    for name, low, high in CLASSES:
        images = (number >= low) & (number <= high)
        errors = error_kinds(counts[images].sum(axis=0)) if images.any() else {}
        group = {"classes": name, "images": int(images.sum()), **_regions(counts, regions & images[:, None])}
        rows.append({**group, **errors})
    return rows


def _regions(counts: NDArray[np.integer], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Of the regions `chosen` (N, C): how many, their mean IoU, and the share of their pixels found; percent."""
    if not chosen.any():
        return {"regions": 0}
    hits, true = int(counts[:, 0][chosen].sum()), int(counts[:, 2][chosen].sum())
    return {"regions": int(chosen.sum()), "iou": 100 * float(iou(counts)[chosen].mean()), "recall": 100 * hits / true}


def near_boundary(truth: NDArray[np.uint8], near: int = NEAR) -> NDArray[np.bool_]:
    """Pixels of a mask (H, W) with a pixel of another value within `near` pixels in each direction: bool (H, W).

    IGNORE counts as a value: VOC draws it around every object, and its edge is where the labels end.
    """
    window = np.ones((2 * near + 1, 2 * near + 1), np.uint8)
    near_edge: NDArray[np.bool_] = cv2.dilate(truth, window) != cv2.erode(truth, window)
    return near_edge


def boundary_counts(label: NDArray[np.integer], truth: NDArray[np.uint8], near: int = NEAR) -> NDArray[np.int64]:
    """Labelled pixels and wrong ones, near a boundary of the truth and elsewhere: int64 (2, 2), near first."""
    labelled, wrong = truth != IGNORE, label != truth
    close = near_boundary(truth, near)
    places = [labelled & close, labelled & ~close]
    return np.array([[int(place.sum()), int((place & wrong).sum())] for place in places], np.int64)


def boundary_errors(counts: NDArray[np.integer]) -> dict[str, float]:
    """Convert `boundary_counts` (2, 2), summed over images, to percent: wrong near, wrong elsewhere, errors near."""
    (near, wrong), (far, wrong_far) = ((int(a), int(b)) for a, b in counts)
    return {
        "pixels": NEAR,
        "near": 100 * wrong / max(1, near),
        "elsewhere": 100 * wrong_far / max(1, far),
        "share_of_errors": 100 * wrong / max(1, wrong + wrong_far),
    }
