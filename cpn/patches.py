"""Complementary patches: which pixels of an image are hidden in I_h, and the pair (I_h, I_hb). CPN Sec. 3.2.

An image is cut into patches (grid cells or SLIC superpixels) and each patch is hidden or not. I_h shows what is not
hidden, its complement I_hb shows exactly the rest, and lam is the share of pixels that I_h shows.
"""

import math
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cpn.errors import InputError
from cpn.section import Section

if TYPE_CHECKING:  # processes that only cut pictures into patches start without it
    import torch

Draw = Literal["with_replacement", "bernoulli"]

SLIC = {"compactness": 10, "max_num_iter": 10, "sigma": 0}
"""SLIC's settings in the released code, and scikit-image's names of them (method.md (b))."""

# A draw that can satisfy the guard at all does so long before this many tries; past it the setting is at fault.
GUARD_TRIES = 10_000


class PatchesConfig(Section):
    """How an image is cut into patches and which of them are hidden (method.md (b), (k) 3-5)."""

    kind: Literal["superpixel", "grid"] = "superpixel"
    """SLIC superpixels or square grid cells."""
    S_N: int = Field(200, ge=1, le=8000)
    """S_N of the paper: superpixels asked for per crop; SLIC may give a few less or more."""
    slic_on: Literal["image", "crop"] = "image"
    """`image`: SLIC runs once on each whole picture, and its map is scaled and cropped with the picture
    (cpn/superpixels.py). `crop`: on every augmented crop, as in the released code; a sample then takes many times as
    long."""
    K: tuple[Annotated[int, Field(ge=1)], ...] = Field((56, 112), min_length=1)
    """K of the paper: sides of the grid cells in pixels; one is drawn uniformly for each image."""
    p_h: float = Field(0.5, gt=0, lt=1)
    """p_h of the paper: probability that a patch is hidden."""
    draw: Draw = "with_replacement"
    """Superpixels only: the released code draws floor((n+1) p_h) labels with replacement, which hides 39 % of them at
    p_h = .5; bernoulli hides each with probability p_h, as the paper says and as grid cells always are."""
    guard: bool = False
    """Draw again while everything or nothing is hidden; the released code does not."""


def grid_labels(height: int, width: int, size: int) -> NDArray[np.int32]:
    """Number the square cells of side `size` pixels row by row: int32 (height, width), values 0..n-1.

    Cells at the right and bottom edge are cut when `size` does not divide the image. CPN Sec. 3.2.
    """
    columns = math.ceil(width / size)
    rows_of_pixels = np.arange(height, dtype=np.int32) // size
    columns_of_pixels = np.arange(width, dtype=np.int32) // size
    labels: NDArray[np.int32] = rows_of_pixels[:, None] * np.int32(columns) + columns_of_pixels[None, :]
    return labels


def superpixel_labels(image: NDArray[np.uint8], n: int) -> NDArray[np.int32]:
    """Cut an RGB image into about `n` SLIC superpixels: uint8 (H, W, 3) -> int32 (H, W), values 0..n'-1, none empty.

    Compactness 10, 10 iterations, no smoothing, on RGB in [0, 1] (method.md (b)): the released code passes the
    normalised image, whose meaning changes with the version of scikit-image. The paper cites another method as [16];
    SLIC is what it names and runs.
    """
    # Imported here so that reading a configuration, or training with grid patches, does not wait for scikit-image.
    from skimage.segmentation import slic

    segments = slic(image.astype(np.float64) / 255, n_segments=n, start_label=0, **SLIC)
    # SLIC may skip numbers; a skipped one would be a patch without pixels that is drawn all the same.
    _, labels = np.unique(segments, return_inverse=True)
    return labels.reshape(image.shape[:2]).astype(np.int32)


def draw_hidden(n: int, p_h: float, draw: Draw, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw which of `n` patches are hidden: bool (n,).

    `bernoulli` hides a patch when a uniform number is at most p_h (CPN Sec. 3.2). `with_replacement` is the released
    code's draw for superpixels: floor((n+1) p_h) integers from 0..n with replacement, where 0 names no patch.
    """
    if draw == "bernoulli":
        return rng.random(n) <= p_h
    drawn = rng.integers(0, n + 1, size=math.floor((n + 1) * p_h))
    hidden = np.zeros(n + 1, dtype=bool)
    hidden[drawn] = True
    return hidden[1:]


def hidden_mask(
    image: NDArray[np.uint8],
    config: PatchesConfig,
    rng: np.random.Generator,
    superpixels: NDArray[np.integer] | None = None,
) -> tuple[NDArray[np.bool_], float]:
    """Draw the hidden pixels of one image: uint8 (H, W, 3) -> (hidden bool (H, W), lam), lam in [0, 1].

    `superpixels` (H, W) numbers the patches of kind superpixel from 0; without them SLIC runs on `image` here.
    lam is the share of pixels that are visible in I_h (the released code counts grid patches instead, which is the
    same number when the cell divides the image). Without the guard lam may be 0 or 1. With it the draw, that of the
    cell size included, is repeated; InputError when the setting can never hide a part (a single patch, say).
    """
    height, width = image.shape[:2]
    if config.kind == "superpixel":
        labels = superpixel_labels(image, config.S_N) if superpixels is None else superpixels
        # A view of a picture's map shows some numbers only: the draw is among those.
        there = np.bincount(labels.ravel()) > 0
    for _ in range(GUARD_TRIES if config.guard else 1):
        if config.kind == "grid":
            labels = grid_labels(height, width, int(rng.choice(config.K)))
            there = np.ones(int(labels[-1, -1]) + 1, bool)
        drawn = draw_hidden(int(there.sum()), config.p_h, "bernoulli" if config.kind == "grid" else config.draw, rng)
        if not config.guard or (drawn.any() and not drawn.all()):
            hidden_patches = np.zeros(len(there), bool)
            hidden_patches[there] = drawn
            hidden = hidden_patches[labels]
            return hidden, 1 - float(hidden.mean())
    raise InputError(
        f"patches.guard: no draw hides a part of a {height} x {width} image; take more patches (patches.S_N up,"
        " patches.K down), another patches.p_h, or guard: false"
    )


def complementary_pair(images: "torch.Tensor", hidden: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Split images into (I_h, I_hb): normalised images (B, 3, H, W) and hidden bool (B, H, W) -> two of images' shape.

    I_h loses the hidden pixels, I_hb all others; a lost pixel is 0, which is the mean colour after normalisation
    (CPN Sec. 3.2). So I_h + I_hb = images.
    """
    mask = hidden[:, None]
    return images.masked_fill(mask, 0), images.masked_fill(~mask, 0)
