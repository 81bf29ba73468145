"""CAM inference: several scales and flips summed into one map per present class, and its file (method.md (g))."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cpn.config.cam import CamConfig
from cpn.core.errors import InputError
from cpn.data.map_files import present_classes
from cpn.data.transforms import normalise, resize
from cpn.data.voc import Split
from cpn.models.backbone import Backbone
from cpn.models.network import CPN
from cpn.scoring.metrics import BETAS, curve_counts
from cpn.scoring.shown_sizes import sizes_at_scales

EPSILON = 1e-5

See = Callable[[int, NDArray[np.floating]], None]
"""Hears of the maps of an image, by its index, that a score is computed of: un-halved (P, h, w) in [0, 1]."""

RELEASED_BETAS = BETAS[20:60]
"""beta of the released code's search, t = 0.20, 0.21, ..., 0.59 on halved maps: 0.40, 0.42, ..., 1.18 on ours."""


def shown_size(network: CPN, image: NDArray[np.uint8], scale: float, config: CamConfig) -> tuple[int, int]:
    """Return the size (h, w) at which `network` is shown an image (H, W, 3) at `scale`: `config.long_side` and
    `config.sizes`.
    """
    stride = cast(Backbone, network.backbone).stride if config.sizes == "aligned" else 1
    return sizes_at_scales(image.shape[0], image.shape[1], [scale], config, stride)[0]


@torch.no_grad()
def scale_maps(network: CPN, image: NDArray[np.uint8], size: tuple[int, int], config: CamConfig) -> Tensor:
    """Return the passes of one scale: uint8 (H, W, 3) shown at `size` = (h, w) -> raw maps float32 (V, C, h', w').

    The image is resized with PIL's bicubic kernel; what comes is that of `view_maps`.
    """
    shown = torch.from_numpy(np.ascontiguousarray(resize(image, size)[None]))
    there = shown.to(next(network.parameters()).device, non_blocking=True)
    return view_maps(network, normalise(there, None), config)


@torch.no_grad()
def view_maps(network: CPN, inputs: Tensor, config: CamConfig) -> Tensor:
    """Return the passes over an image as it is shown, (1, 3, h, w) -> raw maps float32 (V, C, h', w').

    V is 2 with `config.flip`, 1 without it; the second pass saw the mirrored image, and its maps are still mirrored.
    Raw means as the network gives them: the refined CAM, or the ReLU of the CAM for `config.map` "plain", background
    first, nothing normalised. The network must be in eval mode.
    """
    branch = network(torch.cat([inputs, inputs.flip(3)]) if config.flip else inputs)
    maps = branch.refined_cam if config.map == "refined" else functional.relu(branch.cam)
    return maps.float()


def sum_passes(passes: Sequence[Tensor], mirrored: Sequence[bool], size: tuple[int, int]) -> Tensor:
    """Raw maps of several passes, each (K, h, w) of its own h and w, -> their sum (K, H, W) at `size` = (H, W).

    Each pass is resized (bilinear, align_corners False), then turned back if it is `mirrored`, then added, in the given
    order. No channel looks at another, so it is the same whether absent classes are masked out before or after.
    """
    total = torch.zeros(passes[0].shape[0], *size, device=passes[0].device, dtype=passes[0].dtype)
    for maps, flipped in zip(passes, mirrored, strict=True):
        upright = functional.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
        total = total + (upright.flip(2) if flipped else upright)
    return total


def normalise_as_released(summed: Tensor) -> Tensor:
    """(P, H, W) summed raw maps -> the released code's maps before it halves them, to the letter (method.md (g)).

    x = ReLU(sum); x below min + e -> 0; then (x - min - e) / (max - min + e), min and max over (H, W). The values that
    were set to 0 end at (0 - min - e) / (max - min + e): below 0, and far below it where min is large.
    """
    positive = functional.relu(summed)
    low = positive.amin(dim=(1, 2), keepdim=True)
    high = positive.amax(dim=(1, 2), keepdim=True)
    thresholded = torch.where(positive < low + EPSILON, torch.zeros_like(positive), positive)
    return (thresholded - low - EPSILON) / (high - low + EPSILON)


def normalise_sum(summed: Tensor) -> Tensor:
    """(P, H, W) summed raw maps -> un-halved maps in [0, 1]: `normalise_as_released`, cut off at 0.

    CRF and random walk need scores in [0, 1]. No mask changes by it: a score below 0 loses to every background score
    from 0 on, and so does a score of 0, since a tie goes to the background.
    """
    return functional.relu(normalise_as_released(summed))


def halved(maps: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return maps as the released CPN code keeps them: (P, H, W) in [0, 1] -> [0, 0.5], exactly (method.md (g)).

    SEAM's maps are not halved. Nothing here is kept halved; a background score t on these is beta = 2 t on ours.
    """
    half: NDArray[np.floating] = maps / maps.dtype.type(2)
    return half


def to_halved(beta: float) -> float:
    """Return the released code's threshold t on halved maps for a beta on ours: t = beta / 2 (method.md (k) 19)."""
    return beta / 2


def scale_sums(
    network: CPN, image: NDArray[np.uint8], present: NDArray[np.integer], config: CamConfig
) -> Iterator[Tensor]:
    """For each scale in turn the sum of its passes at the image's size: present classes (P,) in 1..F -> (P, H, W).

    One scale is in memory at a time. Without a present class the network is not asked.
    """
    height, width = image.shape[:2]
    if len(present) == 0:
        return iter([torch.zeros(0, height, width)] * len(config.scales))
    raw = (scale_maps(network, image, shown_size(network, image, scale, config), config) for scale in config.scales)
    return sums_at(raw, torch.as_tensor(present, dtype=torch.long), (height, width))


def sums_at(raw: Iterable[Tensor], present: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Sum the raw maps (V, C, h', w') of each scale, at `size` = (H, W)."""
    for maps in raw:
        chosen = maps[:, present.to(maps.device, non_blocking=True)]
        yield sum_passes(list(chosen), [False, True][: len(chosen)], size)


def multi_scale_maps(
    network: CPN, image: NDArray[np.uint8], present: NDArray[np.integer], config: CamConfig
) -> NDArray[np.float32]:
    """Un-halved maps of the present classes: uint8 (H, W, 3), indices (P,) in 1..F -> float32 (P, H, W) in [0, 1].

    Method.md (g): every scale plain and mirrored, resized to the image, turned back, summed, normalised once. Absent
    classes are in no output. The network must be in eval mode.
    """
    if len(present) == 0:
        return np.zeros((0, *image.shape[:2]), np.float32)
    maps: NDArray[np.float32] = normalised_total(scale_sums(network, image, present, config)).cpu().numpy()
    return maps


def normalised_total(sums: Iterator[Tensor]) -> Tensor:
    """Return the sums (P, H, W) of one scale or more -> un-halved maps in [0, 1]."""
    total = next(sums)
    for summed in sums:
        total = total + summed
    return normalise_sum(total)


def image_counts(
    network: CPN, split: Split, index: int, config: CamConfig, classes: int, see: See | None = None
) -> np.ndarray:
    """TP, predicted and true pixels of one image at every beta: int64 (len(BETAS), 3, C). InputError without a mask."""
    truth = split.mask(index)
    if truth is None:
        raise InputError(
            f"{split.ids[index]}: has no mask, but list {split.name!r} is scored; add it, or set data.score"
        )
    present = present_classes(split.labels[index])
    maps = multi_scale_maps(network, split.image(index), present, config)
    if see is not None:
        see(index, maps)
    return curve_counts(maps, present, truth, classes, BETAS)
