"""IRN's random walk (Ahn, Cho and Kwak 2019, method.md (h)): CAMs and an edge map -> pseudo labels.

Two cells belong together if no edge crosses the straight path between them. Edge map and CAMs have a cell for every
4 x 4 pixels. Pairs are those of `cpn.propagation.random_walk.pair_offsets`, one of each opposite two, in that order.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cpn.propagation.random_walk import pair_offsets, transition_of_pairs, upsample, walk
from cpn.propagation.walk_rule import source_shape

EDGE_STRIDE = 4
"""Image pixels per cell of the edge map, whatever the backbone."""
EPSILON = 1e-5


def path_cells(dy: int, dx: int) -> list[tuple[int, int]]:
    """Cells (y, x) of the path from (0, 0) to (dy, dx), both ends with it.

    They are the cells of the rectangle between the ends whose centre is less than one cell away from the line: the
    path is one to three cells wide, so that no thin edge lets it through diagonally.
    """
    ys, xs = (range(min(0, d), max(0, d) + 1) for d in (dy, dx))
    return [(y, x) for y in ys for x in xs if (dy * x - dx * y) ** 2 < dy * dy + dx * dx]


def path_affinities(edges: Tensor, radius: int) -> Tensor:
    """1 - the largest edge on the path, of all pairs: edges (B, H, W) in [0, 1] -> (B, P, N).

    The N sources are the cells all of whose offsets stay inside the map, as in
    `cpn.propagation.random_walk.source_shape`. The gradient goes to the path's largest cell alone.
    """
    rows, columns = source_shape(edges.shape[1], edges.shape[2], radius)
    left = radius - 1
    affinities = []
    for dy, dx in pair_offsets(radius).tolist():
        path = [edges[:, y : y + rows, left + x : left + x + columns] for y, x in path_cells(dy, dx)]
        # max keeps one index per pair for the backward pass; amax would keep the whole stack.
        affinities.append(1 - torch.stack(path).max(dim=0).values.flatten(1))
    return torch.stack(affinities, dim=1)


def irn_affinities(edge: NDArray[np.floating], radius: int) -> NDArray[np.floating]:
    """Affinity of every cell with the cell one offset away: edge (H, W) in [0, 1] -> (P, H, W), of the same dtype.

    a[p, y, x] belongs to cells (y, x) and (y, x) + pair_offsets(radius)[p], and is 0 where the second lies outside:
    around the map everything counts as edge, as in the released code. 1 - the path's largest edge, both ends included.
    """
    margin = radius - 1
    walled = np.pad(edge, ((0, margin), (margin, margin)), constant_values=1)
    flat = path_affinities(torch.from_numpy(np.ascontiguousarray(walled))[None], radius)
    affinities: NDArray[np.floating] = flat.reshape(-1, *edge.shape).numpy()
    return affinities


def irn_walk(
    cams: NDArray[np.floating], edge: NDArray[np.floating], radius: int = 5, beta: float = 10.0, logt: int = 8
) -> NDArray[np.float64]:
    """Walk cams (K, h, w) over the cells of edge (h, w) in [0, 1]: (cams * (1 - edge)) T^(2^logt) -> float64 (K, h, w).

    T_ij = a_ij^beta / sum_i a_ij^beta with a_ij = a_ji of `irn_affinities` and a_ii = 1; every column of T sums to 1.
    The released code squares the dense T `logt` times; here the sparse T is applied 2^logt times to the few maps, with
    the same result. At 500 x 375 pixels, 125 x 94 cells and radius 5, T has 0.8 million entries: 12 MB, with 80 MB
    while it is built, where the dense one has 550 MB. Raises ValueError when the sizes differ.
    """
    if cams.ndim != 3 or cams.shape[1:] != edge.shape:
        raise ValueError(f"cams {cams.shape} do not lie on the cells of an edge map {edge.shape}")
    height, width = edge.shape
    rows, columns = np.mgrid[:height, :width]
    dy, dx = pair_offsets(radius).T[:, :, None, None]
    inside = (rows + dy < height) & (columns + dx >= 0) & (columns + dx < width)
    first = np.broadcast_to(rows * width + columns, inside.shape)
    second = first + dy * width + dx
    affinities = irn_affinities(edge, radius)
    matrix = transition_of_pairs(affinities[inside], first[inside], second[inside], height * width, beta)
    return walk(cams * (1 - edge), matrix, 2**logt)


def strided_maps(maps: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return maps that `load_maps` read, as IRN's walk takes them: (K, H, W) -> (K, ceil(H / 4), ceil(W / 4)), float32.

    IRN sums its CAMs over scales at stride 4 and divides each class by its maximum + 1e-5. Ours are summed and
    normalised at the image's size, un-halved and with the minimum taken off; they are resized to stride 4 (bilinear,
    align_corners False), and each class is divided by its maximum there, so that it peaks at 1 again.
    """
    height, width = maps.shape[1:]
    size = (-(-height // EDGE_STRIDE), -(-width // EDGE_STRIDE))
    tensor = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))[None]
    small: NDArray[np.float32] = functional.interpolate(tensor, size, mode="bilinear", align_corners=False)[0].numpy()
    peaks = small.max(axis=(1, 2), keepdims=True)
    divided: NDArray[np.float32] = small / (peaks + np.float32(EPSILON))
    return divided


def irn_pseudo_label(
    maps: NDArray[np.floating],
    present: NDArray[np.integer],
    edge: NDArray[np.floating],
    radius: int = 5,
    beta: float = 10.0,
    logt: int = 8,
    threshold: float = 0.25,
) -> NDArray[np.uint8]:
    """Return the pseudo label of one image: un-halved maps (K, H, W) of classes `present` (K,), edge (h, w) -> uint8
    (H, W).

    The maps at stride 4 are propagated, upsampled (bilinear by 4, cut to the image) and divided by the largest score of
    all classes; the best class wins where it is above `threshold`, elsewhere it is background. Values are class
    indices, nothing is ignored. Without a class, or where edges hold back every score, everything is background.
    """
    height, width = maps.shape[1:]
    if len(present) == 0:
        return np.zeros((height, width), np.uint8)
    scores = upsample(irn_walk(strided_maps(maps), edge, radius, beta, logt), EDGE_STRIDE, height, width)
    if scores.max() <= 0:
        return np.zeros((height, width), np.uint8)
    background = np.full((1, height, width), threshold, np.float32)
    best = np.concatenate([background, scores / scores.max()]).argmax(axis=0)
    label: NDArray[np.uint8] = np.concatenate([[0], present]).astype(np.uint8)[best]
    return label
