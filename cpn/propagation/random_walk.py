"""Random walk on pixel affinities: CAMs -> pseudo labels (method.md (h), AffinityNet of Ahn and Kwak 2018).

The geometry of pixel pairs is here too, as training (cpn/propagation/affinity.py) and walking have to agree on it. A
pair is a source cell and the cell one offset away; sources are the cells all of whose offsets stay inside the map.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch.nn import functional

from cpn.config.random_walk import RandomWalkConfig
from cpn.propagation.walk_rule import source_shape

Refine = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]
"""(image uint8 (H, W, 3), scores (K, H, W)) -> refined scores (K, H, W): a CRF."""


class PairAffinity(Protocol):
    """What a walk asks of a network; `cpn.propagation.affinity.AffinityNet` is one."""

    @property
    def stride(self) -> int:
        """Image pixels per cell."""
        ...

    def image_affinities(self, image: NDArray[np.uint8], radius: int) -> NDArray[np.float32]:
        """uint8 (H, W, 3) -> (P, N) in [0, 1] over the pairs of (ceil(H / stride), ceil(W / stride)) cells."""
        ...


def pair_offsets(radius: int) -> NDArray[np.int64]:
    """Offsets (dy, dx) strictly shorter than `radius`, one of each opposite two: int64 (P, 2); 34 at radius 5."""
    right = [(0, dx) for dx in range(1, radius)]
    reach = range(-radius + 1, radius)
    below = [(dy, dx) for dy in range(1, radius) for dx in reach if dy * dy + dx * dx < radius * radius]
    return np.array(right + below, np.int64).reshape(-1, 2)


def pair_indices(height: int, width: int, radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flat cell indices of all pairs: sources (N,), targets (P, N), offset by offset."""
    rows, columns = source_shape(height, width, radius)
    sources = (np.arange(rows)[:, None] * width + radius - 1 + np.arange(columns)).reshape(-1)
    dy, dx = pair_offsets(radius).T
    return sources, sources[None] + (dy * width + dx)[:, None]


def transition(affinities: NDArray[np.floating], height: int, width: int, radius: int, beta: float) -> sparse.csr_array:
    """Transition matrix of the walk: pair affinities (P, N) in [0, 1] -> sparse (H W, H W), every column sums to 1.

    T_ij = a_ij^beta / sum_i a_ij^beta with a_ij = a_ji and a_ii = 1. Cells without a pair stay where they are, and
    in a map with fewer than `radius` rows or 2 radius - 1 columns, which has no pairs, all do. Raises ValueError when
    `affinities` are not those of such a map.
    """
    sources, targets = pair_indices(height, width, radius)
    if affinities.shape != targets.shape:
        raise ValueError(f"affinities {affinities.shape} are not those of {height} x {width} cells: {targets.shape}")
    pairs = np.tile(sources, len(targets)), targets.reshape(-1)
    return transition_of_pairs(affinities.reshape(-1), *pairs, height * width, beta)


def transition_of_pairs(
    affinities: NDArray[np.floating], i: NDArray[np.int64], j: NDArray[np.int64], cells: int, beta: float
) -> sparse.csr_array:
    """`transition` of any pairs, each named once: affinities (M,) between cells i (M,) and j (M,) of `cells` cells."""
    powered = affinities.astype(np.float64) ** beta
    own = np.arange(cells)
    values = np.concatenate([powered, powered, np.ones(cells)])
    places = (np.concatenate([i, j, own]), np.concatenate([j, i, own]))
    symmetric = sparse.csr_array((values, places), shape=(cells, cells))
    return sparse.csr_array(symmetric.multiply(1 / symmetric.sum(axis=0)[None]))


def walk(scores: NDArray[np.floating], matrix: sparse.csr_array, times: int) -> NDArray[np.float64]:
    """scores T^times: (K, h, w) -> float64 (K, h, w); a step makes every cell a weighted mean of its neighbours.

    T is applied `times` times to the few maps. Squaring T instead, as the released code does, fills it, 70 MB at 63 x
    47 cells, for the same result (`python -m benchmarks random_walk`).
    """
    labels, height, width = scores.shape
    columns = np.ascontiguousarray(scores.reshape(labels, -1).T, dtype=np.float64)
    backward = matrix.T.tocsr()
    for _ in range(times):
        columns = backward @ columns
    return np.ascontiguousarray(columns.T).reshape(labels, height, width)


