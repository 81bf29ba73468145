"""Which scored images choose and which confirm, and what the masks of both halves say."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpn.config.cam import CamConfig
from cpn.scoring.metrics import BETAS, best_beta, iou, miou
from cpn.scoring.run_manifest import Curve


def select_and_confirm(ids: list[str], config: CamConfig) -> tuple[list[int], list[int]]:
    """Return indices of the select and the confirm images: a seeded hash of each id, so that no list order matters."""
    confirm = [_unit(f"{config.confirm_seed}:{name}") < config.confirm_share for name in ids]
    return [i for i, c in enumerate(confirm) if not c], [i for i, c in enumerate(confirm) if c]


def epoch_sample(ids: list[str], config: CamConfig) -> list[int]:
    """Choose the select images that are scored after each epoch: `cam.epoch_images` indices in the list's order.

    Those with the smallest seeded hash of their id: no list order matters, and a larger sample holds a smaller one.
    """
    select, _ = select_and_confirm(ids, config)
    drawn = sorted(select, key=lambda index: _unit(f"{config.confirm_seed}:epoch:{ids[index]}"))
    return sorted(drawn[: config.epoch_images])


@dataclass(frozen=True)
class MaskScores:
    """What masks say of a list, in percent: the manifest's `metrics`, `curve` and `iou`."""

    metrics: dict[str, float]
    curve: Curve
    iou: list[float]


def summarise(chosen: NDArray[np.int64], held_back: NDArray[np.int64], config: CamConfig) -> MaskScores:
    """Metrics, beta curve and per-class IoU, in percent, of counts (len(BETAS), 3, C) of select and confirm images."""
    everything = chosen + held_back
    beta, best = best_beta(chosen)
    at = BETAS.index(beta)
    fixed = int(np.abs(np.array(BETAS) - config.beta).argmin())
    beta_train, best_train = best_beta(everything)
    metrics = {
        "miou": best,
        "miou_fixed_beta": float(miou(chosen[fixed])),
        "miou_confirm": float(miou(held_back[at])),
        "miou_train": best_train,
    }
    curve = Curve(
        beta=tuple(BETAS),
        miou=tuple(100 * float(v) for v in miou(chosen)),
        miou_train=tuple(100 * float(v) for v in miou(everything)),
    )
    percent = {name: 100 * value for name, value in metrics.items()} | {"beta": beta, "beta_train": beta_train}
    return MaskScores(percent, curve, [100 * float(v) for v in iou(chosen[at])])


def _unit(text: str) -> float:
    """Return a number in [0, 1) from a hash of `text`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
