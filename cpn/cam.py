"""CAM inference: several scales and flips summed into one map per present class, and its file (method.md (g))."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from cpn.errors import InputError
from cpn.files import whole_file
from cpn.metrics import BETAS, curve_counts
from cpn.network import CPN
from cpn.section import Section
from cpn.transforms import normalise, resize
from cpn.voc import Split

EPSILON = 1e-5


class CamConfig(Section):
    """How class activation maps are read off a trained network."""

    scales: tuple[float, ...] = Field((0.5, 1.0, 1.5, 2.0), min_length=1)
    """Image scales whose maps are summed."""
    flip: bool = True
    """Sum the maps of the mirrored image as well."""
    map: Literal["refined", "plain"] = "refined"
    """`refined`: the refined CAM of the original image. `plain`: ReLU of the CAM (cam_baseline)."""
    beta: float = Field(0.72, ge=0, le=1.2)
    """beta: the background score, on maps in [0, 1] that are not halved; what `miou_fixed_beta` uses."""
    confirm_share: float = Field(0.5, gt=0, lt=1)
    """Share of the scored images kept away from selection: trials are ranked on the others."""
    confirm_seed: int = Field(0, ge=0)
    """Seed of the hash that splits the scored images into select and confirm."""


def normalise_sum(summed: Tensor) -> Tensor:
    """(P, H, W) summed raw maps -> [0, 1] per map: negative and near-minimal values become 0 (method.md (g)).

    The released code goes on to halve the result; ours are never halved, and beta is read on the full scale.
    """
    positive = functional.relu(summed)
    low = positive.amin(dim=(1, 2), keepdim=True)
    high = positive.amax(dim=(1, 2), keepdim=True)
    kept = torch.where(positive < low + EPSILON, torch.zeros_like(positive), positive)
    return functional.relu((kept - low - EPSILON) / (high - low + EPSILON))


@torch.no_grad()
def multi_scale_maps(network: CPN, image: np.ndarray, present: np.ndarray, config: CamConfig) -> np.ndarray:
    """Un-halved maps of the present classes: uint8 (H, W, 3), indices (P,) in 1..F -> float32 (P, H, W) in [0, 1].

    Per scale the image is resized with PIL's bicubic kernel to round(side * scale) (Python's rounding), the maps are
    resized back with bilinear, align_corners False, un-flipped and summed over scales and flips. The network must be
    in eval mode.
    """
    if len(present) == 0:
        return np.zeros((0, *image.shape[:2]), np.float32)
    device = next(network.parameters()).device
    height, width = image.shape[:2]
    index = torch.as_tensor(present, dtype=torch.long, device=device)
    total = torch.zeros(len(present), height, width, device=device)
    for scale in config.scales:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        scaled = image if size == (height, width) else resize(image, size)
        inputs = normalise(torch.from_numpy(np.ascontiguousarray(scaled)[None]).to(device), None)
        if config.flip:
            inputs = torch.cat([inputs, inputs.flip(3)])
        branch = network(inputs)
        maps = branch.refined_cam if config.map == "refined" else functional.relu(branch.cam)
        maps = functional.interpolate(maps[:, index].float(), (height, width), mode="bilinear", align_corners=False)
        total += maps[0] + maps[1].flip(2) if config.flip else maps[0]
    result: np.ndarray = normalise_sum(total).cpu().numpy()
    return result


def present_classes(labels: np.ndarray) -> np.ndarray:
    """Multi-hot labels (F,) -> class indices (P,) in 1..F."""
    return np.flatnonzero(labels > 0) + 1


def image_counts(network: CPN, split: Split, index: int, config: CamConfig, classes: int) -> np.ndarray:
    """TP, predicted and true pixels of one image at every beta: int64 (len(BETAS), 3, C). InputError without a mask."""
    truth = split.mask(index)
    if truth is None:
        raise InputError(
            f"{split.ids[index]}: has no mask, but list {split.name!r} is scored; add it, or set data.score"
        )
    present = present_classes(split.labels[index])
    maps = multi_scale_maps(network, split.image(index), present, config)
    return curve_counts(maps, present, truth, classes, BETAS)


def save_maps(path: Path, maps: np.ndarray, present: np.ndarray) -> None:
    """Write un-halved maps float (P, H, W) and their class indices (P,) compactly: float16, present classes only."""
    with whole_file(path) as file:
        np.savez_compressed(file, maps=maps.astype(np.float16), present=present.astype(np.uint8))


def load_maps(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read what `save_maps` wrote: float32 (P, H, W) in [0, 1], int64 (P,) in 1..F."""
    with np.load(path, allow_pickle=False) as file:
        return file["maps"].astype(np.float32), file["present"].astype(np.int64)
