"""Whether a trained segmentation network is one: a training that collapsed is an error that names its cure."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cpn.config.deeplab import DeepLabConfig, decided
from cpn.core.errors import WorkError
from cpn.data.segmentation_samples import SegmentationSource
from cpn.data.transforms import normalise, resize
from cpn.segmentation.deeplab import DeepLab

SAMPLE = 16
"""Training images that are looked at, evenly spread over the list."""
JUDGED_STEPS = 20
"""Steps from which on a training is judged; fewer show that everything runs, and no more."""
ONE_MASK = 0.05
"""Masks that vary over the images less than this share of what their labels vary are one mask."""


def check_trained(
    network: DeepLab, source: SegmentationSource, config: DeepLabConfig, crop: int, history: Sequence[dict[str, float]]
) -> None:
    """Raise WorkError where the mean loss of the last epoch is above ln C, or all images get one mask.

    A network that gives every class the same probability has loss ln C. One that gives every image the same mask may
    lie far below, for most pixels are background: that is seen in the masks of `SAMPLE` images of `source`, each shown
    at crop x crop pixels. `config` is decided, `history` what its training returned. Leaves eval mode.
    """
    iterations = decided(config.iterations)
    if iterations < JUDGED_STEPS:
        return
    released = config.schedule == "released"
    loss, chance = history[-1]["loss_total"], math.log(network.classes)
    if loss > chance:
        cure = "deeplab.schedule=by_images" if released else f"deeplab.lr={decided(config.lr) / 3:.2g}"
        raise WorkError(
            f"DeepLab learned nothing: its loss ends at {loss:.2f}, above ln {network.classes} = {chance:.2f}; "
            f"--set {cure}",
            cure,
        )
    indices = np.unique(np.linspace(0, len(source) - 1, SAMPLE).round().astype(int)).tolist()
    masks = variation([square_mask(network, source.image(index), crop) for index in indices])
    labels = variation([square_label(source.label(index), crop) for index in indices])
    if len(indices) > 1 and labels == 0:
        raise WorkError("DeepLab's labels are one mask for all images; look at the picture of stage random_walk")
    if len(indices) > 1 and masks <= ONE_MASK * labels:
        cure = "deeplab.schedule=by_images" if released else f"deeplab.iterations={2 * iterations}"
        raise WorkError(
            f"DeepLab gives one mask for all images (loss {loss:.2f} after {iterations} steps); --set {cure}", cure
        )


@torch.no_grad()
def square_mask(network: DeepLab, image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Most probable class of each pixel of an image (H, W, 3) shown at side x side pixels: uint8 (side, side)."""
    inputs = normalise(torch.from_numpy(resize(image, (side, side))[None]).to(network.cls_conv.weight.device))
    mask: NDArray[np.uint8] = network.eval()(inputs)[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return mask


def square_label(label: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a label (H, W) scaled to the nearest pixel: uint8 (side, side)."""
    return np.array(Image.fromarray(label).resize((side, side), Image.Resampling.NEAREST))


def variation(masks: Sequence[NDArray[np.uint8]]) -> float:
    """Return the share of the pixels of N masks of one size whose class is not the commonest of the N at their
    place.
    """
    stacked = torch.from_numpy(np.stack(masks))
    return float((stacked != stacked.mode(dim=0).values).float().mean())
