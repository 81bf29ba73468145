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

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from cpn.config.cam import CamConfig
from cpn.core.checked import OF_RUN, reading
from cpn.core.files import whole_file
from cpn.data.image_memory import CAM_CURE, image_of
from cpn.data.patches import complementary_pair, draw_hidden, grid_labels
from cpn.data.transforms import normalise, resize
from cpn.data.voc import Split
from cpn.models.network import CPN
from cpn.scoring.cam import normalise_sum, present_classes, shown_size

CELLS = 8
"""Cells along the shorter side."""
P_HIDDEN = 0.5


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


def hidden_cells(height: int, width: int, name: str) -> NDArray[np.bool_]:
    """Return the hidden pixels of image `name`, the same for every network and run: bool (height, width)."""
    labels = grid_labels(height, width, max(1, round(min(height, width) / CELLS)))
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return draw_hidden(int(labels.max()) + 1, P_HIDDEN, "bernoulli", np.random.default_rng(seed))[labels]


@torch.no_grad()
def image_scores(network: CPN, split: Split, index: int, config: CamConfig) -> tuple[NDArray[np.float32], float]:
    """Return the scores (F,) and agreement of one image at scale 1 (`cam.sizes`). The network must be in eval mode.

    The maps are those of `cam.map`, refined or plain. NaN when no class is present.
    """
    image = split.image(index)
    image = resize(image, shown_size(network, image, 1.0, config))
    device = next(network.parameters()).device
    pixels = normalise(torch.from_numpy(image[None].copy()).to(device), None)
    height, width = image.shape[:2]
    hidden = torch.from_numpy(hidden_cells(height, width, split.ids[index])[None]).to(device)
    branch = network(torch.cat([pixels, *complementary_pair(pixels, hidden)]))
    scores = branch.cam[0, 1:].float().mean(dim=(1, 2)).cpu().numpy()
    present = present_classes(split.labels[index])
    if len(present) == 0:
        return scores, float("nan")
    maps = branch.refined_cam if config.map == "refined" else functional.relu(branch.cam)
    whole, shown, rest = (normalise_sum(each[torch.as_tensor(present, device=device)].float()) for each in maps)
    return scores, agreement(whole, shown, rest, 1 - float(hidden.float().mean()))


def agreement(whole: torch.Tensor, shown: torch.Tensor, rest: torch.Tensor, lam: float) -> float:
    """Return how well the pair's maps add up to the whole image's: three (P, H, W) in [0, 1] -> mean over classes in
    [0, 1].

    `shown` is of I_h, of whose pixels the share `lam` is visible, `rest` of its complement. Bray and Curtis' measure.
    """
    pair = lam * shown + (1 - lam) * rest
    gap, mass = (pair - whole).abs().sum(dim=(1, 2)), (pair + whole).sum(dim=(1, 2))
    return float(torch.where(mass > 0, 1 - gap / mass.clamp_min(1e-12), torch.zeros_like(mass)).mean())


def score_without_masks(network: CPN, split: Split, config: CamConfig) -> MaskFreeScores:
    """Return the scores and agreement of every image of a list. The network must be in eval mode."""
    rows = []
    for index in range(len(split)):
        with image_of(split, index, CAM_CURE):
            rows.append(image_scores(network, split, index, config))
    scores, agreements = zip(*rows, strict=True)
    return MaskFreeScores(np.stack(scores), np.array(split.labels), np.array(agreements, np.float32))


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
