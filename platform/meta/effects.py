"""Which hyperparameters mattered in which sweep, with intervals; and whether the best patch size follows object size.

The share of a name is fANOVA's main effect over the full-budget trials that have it; it says something of the ranges
that were searched and of nothing outside them. Its interval is a bootstrap over trials. A forest finds structure in
noise as well: `chance` is what the same trials give when their scores are shuffled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cpn.core.errors import InputError
from cpn.core.object_storage import is_url
from cpn.data.voc import IGNORE, Split, open_pack

from ..cluster.inputs import data_root
from ..config.space.domains import Search, drawn
from ..reports.importances import BEST, LEAST_TRIALS, main_effects
from ..reports.plots import finished
from ..reports.snapshot import SweepSnapshot
from ..search.study import TrialRow

S_N = "patches.S_N"
LEVEL = 0.95
MOST_IMAGES = 200
"""Images whose objects are measured."""
LEAST_SWEEPS = 4
"""Fewer say nothing about a trend over sweeps."""


@dataclass(frozen=True)
class Importance:
    """How much one name mattered in one sweep. Shares of the variance of the objective, in percent."""

    share: float
    low: float
    high: float
    """Percentiles at LEVEL over redraws of the trials."""
    chance: float
    """Percentile at LEVEL of the share where the trials' scores are shuffled."""
    trials: int
    """Full-budget trials that have the name."""

    @property
    def mattered(self) -> bool:
        """Whether it lies above chance: a permutation test of this name at the level 1 - LEVEL."""
        return self.share > self.chance


@dataclass(frozen=True)
class PatchSize:
    """The number of superpixels that was best, and the size of the objects."""

    best: float
    """Median of S_N over the best quarter of the trials."""
    low: float
    high: float
    """The smallest and largest of them."""
    object_side: float | None
    """Median root of the pixels of a class in an image; None where the data are not here, or have no masks."""
    image_side: float | None
    """Median root of the pixels of an image."""

    @property
    def patch_side(self) -> float | None:
        """Root of the pixels of a superpixel at the best S_N."""
        return None if self.image_side is None else self.image_side / float(np.sqrt(self.best))


def sweep_importances(
    search: Search, rows: Sequence[TrialRow], resamples: int, seed: int, report: Callable[[int, int], None]
) -> dict[str, Importance]:
    """Return every drawn name's importance; a conditional one among the trials that have it. Empty with too few
    trials.
    """
    done = finished(rows)
    importances: dict[str, Importance] = {}
    groups: dict[frozenset[int], list[str]] = {}
    for name in drawn(search):
        having = frozenset(at for at, row in enumerate(done) if name in row.values)
        groups.setdefault(having, []).append(name)
    for number, (having, asked) in enumerate(groups.items()):
        trials = [done[at] for at in sorted(having)]
        if len(trials) < LEAST_TRIALS:
            continue
        names = [name for name in drawn(search) if all(name in row.values for row in trials)]
        shares = main_effects(search, trials, names, seed)
        if not shares:
            continue
        rng = np.random.default_rng([seed, number])
        redrawn: dict[str, list[float]] = {name: [] for name in asked}
        shuffled: dict[str, list[float]] = {name: [] for name in asked}
        for draw in range(resamples):
            again = [trials[at] for at in rng.integers(len(trials), size=len(trials))]
            order = rng.permutation(len(trials))
            mixed = [replace(row, miou=trials[at].miou) for row, at in zip(trials, order, strict=True)]
            for drawn_rows, effects_by_name in ((again, redrawn), (mixed, shuffled)):
                effects = main_effects(search, drawn_rows, names, seed)
                for name in asked:
                    effects_by_name[name].append(effects.get(name, 0.0))
            report(number * resamples + draw + 1, len(groups) * resamples)
        for name in asked:
            low, high = np.quantile(redrawn[name], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            chance = float(np.quantile(shuffled[name], LEVEL))
            share = 100 * shares.get(name, 0.0)
            importances[name] = Importance(share, 100 * float(low), 100 * float(high), 100 * chance, len(trials))
    return importances


def patch_size(sweep: SweepSnapshot) -> PatchSize | None:
    """Return the best S_N of a sweep that searched it, beside the size of the objects; None where too few trials have
    it.
    """
    having = [row for row in finished(sweep.rows) if S_N in row.values]
    if S_N not in drawn(sweep.spec.search) or len(having) < LEAST_TRIALS:
        return None
    ranked = sorted(having, key=lambda row: -(row.miou or 0.0))
    best = [float(row.values[S_N]) for row in ranked[: max(1, round(BEST * len(ranked)))]]
    split = _scored(sweep)
    sides = (None, None) if split is None else median_sides(split)
    return PatchSize(float(np.median(best)), min(best), max(best), *sides)


def _scored(sweep: SweepSnapshot) -> Split | None:
    """Return the list with masks; None where its data are not on this machine."""
    config = sweep.spec.base_config
    try:
        root = data_root(config, sweep.store)
        split = None if is_url(root) else open_pack(root).split(config.data.score)
    except InputError:
        return None
    return split if split is not None and split.masked else None


def median_sides(split: Split) -> tuple[float | None, float]:
    """Median root of the pixels of a class in an image, and of an image, over a sample of a list with masks."""
    objects, images = [], []
    for index in np.unique(np.linspace(0, len(split) - 1, MOST_IMAGES).astype(int)).tolist():
        truth = split.mask(index)
        if truth is None:
            continue
        areas = np.bincount(truth.ravel(), minlength=IGNORE + 1)[1:IGNORE]
        objects += np.sqrt(areas[areas > 0]).tolist()
        images.append(float(np.sqrt(truth.size)))
    return (float(np.median(objects)) if objects else None), float(np.median(images))


def follows(sizes: Sequence[PatchSize]) -> str:
    """Return whether the best patch is larger where objects are larger, by Spearman's rank correlation, in a
    sentence.
    """
    from scipy import stats

    known = [(size.object_side, size.patch_side) for size in sizes if size.object_side and size.patch_side]
    if len(known) < LEAST_SWEEPS:
        return f"does the best S_N follow object size? {len(known)} sweeps can be compared, {LEAST_SWEEPS} are needed"
    result = stats.spearmanr(*zip(*known, strict=True))
    rank, p = float(result.statistic), float(result.pvalue)
    words = "larger objects go with larger best patches" if rank > 0 else "larger objects go with smaller best patches"
    shown = words if p < 1 - LEVEL else "no trend is shown"
    numbers = f"rank correlation {rank:+.2f} over {len(known)} sweeps, p {p:.2g}"
    return f"does the best S_N follow object size? {shown}: {numbers}"
