"""Refining a CAM by correlations: PCM between pixels (CPN Eq. 9-10), PRCM between regions and pixels (Eq. 11-12).

Symbols: Y0 (B, C, H, W) the prepared CAM, background first; X (B, D1, H, W) the gathered features; g and phi bias-free
1x1 convolutions D1 -> D, g shared by both modules. The refined CAM is `pcm(...) + prcm(...)`, without a residual.
Gradients flow to g, phi and X; the CAM comes from `background_and_peak`, which has none (method.md (d)).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

EPSILON = 1e-5

BLOCK = 512
"""Columns of one image's affinity matrix that PCM holds at a time."""
COUNTED_BLOCKS = 2048
"""The most blocks on the meta device; no map of less than a million cells has so many."""


@torch.no_grad()
def background_and_peak(cam: torch.Tensor) -> torch.Tensor:
    """Prepare a raw CAM for refinement: (B, C, H, W), background first -> Y0 of the same shape in [0, 1], no gradient.

    Each foreground class is divided by its peak, background is 1 - max over the foreground, and of the foreground only
    the largest class of each pixel is kept (ties kept). Method.md (d); the paper does not mention it. Absent classes
    compete too: no label is needed, in training or inference.
    """
    positive = functional.relu(cam[:, 1:])
    peak = positive.amax(dim=(2, 3), keepdim=True)
    foreground = functional.relu(positive - EPSILON) / (peak + EPSILON)
    largest = foreground.amax(dim=1, keepdim=True)
    dominant = torch.where(foreground == largest, foreground, torch.zeros_like(foreground))
    return torch.cat([1 - largest, dominant], dim=1)


