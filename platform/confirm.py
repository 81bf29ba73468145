"""The honest end of a search: the best trials and the reference run again with fresh seeds, and a verdict in words.

Trials were ranked on the select images. What counts here are the confirm images, seen by no trial's ranking, and seeds
that no trial used. Every difference is in mIoU points (percent).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cpn.cam import CamConfig
from cpn.config import config_from, merge, to_dotted
from cpn.metrics import BETAS, miou
from cpn.presets import PRESETS
from cpn.run import COUNTS, load_counts, select_and_confirm

from .spec import SweepSpec
from .study import REFERENCE, State, TrialRow

CAM_BASELINE = "cam_baseline"
FIRST_FRESH_SEED = 1000
"""Added to the base seed; searches never come near it."""
RESAMPLES = 1000
LEAST_SEEDS = 3
"""Fewer seeds of a configuration say nothing about its spread."""
LEVEL = 0.05


@dataclass(frozen=True)
class Confirmed:
    """One configuration run again: its trial in the search, and per fresh seed the confirm images' counts."""

    uid: str
    values: dict[str, Any]
    mious: list[float]
    """miou_confirm of each seed, percent."""
    counts: list[NDArray[np.int64]]
    """Per seed the counts (N, 3, C) of the confirm images at the beta chosen on select."""

    @property
    def mean(self) -> float:
        """Mean miou_confirm over the seeds."""
        return float(np.mean(self.mious))


@dataclass(frozen=True)
class Verdict:
    """What the confirmation shows. `low` and `high` bound the difference to the reference; None when not tested."""

    winner: str
    """uid of the configuration with the best confirmed mean, the reference among them."""
    sentence: str
    tested: bool
    better: bool
    """Shown to beat the reference."""
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def candidates(rows: Sequence[TrialRow], top_k: int) -> list[TrialRow]:
    """The reference, if it finished, and the best `top_k` other full-budget trials by miou on the select images.

    With `top_k` 0 the best one all the same: nothing runs again, and it moves on untested.
    """
    done = [row for row in rows if row.state is State.COMPLETE and row.miou is not None]
    reference = [row for row in done if row.role == REFERENCE]
    others = sorted((r for r in done if r.role != REFERENCE), key=lambda r: (-(r.miou or 0.0), r.number))
    return reference + others[: max(1, top_k)]


def entries(chosen: Sequence[TrialRow], spec: SweepSpec) -> list[dict[str, Any]]:
    """The runs to make: every chosen configuration and cam_baseline, each with `confirm.seeds` fresh seeds."""
    base = spec.base_config.train.seed + FIRST_FRESH_SEED
    seeds = [base + i for i in range(spec.confirm.seeds)] if spec.confirm.top_k else [base]
    wanted = [(row.uid, row.values) for row in chosen] if spec.confirm.top_k else []
    wanted.append((CAM_BASELINE, cam_baseline_values(spec)))
    return [
        {
            "values": {**values, "train.seed": seed},
            "seed": seed,
            "role": CAM_BASELINE if of == CAM_BASELINE else "confirm",
            "of": of,
        }
        for seed in seeds
        for of, values in wanted
    ]


def cam_baseline_values(spec: SweepSpec) -> dict[str, Any]:
    """The dotted values that turn the reference into cam_baseline: classification only, plain CAM."""
    base = to_dotted(spec.base_config)
    changed = to_dotted(config_from(merge(spec.base_config.model_dump(), PRESETS[CAM_BASELINE]), CAM_BASELINE))
    return {name: value for name, value in changed.items() if value != base[name]}


def confirmed(
    chosen: Sequence[TrialRow], runs: Sequence[TrialRow], folder_of: Mapping[str, Path], cam: CamConfig
) -> list[Confirmed]:
    """Gather the finished confirm runs by configuration; `folder_of` gives each run's folder by uid."""
    found = []
    for row in chosen:
        own = [run for run in runs if run.attrs.get("of") == row.uid and run.state is State.COMPLETE]
        if own:
            counts = [confirm_counts(folder_of[run.uid], run.beta or 0.0, cam) for run in own]
            mious = [100 * float(miou(c.sum(0))) for c in counts]
            found.append(Confirmed(row.uid, row.values, mious, counts))
    return found


def confirm_counts(folder: Path, beta: float, cam: CamConfig) -> NDArray[np.int64]:
    """Counts (N, 3, C) of a run's confirm images at `beta`."""
    ids, counts = load_counts(folder / COUNTS)
    _, held_back = select_and_confirm(ids, cam)
    at: NDArray[np.int64] = counts[held_back, BETAS.index(beta)]
    return at


def judge(reference: Confirmed | None, others: Sequence[Confirmed], seed: int) -> Verdict:
    """The verdict over everything that was confirmed.

    The interval adds two variances: of the seeds, pooled over all configurations that ran again (t distribution, level
    .05 / k for k configurations compared), and of the images, from a bootstrap over the confirm images.
    """
    everything = [*([reference] if reference else []), *others]
    best = max(everything, key=lambda c: c.mean)
    if reference is None or not others:
        return Verdict(best.uid, "not tested: there is nothing to compare", False, False)
    if best is reference:
        rival = max(others, key=lambda c: c.mean)
        return Verdict(
            best.uid,
            "no improvement shown: the reference's confirmed mean is the best, "
            f"{rival.mean - best.mean:+.1f} for the next",
            True,
            False,
            rival.mean - best.mean,
        )
    difference = best.mean - reference.mean
    if min(len(c.mious) for c in (reference, best)) < LEAST_SEEDS:
        return Verdict(
            best.uid,
            f"not tested: {difference:+.1f} over the reference with {len(best.mious)} seeds, {LEAST_SEEDS} are needed",
            False,
            False,
            difference,
        )
    low, high = interval(reference, best, everything, len(others), seed)
    if low > 0:
        sentence = f"beats the reference by {difference:.1f} [{low:.1f}, {high:.1f}]"
    else:
        sentence = f"no improvement shown: {difference:+.1f} [{low:.1f}, {high:.1f}] over the reference"
    return Verdict(best.uid, sentence, True, low > 0, difference, low, high)


def interval(
    reference: Confirmed, best: Confirmed, everything: Sequence[Confirmed], compared: int, seed: int
) -> tuple[float, float]:
    """Bounds of the difference best - reference in percent, at level .05 / `compared`."""
    squares = sum(float(np.sum((np.array(c.mious) - c.mean) ** 2)) for c in everything)
    freedom = sum(len(c.mious) - 1 for c in everything)
    seed_variance = squares / freedom * (1 / len(best.mious) + 1 / len(reference.mious))
    image_variance = float(np.var(bootstrap_difference(reference, best, seed)))
    half = stats.t.ppf(1 - LEVEL / compared / 2, freedom) * np.sqrt(seed_variance + image_variance)
    difference = best.mean - reference.mean
    return difference - float(half), difference + float(half)


def bootstrap_difference(reference: Confirmed, best: Confirmed, seed: int) -> NDArray[np.float64]:
    """Differences of mean mIoU in percent when the confirm images are redrawn, the same for both: (RESAMPLES,)."""
    images = len(reference.counts[0])
    weights = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), RESAMPLES)

    def means(runs: Confirmed) -> NDArray[np.float64]:
        drawn = [miou((weights @ c.reshape(images, -1)).reshape(RESAMPLES, *c.shape[1:])) for c in runs.counts]
        mean: NDArray[np.float64] = 100 * np.mean(drawn, axis=0)
        return mean

    return means(best) - means(reference)
