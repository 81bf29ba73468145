"""Complementary patches: which pixels of an image are hidden in I_h, and the pair (I_h, I_hb). CPN Sec. 3.2.

An image is cut into patches (grid cells or SLIC superpixels) and each patch is hidden or not. I_h shows what is not
hidden, its complement I_hb shows exactly the rest, and lam is the share of pixels that I_h shows (or of patches, see
`lambda_by`).
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cpn.core.errors import InputError

if TYPE_CHECKING:  # processes that only cut images into patches start without it
    import torch
from cpn.config.patches import Draw, PatchesConfig

SLIC = {"compactness": 10, "max_num_iter": 10, "sigma": 0}
"""SLIC's settings in the released code, and scikit-image's names of them (method.md (b))."""

# A draw that can satisfy the guard at all does so long before this many tries; past it the setting is at fault.
GUARD_TRIES = 10_000


def grid_labels(height: int, width: int, size: int) -> NDArray[np.int32]:
    """Label the square cells of side `size` pixels row by row: int32 (height, width), values 0..n-1.

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


def draw_S_N(config: PatchesConfig, rng: np.random.Generator) -> int:
    """S_N of one image: a number from `S_N_range`, or without one `S_N`, for which nothing is drawn.

    Uniform in the logarithm: 50 to 100 is as likely as 100 to 200. Of a to b, n has P = ln((n+1)/n) / ln((b+1)/a).
    """
    if config.S_N_range is None:
        return config.S_N
    low, high = config.S_N_range
    drawn = math.floor(math.exp(rng.uniform(math.log(low), math.log(high + 1))))
    return min(max(drawn, low), high)  # the power of a logarithm may fall a last bit short


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

    `superpixels` (H, W) numbers the patches of kind superpixel from 0; without them SLIC runs on `image` here, for a
    number of them by `draw_S_N`. lam is the share of I_h that is visible, in pixels or, by `lambda_by`, in patches of
    which a pixel is seen (as the released code counts grids). Without the guard lam may be 0 or 1. With it the draw,
    that of the cell size included and that of S_N not, is repeated; InputError when the setting can never hide a part
    (a single patch, say).
    """
    height, width = image.shape[:2]
    if config.kind == "superpixel":
        labels = superpixel_labels(image, draw_S_N(config, rng)) if superpixels is None else superpixels
        # A view of an image's map shows some numbers only: the draw is among those.
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
            lost = hidden if config.lambda_by == "pixels" else drawn
            return hidden, 1 - np.count_nonzero(lost) / lost.size
    raise InputError(
        f"patches.guard: no draw hides a part of a {height} x {width} image; take more patches (patches.S_N"
        " or patches.S_N_range up, patches.K down), another patches.p_h, or guard: false"
    )


def complementary_pair(
    images: "torch.Tensor", hidden: "torch.Tensor", filling: "torch.Tensor | None" = None
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Split images into (I_h, I_hb): normalised images (B, 3, H, W) and hidden bool (B, H, W) -> two of images' shape.

    I_h loses the hidden pixels, I_hb all others; a lost pixel is 0, which is the mean colour after normalisation
    (CPN Sec. 3.2), or what `filling` of images' shape, normalised too, shows there. So I_h + I_hb = images + filling.
    """
    mask = hidden[:, None]
    if filling is not None:
        return images.where(~mask, filling), images.where(mask, filling)
    return images.masked_fill(mask, 0), images.masked_fill(~mask, 0)
