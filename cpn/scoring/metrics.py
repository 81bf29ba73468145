"""Confusion counts, IoU and mIoU, and the counts for every background score beta in one pass. Method.md (j).

Counts are int64 arrays (..., 3, C): true positives, predicted pixels and true pixels of each of C classes, background
first; pixels whose truth is IGNORE are dropped. They are made per image and added up by the caller (over a set, or over
a bootstrap sample of images); IoU is taken of the sums.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cpn.config.cam import BETAS as BETAS
from cpn.core.errors import InputError
from cpn.data.voc import IGNORE


def hard_counts(prediction: NDArray[np.integer], truth: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Return the counts of a predicted label map: two (H, W) maps of class indices -> int64 (3, C).

    InputError when the maps differ in shape, or hold an index outside 0..C-1 (in the truth, besides IGNORE).
    """
    valid = _valid(truth, classes)
    if prediction.shape != truth.shape:
        raise InputError(f"a prediction of shape {prediction.shape} cannot be compared with a mask of {truth.shape}")
    predicted = prediction[valid].astype(np.int64)
    true = truth[valid]
    if predicted.size and not 0 <= predicted.min() <= predicted.max() < classes:
        raise InputError(f"a predicted label lies outside 0..{classes - 1}, the classes of the data set")
    return np.stack([np.bincount(labels, minlength=classes) for labels in (true[predicted == true], predicted, true)])


def curve_counts(
    maps: NDArray[np.floating],
    present: NDArray[np.integer],
    truth: NDArray[np.uint8],
    classes: int,
    betas: Sequence[float] | NDArray[np.floating] = BETAS,
) -> NDArray[np.int64]:
    """Return the counts of argmax [beta, maps] for every beta: maps (P, H, W), their class indices (P,), truth (H, W)
    -> int64 (len(betas), 3, C).

    The scale of the maps is free, betas ascend. A tie goes to the background, among classes to the first map. As in
    the released evaluation beta is compared in the maps' precision.

    The best class of a pixel does not depend on beta; beta only decides where background overtakes it. So one
    histogram over (best map, number of betas below the pixel's score, true class) and its cumulative sums give all
    counts at once. InputError on unordered betas, classes outside 1..C-1, scores that are not numbers, or shapes that
    differ.
    """
    valid = _valid(truth, classes)
    thresholds = np.asarray(betas, dtype=maps.dtype)
    if np.any(np.diff(thresholds) < 0):
        raise InputError("betas have to ascend")
    if maps.shape != (len(present), *truth.shape):
        raise InputError(f"maps of shape {maps.shape} do not fit {len(present)} classes and a mask of {truth.shape}")
    if len(present) and not 1 <= present.min() <= present.max() < classes:
        raise InputError(f"a map belongs to a class outside 1..{classes - 1}, the foreground of the data set")

    steps = len(thresholds)
    first = np.zeros(truth.shape, np.int64)
    below = np.zeros(truth.shape, np.int64)
    if len(present):
        best = maps.max(axis=0)
        if np.isnan(best).any() and np.isnan(best[valid]).any():
            raise InputError("a map holds a score that is not a number")
        for index in reversed(range(len(present))):
            first[maps[index] == best] = index
        below = np.searchsorted(thresholds, best, side="left")
    # Ignored pixels are counted as one class more, which is left out afterwards.
    true = np.minimum(truth, classes).astype(np.int64)
    places = (first * (steps + 1) + below) * (classes + 1) + true
    shape = (max(1, len(present)), steps + 1, classes + 1)
    table = np.bincount(places.ravel(), minlength=math.prod(shape)).reshape(shape)[..., :classes]

    counts = np.zeros((steps, 3, classes), dtype=np.int64)
    # At beta number k the best map is predicted where more than k betas lie below its score, background elsewhere.
    above = table[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    for label, pixels in zip(present, above, strict=False):
        counts[:, 0, label] += pixels[:, label]
        counts[:, 1, label] += pixels.sum(axis=1)
    background = table.sum(axis=0).cumsum(axis=0)[:steps]
    counts[:, 0, 0] = background[:, 0]
    counts[:, 1, 0] = background.sum(axis=1)
    counts[:, 2] = table.sum(axis=(0, 1))
    return counts


def iou(counts: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float64]:
    """IoU of each class, TP / (P + T - TP + 1e-10), in [0, 1] and 0 for a class never seen: (..., 3, C) -> (..., C)."""
    hits, predicted, true = counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]
    ratio: NDArray[np.float64] = hits / (predicted + true - hits + 1e-10)
    return ratio


def miou(counts: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float64]:
    """Return mean IoU over all C classes in [0, 1], absent ones counted as 0: counts (..., 3, C) -> (...)."""
    return np.asarray(iou(counts).mean(axis=-1))


def best_beta(
    counts: NDArray[np.integer], betas: Sequence[float] | NDArray[np.floating] = BETAS
) -> tuple[float, float]:
    """Return the beta with the largest mIoU, the first of equals, and that mIoU: summed counts (len(betas), 3, C)."""
    if len(counts) != len(betas):
        raise InputError(f"counts of {len(counts)} betas, but {len(betas)} betas given")
    curve = miou(counts)
    index = int(curve.argmax())
    return float(betas[index]), float(curve[index])


def _valid(truth: NDArray[np.uint8], classes: int) -> NDArray[np.bool_]:
    """Pixels that count; InputError for an unknown class."""
    valid: NDArray[np.bool_] = truth != IGNORE
    largest = int(truth[valid].max(initial=0))
    if largest >= classes:
        raise InputError(f"a mask holds class {largest}, but the data set has {classes} classes: check classes.txt")
    return valid
