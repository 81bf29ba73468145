"""A searched beta costs no trial: it is read off each trial's curve, within the range that the search allows.

A run counts every beta of `cpn.scoring.metrics.BETAS` in one pass over its maps and keeps the counts per image. Its own
metrics take the best of all; where a sweep searches a part of them, the same counts are read again.
"""

from collections.abc import Mapping
from pathlib import Path

from cpn.config.cam import CamConfig
from cpn.core.run_files import COUNTS

from .domains import CURVE, CurveDomain, Search

Range = tuple[float, float]


def searched_range(search: Search) -> Range | None:
    """Return the betas that a search allows; None for all of them."""
    domain = search.get(CURVE)
    return domain.within if isinstance(domain, CurveDomain) else None


def narrowed(metrics: Mapping[str, float], folder: Path, config: CamConfig, within: Range | None) -> dict[str, float]:
    """Return a finished run's metrics with `miou`, `beta` and `miou_confirm` (percent) taken within a range of betas.

    `folder` is the run's; without a range, or without masks, the metrics are returned as they are. The best beta is the
    one of the select images; `miou_confirm` is at it, as everywhere.
    """
    if within is None or "miou" not in metrics:
        return dict(metrics)
    from cpn.scoring.counts import load_ids, two_sums
    from cpn.scoring.metrics import BETAS, best_beta, miou
    from cpn.scoring.selection import select_and_confirm

    allowed = [i for i, beta in enumerate(BETAS) if is_within(beta, within)]
    _, confirm = select_and_confirm(load_ids(folder / COUNTS), config)
    chosen, held_back = two_sums(folder / COUNTS, frozenset(confirm))
    beta, best = best_beta(chosen[allowed], [BETAS[i] for i in allowed])
    confirmed = float(miou(held_back[BETAS.index(beta)]))
    return {**metrics, "miou": 100 * best, "beta": beta, "miou_confirm": 100 * confirmed}


def is_within(beta: float, within: Range) -> bool:
    """Return whether a beta of the curve lies in a range, both ends included."""
    return within[0] - 1e-9 <= beta <= within[1] + 1e-9