def block_mean(scores: NDArray[np.floating], stride: int) -> NDArray[np.float64]:
    """Return mean over stride x stride blocks: (K, H, W) -> (K, ceil(H / stride), ceil(W / stride)); padding counts as
    0.
    """
    labels, height, width = scores.shape
    padded = np.pad(scores, ((0, 0), (0, -height % stride), (0, -width % stride)))
    rows, columns = padded.shape[1] // stride, padded.shape[2] // stride
    means: NDArray[np.float64] = padded.reshape(labels, rows, stride, columns, stride).mean((2, 4), dtype=np.float64)
    return means


def upsample(scores: NDArray[np.floating], stride: int, height: int, width: int) -> NDArray[np.float32]:
    """Bilinear by `stride`, align_corners False, then cut to the image: (K, h, w) -> float32 (K, H, W)."""
    tensor = torch.from_numpy(np.ascontiguousarray(scores, dtype=np.float32))[None]
    large = functional.interpolate(tensor, scale_factor=float(stride), mode="bilinear", align_corners=False)
    result: NDArray[np.float32] = large[0, :, :height, :width].numpy()
    return result


def pseudo_label(
    image: NDArray[np.uint8],
    maps: NDArray[np.float32],
    present: NDArray[np.integer],
    network: PairAffinity,
    config: RandomWalkConfig,
    refine: Refine | None = None,
) -> NDArray[np.uint8]:
    """Return the pseudo label of one image: uint8 (H, W, 3), un-halved maps (P, H, W) of classes `present` (P,) ->
    uint8 (H, W).

    [(1 - max)^alpha, maps] are averaged over stride cells, propagated, upsampled, refined if `config.crf`, and the best
    class taken (background on a tie). Values are class indices, 0 and those of `present`; nothing is ignored. With
    no class present everything is background. `config.crf` needs `refine` (ValueError): dense_crf with 1 iteration.
    """
    if config.crf and refine is None:
        raise ValueError("random_walk.crf is on, but no CRF was given")
    if config.alpha == "auto" or config.logt == "auto" or config.radius == "auto":
        raise ValueError("random_walk: auto is no number; cpn.propagation.walk_rule says which it is")
    height, width = image.shape[:2]
    if len(present) == 0:
        return np.zeros((height, width), np.uint8)
    background = (1 - maps.max(axis=0)) ** config.alpha
    pooled = block_mean(np.concatenate([background[None], maps]), network.stride)
    rows, columns = pooled.shape[1:]
    affinities = network.image_affinities(image, config.radius)
    matrix = transition(affinities, rows, columns, config.radius, config.beta)
    scores = upsample(walk(pooled, matrix, 2**config.logt), network.stride, height, width)
    if config.crf and refine is not None:
        scores = refine(image, scores)
    label: NDArray[np.uint8] = np.concatenate([[0], present]).astype(np.uint8)[scores.argmax(axis=0)]
    return label


def labels_by_setting(
    image: NDArray[np.uint8],
    maps: NDArray[np.float32],
    present: NDArray[np.integer],
    network: PairAffinity,
    beta: float,
    radius: int,
    alphas: Sequence[float],
    logts: Sequence[int],
) -> Iterator[NDArray[np.uint8]]:
    """`pseudo_label` without the CRF for every logt (ascending) and, within it, every alpha: uint8 (H, W) each.

    One pass: of an alpha only the background differs, which is one more map to walk, and 2^k steps go on to 2^(k + 1).
    """
    height, width = image.shape[:2]
    if len(present) == 0:
        for _ in range(len(logts) * len(alphas)):
            yield np.zeros((height, width), np.uint8)
        return
    best = 1 - maps.max(axis=0)
    pooled = block_mean(np.concatenate([*(best[None] ** alpha for alpha in alphas), maps]), network.stride)
    rows, columns = pooled.shape[1:]
    matrix = transition(network.image_affinities(image, radius), rows, columns, radius, beta)
    taken = 0
    for logt in logts:
        pooled, taken = walk(pooled, matrix, 2**logt - taken), 2**logt
        scores = upsample(pooled, network.stride, height, width)
        background, foreground = scores[: len(alphas)], scores[len(alphas) :]
        classes = present[foreground.argmax(axis=0)].astype(np.uint8)
        top = foreground.max(axis=0)
        for row in background:
            yield np.where(row >= top, np.uint8(0), classes)