def pcm(cam: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Pixel correlation module, CPN Eq. 9-10: cam Y0 (B, C, H, W), features g(X) (B, D, H, W) -> (B, C, H, W).

    Every pixel becomes the mean of all pixels' scores, weighted by A = ReLU(cosine of their features):
    Y A / (column sums of A + 1e-5). Read from the released code where the paper's print cannot be meant: the L2 norm
    per pixel (not L1 squared) and one sum per column (not one over both indices).

    The column sums are the image of a row of ones, so [1; Y] A gives sums and scores in one product, and a block of
    columns needs no other. So the HW x HW matrix is never held: `BLOCK` columns of one image are, and the backward pass
    computes them again (`WeightedSums`).
    """
    batch, classes, height, width = cam.shape
    norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    unit = (features / (norm + EPSILON)).flatten(2)
    scores = cam.flatten(2)
    rows = torch.cat([torch.ones_like(scores[:, :1]), scores], dim=1)
    images = zip(rows.unbind(), unit.unbind(), strict=True)
    sums_and_scores = torch.stack([weighted_sums(values, vectors) for values, vectors in images])
    refined = sums_and_scores[:, 1:] / (sums_and_scores[:, :1] + EPSILON)
    return refined.reshape(batch, classes, height, width)


def weighted_sums(rows: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """rows ReLU(U^T U), a block of columns at a time: rows (R, HW), unit vectors U (D, HW) -> (R, HW)."""
    dtype = (unit.detach()[:1, :1] @ unit.detach()[:1, :1]).dtype  # bf16 under autocast, as of any product
    rows, unit = rows.to(dtype), unit.to(dtype)
    sums: torch.Tensor = WeightedSums.apply(rows, unit)  # type: ignore[no-untyped-call]
    return sums


class WeightedSums(torch.autograd.Function):
    """`weighted_sums` with the matrix of every block in the same memory, forward and backward.

    Left to autograd (with checkpoints) each block would be new memory, of which the C library gives little back: up to
    the whole matrix was held in the end.
    """

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
        """Return sums S = rows ReLU(U^T U)."""
        ctx.save_for_backward(rows, unit)
        sums = torch.empty_like(rows)
        for place, affinity in affinity_blocks(unit):
            torch.mm(rows, affinity, out=sums[:, place])
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Differentiate: A = ReLU(U^T U) is symmetric, so dL/drows = G A, and dL/dU = U (D + D^T) with D = rows^T G
        where A > 0.
        """
        rows, unit = ctx.saved_tensors
        of_rows, of_unit = torch.empty_like(rows), torch.empty_like(unit)
        left, right = torch.cat([rows, gradient]).T, torch.cat([gradient, rows])  # their product is D + D^T
        held = unit.new_empty(unit.shape[1], block_columns(unit))
        for place, affinity in affinity_blocks(unit):
            if ctx.needs_input_grad[0]:
                torch.mm(gradient, affinity, out=of_rows[:, place])
            of_block = torch.mm(left, right[:, place], out=held[:, : affinity.shape[1]])
            torch.mm(unit, of_block.masked_fill_(affinity <= 0, 0), out=of_unit[:, place])
        return of_rows if ctx.needs_input_grad[0] else None, of_unit


def block_columns(unit: torch.Tensor) -> int:
    """Columns of a block: `BLOCK`, or where operations and memory are only counted, as many more as leave at most
    `COUNTED_BLOCKS`: a slip of the keyboard, such as a crop of 16,384 pixels, would otherwise be counted for minutes.
    """
    pixels = unit.shape[1]
    return min(max(BLOCK, -(-pixels // COUNTED_BLOCKS)) if unit.is_meta else BLOCK, pixels)


def affinity_blocks(unit: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """ReLU(U^T U) for U (D, HW), `BLOCK` columns at a time: which, and (HW, BLOCK) that the next ones overwrite."""
    pixels, block = unit.shape[1], block_columns(unit)
    held = unit.new_empty(pixels, block)
    for start in range(0, pixels, block):
        place = slice(start, min(start + block, pixels))
        affinity = held[:, : place.stop - place.start]
        torch.mm(unit.T, unit[:, place], out=affinity)
        yield place, affinity.relu_()


def region_features(cam: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Z = SoftMax(Y) X^T of CPN Sec. 3.3, the softmax over pixels: (B, C, H, W), (B, D1, H, W) -> (B, D1, C, 1)."""
    share = torch.softmax(cam.flatten(2), dim=2)
    return (x.flatten(2) @ share.transpose(1, 2))[..., None]


def prcm_attention(
    cam: torch.Tensor,
    x: torch.Tensor,
    features: torch.Tensor,
    phi: Callable[[torch.Tensor], torch.Tensor],
    transposed: bool,
) -> torch.Tensor:
    """SoftMax(P_R) of CPN Eq. 11-12, over pixels: (B, C, H, W), each class sums to 1. Arguments as for `prcm`."""
    batch, classes, height, width = cam.shape
    regions = functional.relu(phi(region_features(cam, x))).flatten(2)
    if transposed:
        queries = regions.transpose(1, 2)
    else:
        # The released code relabels the (D, C) memory as (C, D): every row then mixes classes. Its checkpoints need it.
        queries = regions.reshape(batch, classes, -1)
    relation = classes**-0.5 * (queries @ functional.relu(features).flatten(2))
    return torch.softmax(relation, dim=2).reshape(batch, classes, height, width)


def prcm(
    cam: torch.Tensor,
    x: torch.Tensor,
    features: torch.Tensor,
    phi: Callable[[torch.Tensor], torch.Tensor],
    transposed: bool,
) -> torch.Tensor:
    """Pixel-region correlation module, CPN Eq. 11-12: cam Y0 (B, C, H, W) times its attention, same shape.

    `x` X (B, D1, H, W); `features` g(X) (B, D, H, W), the tensor that `pcm` takes (its ReLU is applied here); `phi` the
    1x1 convolution (B, D1, C, 1) -> (B, D, C, 1). `transposed=True` is the paper's Eq. 11; False is the released
    code, which misses a transpose. The ReLUs, the factor C^-0.5 and both softmaxes over pixels are from the released
    code; the paper leaves them open (method.md (k) 8).
    """
    return cam * prcm_attention(cam, x, features, phi, transposed)
