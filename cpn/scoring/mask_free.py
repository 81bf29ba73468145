"""A value for a CAM network that needs image-level labels only, for data sets without pixel masks.

    mask_free = (mAP + agreement) / 2, in percent

    mAP        do the scores tell the classes apart? Mean over classes of the average precision of the score that the
               network is trained by, the spatial mean of Y_c over the whole image, on images ranked by it
    agreement  do the maps depend on which part is seen? For a present class, with a = lam N(Y_h) + (1 - lam) N(Y_hb)
               and b = N(Y_o), N as in cpn/scoring/cam.py: 1 - sum |a - b| / sum (a + b) over pixels, the mean over
               classes, then over images

The paper's Eq. (3) to (6) are why: the gap between the two sides is what its losses close, because the CAM of the
complementary pair covers more of the object. Each half alone can be had for nothing (scores without maps; maps that
are the same everywhere), so both count the same. Dividing by the sum keeps small maps from agreeing by being small,
and an empty map agrees with nothing. The patches are the same for every network, whatever it was trained with: cells
of an eighth of the shorter side, each hidden with probability .5 from a hash of the image's name, hidden pixels in the
mean colour, lam in pixels; to hide less would be an easier question.

How well it stands in for mIoU on a data set is not given; where masks exist a sweep prints the rank correlation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cpn.core.checked import OF_RUN, reading
from cpn.core.files import whole_file


@dataclass(frozen=True)
class MaskFreeScores:
    """Scores of a network on N images of F classes, computed without masks."""

    scores: NDArray[np.float32]
    """(N, F): spatial mean of Y_c."""
    labels: NDArray[np.float32]
    """(N, F): 1 where the class is present."""
    agreement: NDArray[np.float32]
    """(N,), in [0, 1]; NaN for an image without any class."""

    def __len__(self) -> int:
        return len(self.agreement)

    def subset(self, indices: Sequence[int]) -> "MaskFreeScores":
        """Return the scores of the images at `indices`."""
        at = list(indices)
        return MaskFreeScores(self.scores[at], self.labels[at], self.agreement[at])


def average_precision(
    scores: NDArray[np.floating], labels: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Average precision of one class over N images: scores (N,), labels (N,) of 0 and 1 -> a number in [0, 1].

    The mean over the present images of the share of present images among all that score at least as much. Images count
    `weights` (..., N) times, all 1 if not given; the result is (...), NaN where no present image counts.
    """
    counted = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(-scores, kind="stable")
    ranked, present = scores[order], labels[order] > 0
    # The last image of each group of equals: all of a group are above the threshold together.
    last = np.searchsorted(-ranked, -ranked, side="right") - 1
    counted = counted[..., order]
    above = np.cumsum(counted, axis=-1)[..., last]
    hits = np.cumsum(counted * present, axis=-1)[..., last]
    precision = np.divide(hits, above, out=np.zeros_like(hits), where=above > 0)
    total = (counted * present).sum(axis=-1)
    precision_sum = (counted * present * precision).sum(axis=-1)
    return np.asarray(np.divide(precision_sum, total, out=np.full_like(precision_sum, np.nan), where=total > 0))


def parts(
    scores: MaskFreeScores, weights: NDArray[np.floating] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """mAP over the classes that occur, and mean agreement, both in [0, 1]: (...) each for `weights` (..., N)."""
    counted = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    classes = np.flatnonzero(scores.labels.sum(axis=0) > 0)
    each = np.stack([average_precision(scores.scores[:, c], scores.labels[:, c], counted) for c in classes])
    occurs = ~np.isnan(each)
    precision = np.where(occurs, each, 0).sum(axis=0) / np.maximum(1, occurs.sum(axis=0))
    with_class = ~np.isnan(scores.agreement)
    values = np.where(with_class, scores.agreement, 0).astype(np.float64)
    mass = (counted * with_class).sum(axis=-1)
    mean = np.divide(counted @ values, mass, out=np.zeros_like(mass), where=mass > 0)
    return np.asarray(precision), np.asarray(mean)


def mask_free(scores: MaskFreeScores, weights: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
    """Compute the mask-free score in percent: (...) for `weights` (..., N), a number without."""
    precision, mean = parts(scores, weights)
    return np.asarray(100 * (precision + mean) / 2)


def save_scores(path: Path, ids: Sequence[str], scores: MaskFreeScores) -> None:
    """Write the scores of images with these ids."""
    with whole_file(path) as file:
        np.savez_compressed(
            file, ids=np.array(ids), scores=scores.scores, labels=scores.labels, agreement=scores.agreement
        )


def load_scores(path: Path) -> tuple[list[str], MaskFreeScores]:
    """Read what `save_scores` wrote. DamagedFile where it is missing or damaged."""
    with reading(path, OF_RUN), open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
        scores = MaskFreeScores(file["scores"], file["labels"], file["agreement"])
        return [str(name) for name in file["ids"]], scores
