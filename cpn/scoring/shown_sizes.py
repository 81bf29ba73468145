"""Sizes at which a network is shown images, by scale, `long_side`, `sizes` and `max_pixels`."""

import math
from collections.abc import Sequence

from cpn.config.cam import CamConfig
from cpn.config.deeplab import DeepLabConfig
from cpn.data.voc import Split


def size_at_scale(height: int, width: int, scale: float, stride: int | None = None) -> tuple[int, int]:
    """Size (h, w) in pixels at which an image of height x width is shown at `scale`: round(side * scale), at least 1.

    Python's rounding, as the released code: a half goes to the even neighbour, 187.5 -> 188 and 10.5 -> 10. With a
    `stride` each side is the nearest k * stride + 1, at least stride + 1.
    """
    if stride is None:
        return max(1, round(height * scale)), max(1, round(width * scale))
    return aligned_side(height * scale, stride), aligned_side(width * scale, stride)


def aligned_side(side: float, stride: int) -> int:
    """Return the nearest k * stride + 1 pixels to `side`, with k from 1 on; half way the even k.

    A map of ceil(n / stride) cells has one cell at every stride-th pixel, the first and the last pixel included, only
    at these n; at any other, enlarging it with align_corners True shifts it by up to stride - 1 pixels.
    """
    return max(1, round((side - 1) / stride)) * stride + 1


def limited_size(
    height: int, width: int, scale: float, stride: int | None = None, max_pixels: int | None = None
) -> tuple[int, int]:
    """`size_at_scale`, at a smaller scale where it has more than `max_pixels`: the largest in steps of a hundredth."""
    size = size_at_scale(height, width, scale, stride)
    if max_pixels is None or math.prod(size) <= max_pixels:
        return size
    scale = math.sqrt(max_pixels / (height * width))
    while math.prod(size := size_at_scale(height, width, scale, stride)) > max_pixels and max(size) > (stride or 1) + 1:
        scale *= 0.99
    return size


def sizes_at_scales(
    height: int, width: int, scales: Sequence[float], config: CamConfig, stride: int
) -> list[tuple[int, int]]:
    """Sizes (h, w) at which a network of that `stride` is shown an image of height x width at each of `scales`.

    `config.long_side` says what scale 1 is, `config.max_pixels` how large a view may be.
    """
    base = 1.0 if config.long_side is None else config.long_side / max(height, width)
    aligned = stride if config.sizes == "aligned" else None
    return [limited_size(height, width, base * scale, aligned, config.max_pixels) for scale in scales]


def shown_smaller(config: CamConfig | DeepLabConfig, split: Split) -> str | None:
    """One line about the images of a list that `max_pixels` shows smaller than their scales ask; None without any."""
    if config.max_pixels is None:
        return None
    section = "cam" if isinstance(config, CamConfig) else "deeplab"
    base = config.long_side if isinstance(config, CamConfig) else None
    scale = max(config.scales or (1.0,))
    count = 0
    for index in range(len(split)):
        height, width = split.size(index)
        own = scale if base is None else scale * base / max(height, width)
        count += math.prod(size_at_scale(height, width, own)) > config.max_pixels
    if not count:
        return None
    return (
        f"{section}.max_pixels: {count} of {len(split)} images of list {split.name} are shown smaller than scale "
        f"{scale:g} asks, with {config.max_pixels} pixels at most"
    )
