"""Only present classes: their channels gathered at low resolution, so that full-size work does not grow with classes.

A loss of CPN that is a mean over all classes has exact zeros where a class is absent. So a batch's maps are gathered
into P slots an image, P the largest number of classes that one of its images shows, and only these are upsampled; means
and top shares are still taken over all classes (cpn/models/losses.py).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Present(NamedTuple):
    """Which classes each image of a batch shows, in P slots an image; an image with fewer fills up with absent ones."""

    channel: Tensor
    """int64 (B, P): the channel of each slot, 1..F in maps with background first."""
    mask: Tensor
    """(B, P) of the labels' type: 1 where a slot holds a present class, 0 where it only fills up."""


def present_of(labels: Tensor, most: int | None = None) -> Present:
    """Return the slots of multi-hot labels (B, F); P is at least 1, so that images without any class keep their
    gradients.

    `most` is the largest number of classes that an image shows; None counts it, for which a GPU is waited for.
    """
    slots = max(1, int(labels.sum(dim=1).max()) if most is None else most)
    index = labels.argsort(dim=1, descending=True, stable=True)[:, :slots]
    return Present(index + 1, labels.gather(1, index))


def with_first_channel(present: Present) -> Present:
    """Put the slots after one for the background channel, which every image shows: (B, 1 + P)."""
    first = torch.zeros_like(present.channel[:, :1])
    mask = torch.cat([torch.ones_like(present.mask[:, :1]), present.mask], dim=1)
    return Present(torch.cat([first, present.channel], dim=1), mask)


def gather_maps(maps: Tensor, present: Present, size: tuple[int, int] | None = None) -> Tensor:
    """Return the channels of the slots, upsampled to `size` (None: as they are): (B, C, h, w) -> (B, P, *size)."""
    return upsample(torch.take_along_dim(maps, present.channel[:, :, None, None], dim=1), size)


def upsampled_mean(maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Return the mean of each map upsampled to `size`, without upsampling it: (B, C, h, w) -> (B, C).

    Bilinear upsampling is linear and separable: its mean is a mean of the map with one weight a row and one a column.
    """
    if size is None:
        return maps.mean(dim=(2, 3))
    rows, columns = (mean_weights(old, new, maps) for old, new in zip(maps.shape[2:], size, strict=True))
    return ((maps * columns).sum(dim=3) * rows).sum(dim=2)


def mean_weights(old: int, new: int, like: Tensor) -> Tensor:
    """(old,): how much each of `old` points counts in the mean of `new` ones interpolated between them."""
    points = torch.eye(old, dtype=like.dtype, device=like.device)[None]
    return functional.interpolate(points, new, mode="linear", align_corners=True).mean(dim=2)[0]


def upsample(maps: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Bilinear with aligned corners, as everywhere in training: (B, K, h, w) -> (B, K, *size); None: the same maps."""
    return maps if size is None else functional.interpolate(maps, size, mode="bilinear", align_corners=True)
