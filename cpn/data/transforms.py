"""Augmentation of a training image and normalisation, method.md (a); each step a function with its own generator.

Images stay uint8 until `normalise`, which runs on the device; no function writes into its arguments.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from cpn.config.data import DataConfig
from cpn.core.errors import InputError
from cpn.core.opencv import cv2

MEAN = (0.485, 0.456, 0.406)
"""ImageNet mean of R, G, B in [0, 1]."""
STD = (0.229, 0.224, 0.225)
"""ImageNet standard deviation of R, G, B."""

FILL = (124, 116, 104)
"""MEAN in grey levels, the value of padding in the uint8 image; `normalise` sets padding to exactly 0."""


class CropBox(NamedTuple):
    """Where a square crop lies over an image: a part of `height` x `width` pixels is shown."""

    crop: int
    """Side of the canvas."""
    top: int
    """First row taken from the image."""
    left: int
    """First column taken from the image."""
    canvas_top: int
    """Row of the canvas where it is put."""
    canvas_left: int
    """Column of the canvas where it is put."""
    height: int
    width: int


class View(NamedTuple):
    """What of an image a training sample shows, whatever its colours."""

    size: tuple[int, int]
    """(height, width) to which the whole image is scaled."""
    flipped: bool
    """Whether it is then mirrored."""
    box: CropBox
    """What is cut out of it after that."""


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bicubic resize of uint8 (H, W, 3) to `size` = (height, width) by PIL, as the released code resizes for inference.

    cv2 has another kernel and antialiases nothing.
    """
    height, width = check_size(size)
    if image.shape[:2] == size:
        return image.copy()
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """`size` as it is. InputError where nothing would be left of an image."""
    height, width = size
    if height < 1 or width < 1:
        raise InputError(f"an image cannot be resized to {width}x{height} pixels: raise data.long_side")
    return size


