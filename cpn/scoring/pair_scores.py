"""What the maps of a complementary pair show of an object, beside the map of the whole image: Eq. 4-6 and Fig. 1.

The paper argues that lam Y_h + (1 - lam) Y_hb holds at least the information of Y_o, and most at medium patch sizes.
Here one trained network is shown every image whole and as a pair, at its own size, and the four maps are scored alike.
The pair is made as the given `PatchesConfig` says, its hidden value and its lambda included; what the network was
trained with plays no part.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from cpn.config.patches import PAIR_MAPS as MAPS
from cpn.config.patches import PatchesConfig
from cpn.core.progress import Progress
from cpn.data.hidden_value import hidden_picture
from cpn.data.map_files import present_classes
from cpn.data.patches import complementary_pair, hidden_mask
from cpn.data.transforms import normalise
from cpn.data.voc import Split, mask_of
from cpn.models.losses import normalise_cam
from cpn.models.network import CPN
from cpn.scoring.metrics import BETAS, best_beta, curve_counts, miou


@torch.no_grad()
def pair_maps(
    network: CPN,
    image: NDArray[np.uint8],
    present: NDArray[np.integer],
    hidden: NDArray[np.bool_],
    lam: float | None = None,
    filling: NDArray[np.uint8] | None = None,
) -> NDArray[np.float32]:
    """Return the four maps of `MAPS` for the present classes: float32 (4, P, H, W) in [0, 1].

    Takes the image uint8 (H, W, 3), its classes (P,) in 1..F and which pixels I_h hides, bool (H, W). Y_o, Y_h and Y_hb
    are the plain CAMs, each divided by its own range as in the losses (min-max, method.md (e)); the pair is weighted by
    `lam` (Eq. 6; None: the share of pixels that I_h shows). Lost pixels show `filling`, uint8 (H, W, 3), or without one
    the mean colour. The network must be in eval mode.
    """
    device = next(network.parameters()).device
    whole = normalised(image, device)
    lost = None if filling is None else normalised(filling, device)
    pair = complementary_pair(whole, torch.from_numpy(hidden[None]).to(device), lost)
    cams = normalise_cam(network(torch.cat([whole, *pair])).cam.float())
    original, shown, rest = cams[:, torch.as_tensor(present, dtype=torch.long, device=device)]
    lam = 1 - float(hidden.mean()) if lam is None else lam
    maps: NDArray[np.float32] = torch.stack([original, shown, rest, lam * shown + (1 - lam) * rest]).cpu().numpy()
    return maps


def normalised(image: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """uint8 (H, W, 3) -> float32 (1, 3, H, W) on `device`."""
    return normalise(torch.from_numpy(np.ascontiguousarray(image[None])).to(device))


def pair_counts(
    network: CPN, split: Split, patches: PatchesConfig, seed: int, classes: int, report: Progress
) -> NDArray[np.int64]:
    """Return the counts of a list for each of `MAPS` at every beta: int64 (4, len(BETAS), 3, C).

    Which patches of an image are hidden depends on `seed` and its place in the list alone. InputError without masks.
    """
    total = np.zeros((len(MAPS), len(BETAS), 3, classes), np.int64)
    for index in range(len(split)):
        image, truth = split.image(index), mask_of(split, index)
        present = present_classes(split.labels[index])
        rng = np.random.default_rng([seed, index])
        hidden, lam = hidden_mask(image, patches, rng)
        filling = hidden_picture(image, patches.hidden_value, rng)
        for row, maps in enumerate(pair_maps(network, image, present, hidden, lam, filling)):
            total[row] += curve_counts(maps, present, truth, classes, BETAS)
        report("showing pairs", index + 1, len(split))
    return total


def pair_row(counts: NDArray[np.integer]) -> dict[str, float]:
    """miou_o to miou_pair and recall_o to recall_pair in percent, of counts (4, len(BETAS), 3, C).

    mIoU is at each map's own best beta. Recall is the share of object pixels that get their class, at the best beta
    of Y_o for all four: what is found more there is found at the same threshold.
    """
    common = BETAS.index(best_beta(counts[0])[0])
    scores: dict[str, float] = {}
    for name, own in zip(MAPS, counts, strict=True):
        hits, _, true = own[common, :, 1:].sum(axis=1)
        scores[f"miou_{name}"] = 100 * float(miou(own).max())
        scores[f"recall_{name}"] = 100 * float(hits) / max(1, int(true))
    return scores
