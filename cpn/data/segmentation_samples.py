"""Samples of image and label map for networks that are trained on label maps: DeepLab and IRN."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cpn.data.batches import TensorBatch
from cpn.data.transforms import FILL, mirrored, place, random_crop, resize
from cpn.data.voc import IGNORE


class SegmentationSource(Protocol):
    """The images DeepLab learns from, with their pseudo labels."""

    def __len__(self) -> int: ...

    def image(self, index: int, /) -> NDArray[np.uint8]:
        """RGB, uint8 (H, W, 3)."""
        ...

    def label(self, index: int, /) -> NDArray[np.uint8]:
        """Return the class of each pixel, 0 to C - 1 or IGNORE: uint8 (H, W)."""
        ...


@dataclass(frozen=True)
class SegmentationBatch(TensorBatch):
    """What one training step reads."""

    images: Tensor
    """uint8 (B, crop, crop, 3), RGB."""
    valid: Tensor
    """bool (B, crop, crop): False where the crop's canvas shows no image."""
    labels: Tensor
    """uint8 (B, crop, crop): class of each pixel, IGNORE on the canvas."""


Sample = tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.uint8]]


def scale_flip_crop(
    image: NDArray[np.uint8],
    label: NDArray[np.uint8],
    crop: int,
    scale: tuple[float, float],
    flip: float,
    rng: np.random.Generator,
) -> Sample:
    """Return what `augment_pair` does after the colours, by a factor within `scale` and a flip of probability
    `flip`.
    """
    factor = rng.uniform(*scale)
    height, width = (max(1, round(side * factor)) for side in label.shape)
    scaled = resize(image, (height, width))
    scaled_label = np.array(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
    if rng.random() < flip:
        scaled, scaled_label = mirrored(scaled), mirrored(scaled_label)
    box = random_crop(height, width, crop, rng)
    valid = place(np.ones((height, width), np.bool_), box, False)
    return place(scaled, box, FILL), valid, place(scaled_label, box, IGNORE)


def collate(samples: list[Sample]) -> SegmentationBatch:
    """Stack samples into a batch."""
    images, valid, labels = (torch.from_numpy(np.stack(parts)) for parts in zip(*samples, strict=True))
    return SegmentationBatch(images, valid, labels)