def resize_for_training(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize with torch's form of PIL's kernel, and faster; few values differ, by up to 2 grey levels."""
    height, width = check_size(size)
    if image.shape[:2] == size:
        return image.copy()
    # Permuted last, or torch takes the one image for channels first, and is three times as long about it.
    channels_first = torch.from_numpy(np.array(image, order="C"))[None].permute(0, 3, 1, 2)
    resized = functional.interpolate(channels_first, (height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def mirrored(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image uint8 (H, W, 3) or a mask (H, W) with left and right exchanged; numpy takes many times as
    long.
    """
    flipped: NDArray[Any] = cv2.flip(image, 1)
    return flipped


def scaled_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """(height, width) with the longer side at `long_side` and the other one rounded, at least 1."""
    scale = long_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def colour_jitter(
    image: NDArray[np.uint8], strengths: tuple[float, float, float, float], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Jitter brightness, contrast, saturation and hue of uint8 (H, W, 3) as torchvision's ColorJitter does PIL images.

    Factors are uniform in [1 - x, 1 + x], the hue shift in [-x, x] turns of the colour circle; the four come in random
    order, and a strength of 0 leaves its step out. With OpenCV: brightness and contrast
    are PIL's to the last bit, saturation within 1 grey level, hue is rounded where PIL's is cut off (`shift_hue`).
    """
    if min(strengths) < 0 or max(strengths[:3]) > 1 or strengths[3] > 0.5:
        raise InputError(f"data.jitter is {list(strengths)}: the first three lie in 0 to 1, hue in 0 to .5")
    brightness, contrast, saturation, hue = strengths
    factors = [float(rng.uniform(1 - s, 1 + s)) for s in (brightness, contrast, saturation)]
    shift = float(rng.uniform(-hue, hue))
    picture: NDArray[Any] = image
    for step in rng.permutation(4):
        if strengths[step] == 0:
            continue
        if step == 0:
            picture = cv2.LUT(picture, blended_levels(0, factors[0]))
        elif step == 1:
            mean = int(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).mean() + 0.5)
            picture = cv2.LUT(picture, blended_levels(mean, factors[1]))
        elif step == 2:
            grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            # PIL cuts off where OpenCV rounds; not the whole half, or a grey pixel would lose a level.
            picture = cv2.addWeighted(picture, factors[2], grey, 1 - factors[2], -0.49)
        else:
            picture = shift_hue(picture, shift)
    jittered: NDArray[np.uint8] = picture.copy() if picture is image else picture
    return jittered


def blended_levels(grey: int, factor: float) -> NDArray[np.uint8]:
    """Return what PIL's blend makes of each grey level: grey + factor (level - grey), cut off to 0..255: uint8
    (256,).
    """
    blended = np.float32(grey) + np.float32(factor) * (np.arange(256, dtype=np.float32) - np.float32(grey))
    levels: NDArray[np.uint8] = np.clip(blended, 0, 255).astype(np.uint8)
    return levels


def shift_hue(image: NDArray[np.uint8], turns: float) -> NDArray[np.uint8]:
    """Turn the hue of RGB uint8 (H, W, 3) by `turns` of the colour circle (-.5 to .5) in HSV of 8 bits.

    Hue has 256 steps and wraps around. A step of the shift is cut off towards zero, as torchvision does.
    """
    hsv: NDArray[Any] = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(turns * 255) % 256)
    turned: NDArray[Any] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return turned


def random_crop(height: int, width: int, crop: int, rng: np.random.Generator) -> CropBox:
    """Place a crop x crop canvas: of a longer side a random part is taken, a shorter side is placed at random."""
    if min(height, width, crop) < 1:
        raise InputError(f"data.crop is {crop} on a {width}x{height} image: all sizes are at least 1 pixel")
    top, canvas_top = _place_side(height, crop, rng)
    left, canvas_left = _place_side(width, crop, rng)
    return CropBox(crop, top, left, canvas_top, canvas_left, min(height, crop), min(width, crop))


def place(array: NDArray[Any], box: CropBox, fill: Any) -> NDArray[Any]:
    """Cut and pad (H, W) or (H, W, D) to (crop, crop) or (crop, crop, D); outside the image the canvas is `fill`."""
    canvas = np.empty((box.crop, box.crop, *array.shape[2:]), array.dtype)
    bottom, right = box.canvas_top + box.height, box.canvas_left + box.width
    source = array[box.top : box.top + box.height, box.left : box.left + box.width]
    canvas[box.canvas_top : bottom, box.canvas_left : right] = source
    # Only the padding is filled: writing three values a pixel takes many times as long as copying them.
    canvas[: box.canvas_top] = canvas[bottom:] = fill
    canvas[:, : box.canvas_left] = canvas[:, right:] = fill
    return canvas


def augment(
    image: NDArray[np.uint8], config: DataConfig, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Augment a training image: scale the long side, flip, jitter colours, crop, in the order of method.md (a).

    Takes RGB uint8 (H, W, 3); returns it as (crop, crop, 3), and bool (crop, crop): True on image, False on padding.
    """
    return augment_and_tell(image, config, rng)[:2]


def augment_and_tell(
    image: NDArray[np.uint8], config: DataConfig, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], View]:
    """`augment`, and where in the image the sample lies."""
    low, high = config.long_side
    height, width = image.shape[:2]
    scaled = resize_for_training(image, scaled_size(height, width, int(rng.integers(low, high + 1))))
    flipped = bool(rng.random() < config.flip)
    if flipped:
        scaled = mirrored(scaled)
    jittered = colour_jitter(scaled, config.jitter, rng)
    height, width = jittered.shape[:2]
    box = random_crop(height, width, config.crop, rng)
    valid = place(np.ones((height, width), np.bool_), box, False)
    return place(jittered, box, FILL), valid, View((height, width), flipped, box)


@functools.cache
def statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """MEAN and STD on a device, sent there once: each sending waits for the device."""
    return torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)


def normalise(images: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Normalise uint8 (B, H, W, 3) to float32 (B, 3, H, W): (x / 255 - MEAN) / STD, on the device of `images`.

    `valid`: bool (B, H, W) or None for all valid; elsewhere the result is 0, the mean colour.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images are uint8 (B, H, W, 3), not {images.dtype} {tuple(images.shape)}")
    mean, std = statistics(images.device)
    scaled = ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
    if valid is None:
        return scaled
    return scaled.masked_fill(~valid[:, None], 0.0)


def _place_side(length: int, crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """(first pixel taken, first pixel of the canvas) along one side."""
    if length >= crop:
        return int(rng.integers(length - crop + 1)), 0
    return 0, int(rng.integers(crop - length + 1))
