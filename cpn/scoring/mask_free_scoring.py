"""The mask-free scores of images, computed with a network; what they are: cpn/scoring/mask_free.py."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from cpn.config.cam import CamConfig
from cpn.data.image_memory import CAM_CURE, image_of
from cpn.data.map_files import present_classes
from cpn.data.patches import complementary_pair, draw_hidden, grid_labels
from cpn.data.transforms import normalise, resize
from cpn.data.voc import Split
from cpn.models.network import CPN
from cpn.scoring.cam import See, normalise_sum, shown_size
from cpn.scoring.mask_free import MaskFreeScores

CELLS = 8
"""Cells along the shorter side."""


P_HIDDEN = 0.5


def hidden_cells(height: int, width: int, name: str) -> NDArray[np.bool_]:
    """Return the hidden pixels of image `name`, the same for every network and run: bool (height, width)."""
    labels = grid_labels(height, width, max(1, round(min(height, width) / CELLS)))
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return draw_hidden(int(labels.max()) + 1, P_HIDDEN, "bernoulli", np.random.default_rng(seed))[labels]


@torch.no_grad()
def image_scores(
    network: CPN, split: Split, index: int, config: CamConfig, see: See | None = None
) -> tuple[NDArray[np.float32], float]:
    """Scores (F,) and agreement of one image at scale 1 (`cam.sizes`). The network must be in eval mode.

    The maps are those of `cam.map`, refined or plain. NaN when no class is present.
    """
    image = split.image(index)
    image = resize(image, shown_size(network, image, 1.0, config))
    device = next(network.parameters()).device
    pixels = normalise(torch.from_numpy(image[None].copy()).to(device), None)
    height, width = image.shape[:2]
    hidden = torch.from_numpy(hidden_cells(height, width, split.ids[index])[None]).to(device)
    branch = network(torch.cat([pixels, *complementary_pair(pixels, hidden)]))
    scores = branch.cam[0, 1:].float().mean(dim=(1, 2)).cpu().numpy()
    present = present_classes(split.labels[index])
    if len(present) == 0:
        return scores, float("nan")
    maps = branch.refined_cam if config.map == "refined" else functional.relu(branch.cam)
    whole, shown, rest = (normalise_sum(each[torch.as_tensor(present, device=device)].float()) for each in maps)
    if see is not None:
        see(index, whole.cpu().numpy())
    return scores, agreement(whole, shown, rest, 1 - float(hidden.float().mean()))


def agreement(whole: torch.Tensor, shown: torch.Tensor, rest: torch.Tensor, lam: float) -> float:
    """How well the pair's maps add up to the whole image's: three (P, H, W) in [0, 1] -> mean over classes in [0, 1].

    `shown` is of I_h, of whose pixels the share `lam` is visible, `rest` of its complement. Bray and Curtis' measure.
    """
    pair = lam * shown + (1 - lam) * rest
    gap, mass = (pair - whole).abs().sum(dim=(1, 2)), (pair + whole).sum(dim=(1, 2))
    return float(torch.where(mass > 0, 1 - gap / mass.clamp_min(1e-12), torch.zeros_like(mass)).mean())


def score_without_masks(network: CPN, split: Split, config: CamConfig, see: See | None = None) -> MaskFreeScores:
    """Scores and agreement of every image of a list. The network must be in eval mode."""
    rows = []
    for index in range(len(split)):
        with image_of(split, index, CAM_CURE):
            rows.append(image_scores(network, split, index, config, see))
    scores, agreements = zip(*rows, strict=True)
    return MaskFreeScores(np.stack(scores), np.array(split.labels), np.array(agreements, np.float32))
