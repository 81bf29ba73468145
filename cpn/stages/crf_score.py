"""The scores of CAM + CRF over a list: what the dense CRF alone makes of a network's maps, at the best beta of its CAM.

The CRF runs on [(1 - max)^alpha, maps], CPN Eq. (16), whose alpha is that of beta (cpn/propagation/walk_rule.py):
before the CRF the masks are those of the CAM at beta. One CRF an image: beta is not chosen again behind it.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpn.config.cam import CamConfig
from cpn.config.crf import CrfConfig
from cpn.core.files import digest
from cpn.core.progress import Progress
from cpn.data.map_files import present_classes
from cpn.data.voc import Split, mask_of
from cpn.models.network import CPN
from cpn.propagation.crf import crf_scores
from cpn.propagation.walk_rule import alpha_of
from cpn.scoring.cam import multi_scale_maps, to_halved
from cpn.scoring.metrics import hard_counts, miou
from cpn.scoring.scale_scores import foreground_and_classes, in_parts


def score_crf(
    network: CPN,
    split: Split,
    cam: CamConfig,
    crf: CrfConfig,
    beta: float,
    classes: int,
    report: Progress,
    folder: Path | None = None,
) -> NDArray[np.int64]:
    """Return the counts of CAM + CRF over all scales, summed over a list: int64 (3, C). The network must be in eval
    mode.

    With `folder` counts are kept below it for this beta and CRF, and a killed scoring goes on, as `score_list`.
    """

    def counts(index: int) -> NDArray[np.int64]:
        image, present = split.image(index), present_classes(split.labels[index])
        scores = crf_scores(image, multi_scale_maps(network, image, present, cam), alpha_of(beta), crf)
        label = np.concatenate([[0], present])[scores.argmax(axis=0)]
        return hard_counts(label, mask_of(split, index), classes)

    counts_folder = None if folder is None else folder / f"crf-{digest([beta, crf.model_dump(mode='json')])}"
    return in_parts(split, (3, classes), counts, report, counts_folder, "CRF")


def crf_row(scale: str, counts: NDArray[np.int64], beta: float, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return what is said of CAM + CRF, as `score_row` of the CAM's row `scale` says it: counts (3, C), percent."""
    row: dict[str, Any] = {"scale": f"{scale}, CRF", "miou": 100 * float(miou(counts)), "beta": beta}
    return {**row, "t": to_halved(beta), "alpha": alpha_of(beta), **foreground_and_classes(counts, classes)}
