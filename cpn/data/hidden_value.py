"""What a hidden pixel of the complementary pair shows, where that is not the mean colour: `patches.hidden_value`.

The paper takes the mean, so that training and testing images keep one distribution (CPN Sec. 3.2). A flat colour has
edges at every patch, though, and tells the network where something is hidden; a blurred image keeps the colours without
what makes an object, and noise keeps their mean and spread alone. The choice is an experiment of ours, not the paper's.
"""

import numpy as np
from numpy.typing import NDArray

from cpn.config.patches import HiddenValue
from cpn.core.opencv import cv2
from cpn.data.transforms import MEAN, STD

BLUR_SIDE = 64
"""Longer side in pixels at which the image is blurred."""
BLUR_SIGMA = 4.0
"""Standard deviation in pixels at that side: 28 in a crop of 448, where one of 200 superpixels is 32 wide."""


def hidden_picture(image: NDArray[np.uint8], kind: HiddenValue, rng: np.random.Generator) -> NDArray[np.uint8] | None:
    """Return what every pixel of an RGB image, uint8 (H, W, 3), shows where it is hidden: the same shape.

    None for `mean`, which is 0 in normalised space, and no grey level. Only `noise` draws from `rng`.
    """
    if kind == "mean":
        return None
    return blurred(image) if kind == "blur" else noise(image.shape[0], image.shape[1], rng)


def blurred(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image under a Gaussian of 1/16 of its longer side: uint8 (H, W, 3) -> the same shape.

    Blurred at 64 pixels and enlarged: a fiftieth of the time, and on average less than a grey level off.
    """
    height, width = image.shape[:2]
    scale = min(1.0, BLUR_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), BLUR_SIGMA * max(size) / BLUR_SIDE)
    enlarged: NDArray[np.uint8] = np.asarray(
        cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8
    )
    return enlarged


def noise(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Gaussian noise with the mean and standard deviation that images are normalised by, independent in every pixel and
    channel: uint8 (height, width, 3), cut off at 0 and 255 like any image (about 3 % of the values).
    """
    mean, std = np.asarray(MEAN, np.float32), np.asarray(STD, np.float32)
    drawn = mean + std * rng.standard_normal((height, width, 3), dtype=np.float32)
    levels: NDArray[np.uint8] = np.rint(255 * drawn.clip(0, 1)).astype(np.uint8)
    return levels
