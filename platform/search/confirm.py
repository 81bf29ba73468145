"""The honest end of a search: the best trials and the reference run again with fresh seeds, and a verdict in words.

Trials were ranked on the select images. What counts here are the confirm images, seen by no trial's ranking, and seeds
that no trial used. Every difference is in mIoU points (percent).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special  # scipy.stats and scipy.optimize take half a second to load

from cpn.config import config_from, merge, to_dotted
from cpn.config.cam import CamConfig
from cpn.config.presets import PRESETS
from cpn.core.files import digest
from cpn.core.run_files import COUNTS, SCORES
from cpn.scoring.bootstrap import RESAMPLES, resample_weights, weighted_sums
from cpn.scoring.counts import each_counts, load_ids
from cpn.scoring.mask_free import MaskFreeScores, load_scores, mask_free
from cpn.scoring.metrics import BETAS, miou
from cpn.scoring.selection import select_and_confirm

from ..config.sections import Confirm
from ..config.sweep_spec import SweepSpec
from . import race
from .race import LEAST_SEEDS as LEAST_SEEDS
from .race import LEVEL
from .study import REFERENCE, State, TrialRow
from .trial_row import CAM_BASELINE as CAM_BASELINE

FIRST_FRESH_SEED = 1000
"""Added to the base seed; searches never come near it."""
LEAST_IMAGES = 2
"""Of one image nobody knows how much another would have changed the verdict."""
AGAIN = "confirm"
"""Role of the runs of what is compared."""

Images = NDArray[np.int64] | MaskFreeScores
"""What a run made of the confirm images, one by one: counts (N, 3, C), or scores that need no masks."""


@dataclass(frozen=True)
class Confirmed:
    """One configuration run again: its trial in the search, and per fresh seed the confirm images' counts."""

    uid: str
    values: dict[str, Any]
    mious: list[float]
    """miou_confirm of each seed, percent."""
    counts: list[Images]
    """Per seed the counts (N, 3, C) of the confirm images at the beta chosen on select; or their mask-free scores."""

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
    baseline: str | None = None
    """How it stands against cam_baseline, in words (`confirm_bounds.against_baseline`)."""


def candidates(rows: Sequence[TrialRow], top_k: int) -> list[TrialRow]:
    """Return the reference, if it finished, and the best `top_k` other full-budget trials by miou on the select images.

    Each configuration stands there once, under the first trial that drew it: runs that are the same would count twice
    in the variance over seeds. With `top_k` 0 the best one all the same: nothing runs again, it is promoted untested.
    """
    done = [row for row in rows if row.state is State.COMPLETE and row.miou is not None]
    reference = [row for row in done if row.role == REFERENCE]
    others: list[TrialRow] = []
    for row in sorted((r for r in done if r.role != REFERENCE), key=lambda r: (-(r.miou or 0.0), r.number)):
        if all(row.values != other.values for other in (*reference, *others)):
            others.append(row)
    return reference + others[: max(1, top_k)]


def entries(chosen: Sequence[TrialRow], spec: SweepSpec) -> list[dict[str, Any]]:
    """Return the runs of a sweep that does not race: every chosen configuration and cam_baseline, each with its number
    of fresh seeds. One that would race, had it anything to compare, makes no more of them than the race.
    """
    confirm, wanted = spec.confirm, []
    if confirm.raced:
        chosen = chosen[: max(1, confirm.race_runs(len(chosen) - 1) // confirm.seeds_each)]
    if confirm.top_k:
        wanted = [(row, confirm.seeds_of_reference if row.role == REFERENCE else confirm.seeds_each) for row in chosen]
    baseline = confirm.seeds_each if confirm.top_k else 1
    runs = []
    for i in range(max(baseline, *(seeds for _, seeds in wanted), 0)):
        runs += [entry(row, i, spec) for row, seeds in wanted if i < seeds]
        runs += [entry(None, i, spec)] * (i < baseline)
    return runs


def entry(row: TrialRow | None, number: int, spec: SweepSpec, **more: Any) -> dict[str, Any]:
    """Return a run of a configuration, None for cam_baseline, with the fresh seed of that number."""
    seed = spec.base_config.train.seed + FIRST_FRESH_SEED + number
    values = row.values if row else cam_baseline_values(spec)
    role, of = (AGAIN, row.uid) if row else (CAM_BASELINE, CAM_BASELINE)
    return {"values": {**values, "train.seed": seed}, "seed": seed, "role": role, "of": of, **more}


def options_of(options: Confirm, runs: Sequence[TrialRow]) -> Confirm:
    """Return what a sweep does that has these confirm runs: one that began before there were races goes on without."""
    of = {str(run.confirms) for run in runs if run.role == AGAIN}
    if not options.raced or not of or any(run.race for run in runs):
        return options
    return options.model_copy(
        update={"seeds": options.seeds_each, "top_k": sum(not uid.endswith("-0000") for uid in of)}
    )


def race_of(chosen: Sequence[TrialRow], options: Confirm) -> str | None:
    """Return the name of the race of these candidates, the same as long as they and the number of runs are; None where
    nothing is raced, or there is nothing to compare.
    """
    if not options.raced or not options.top_k or len(chosen) < 2 or chosen[0].role != REFERENCE:
        return None
    return digest([[row.uid for row in chosen], options.race_runs(len(chosen) - 1)])[:12]


def rule_of(chosen: Sequence[TrialRow], options: Confirm) -> race.Rule | None:
    """Return how sure a race has to be; None where nothing is raced."""
    if race_of(chosen, options) is None:
        return None
    compared = len(chosen) - 1
    return race.Rule(compared, options.race_runs(compared))


def counted(chosen: Sequence[TrialRow], runs: Sequence[TrialRow], name: str | None) -> list[TrialRow]:
    """Return the confirm runs that the verdict is about. In a race they are its own, and the reference's own trial:
    nothing chose that for its score, and the confirm images had no part in it.
    """
    counted_runs = [run for run in runs if run.role == CAM_BASELINE or run.race == name]
    if name is None:
        return counted_runs
    return [replace(chosen[0], attrs={**chosen[0].attrs, "of": chosen[0].uid}), *counted_runs]


def race_entries(
    number: int, chosen: Sequence[TrialRow], runs: Sequence[TrialRow], measured: Sequence[Confirmed], spec: SweepSpec
) -> list[dict[str, Any]]:
    """Return the runs of round `number` of a race, none at its end. `runs` are those of the rounds before, `measured`
    what came of them; nothing else decides.
    """
    options = spec.confirm
    of = [str(run.confirms) for run in runs]
    failed = [str(run.confirms) for run in runs if run.state is State.FAIL]
    results = [next((c for c in measured if c.uid == row.uid), None) for row in chosen]
    left = options.race_runs(len(chosen) - 1) - len(runs)
    arms = next_runs(
        results, [failed.count(row.uid) for row in chosen], left, len(runs) + left, spec.search_options.seed
    )
    name, wanted = race_of(chosen, options), []
    for arm in arms:
        wanted.append(entry(chosen[arm], of.count(chosen[arm].uid), spec, race=name, round=number))
        of.append(chosen[arm].uid)
    return wanted + ([entry(None, i, spec) for i in range(options.seeds_each)] if number == 0 else [])


def next_runs(
    results: Sequence[Confirmed | None], failed: Sequence[int], left: int, limit: int, seed: int
) -> list[int]:
    """Return which configurations run next in a race over `limit` runs, `left` of them still to come: their numbers,
    the reference's is 0; none where it is over. A configuration of which two runs have `failed` does not run again.
    """
    arms = race.Arms.of([result.mious if result else [] for result in results])
    reference, *others = results
    rivals = [result for result in others if result]
    # Images only widen the difference: where the seeds alone are in doubt, the bootstrap is spared.
    if reference and rivals and race.error(arms)[0] < LEVEL:
        if judge(reference, rivals, seed, race.Rule(len(others), limit, early=True)).better:
            return []
    return [int(arm[0]) for arm in race.next_arms(arms, left, np.array([failed]) >= 2) if arm[0] >= 0]


def cam_baseline_values(spec: SweepSpec) -> dict[str, Any]:
    """Return the dotted values that turn the reference into cam_baseline: classification only, plain CAM."""
    base = to_dotted(spec.base_config)
    changed = to_dotted(config_from(merge(spec.base_config.model_dump(), PRESETS[CAM_BASELINE]), CAM_BASELINE))
    return {name: value for name, value in changed.items() if value != base[name]}


def confirmed(
    chosen: Sequence[TrialRow],
    runs: Sequence[TrialRow],
    folder_of: Mapping[str, Path],
    cam: CamConfig,
    objective: str = "miou",
) -> list[Confirmed]:
    """Gather the finished confirm runs by configuration; `folder_of` gives each run's folder by uid."""
    results = []
    for row in chosen:
        own = [run for run in runs if run.confirms == row.uid and run.state is State.COMPLETE]
        if own:
            folders = [(folder_of[run.uid], run.beta or 0.0) for run in own]
            if objective == "miou":
                results.append(scored(row, [confirm_counts(folder, beta, cam) for folder, beta in folders]))
            else:
                results.append(scored(row, [confirm_scores(folder, cam) for folder, _ in folders]))
    return results


def scored(row: TrialRow, counts: Sequence[Images]) -> Confirmed:
    """Return what the confirm images of each fresh seed say about the configuration of `row`."""
    return Confirmed(row.uid, row.values, [float(values(c, np.ones((1, len(c))))[0]) for c in counts], list(counts))


def values(images: Images, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the objective in percent over N images that count `weights` (R, N) times: (R,)."""
    if isinstance(images, MaskFreeScores):
        return mask_free(images, weights)
    return 100 * miou(weighted_sums(images, weights))


def confirm_scores(folder: Path, cam: CamConfig) -> MaskFreeScores:
    """Return a run's mask-free scores of the confirm images."""
    ids, scores = load_scores(folder / SCORES)
    _, held_back = select_and_confirm(ids, cam)
    return scores.subset(held_back)


def confirm_counts(folder: Path, beta: float, cam: CamConfig) -> NDArray[np.int64]:
    """Return the counts (N, 3, C) of a run's confirm images at `beta`."""
    _, held_back = select_and_confirm(load_ids(folder / COUNTS), cam)
    wanted, at = frozenset(held_back), BETAS.index(beta)
    every = enumerate(each_counts(folder / COUNTS))
    return np.stack([counts[at].copy() for i, counts in every if i in wanted])  # a view would keep every beta's


def judge(
    reference: Confirmed | None, others: Sequence[Confirmed], seed: int, rule: race.Rule | None = None
) -> Verdict:
    """Return the verdict over everything that was confirmed: the best confirmed mean against the reference's
    (`interval`). Of a race, which has a `rule`, those that were left behind before they had seeds enough can't be the
    best.
    """
    everything = [*([reference] if reference else []), *others]
    enough = [c for c in others if len(c.mious) >= LEAST_SEEDS] if rule else []
    others = enough or others
    best = max([*([reference] if reference else []), *others], key=lambda c: c.mean)
    if reference is None or not others:
        return Verdict(best.uid, "not tested: there is nothing to compare", False, False)
    if best is reference:
        rival = max(others, key=lambda c: c.mean)
        behind = f"{best.mean - rival.mean:.1f} points lower"
        if is_tested(reference, rival):
            low, high = interval(reference, rival, everything, len(others), seed, rule)
            behind += f" [{low:.1f}, {high:.1f}]"
        sentence = f"no trial beat the reference (best: {rival.uid}, {behind})"
        return Verdict(best.uid, sentence, True, False, rival.mean - best.mean)
    difference = best.mean - reference.mean
    fewest = min(len(c.mious) for c in (reference, best))
    if fewest < LEAST_SEEDS:
        return Verdict(
            best.uid,
            f"not tested: {difference:+.1f} over the reference with {fewest} fresh seed{'s' * (fewest != 1)}, "
            f"{LEAST_SEEDS} are needed",
            False,
            False,
            difference,
        )
    if len(best.counts[0]) < LEAST_IMAGES:
        sentence = f"not tested: {difference:+.1f} over the reference on a single confirm image"
        return Verdict(best.uid, sentence, False, False, difference)
    low, high = interval(reference, best, everything, len(others), seed, rule)
    if low > 0:
        sentence = f"beats the reference by {difference:.1f} [{low:.1f}, {high:.1f}]"
    else:
        sentence = f"no improvement shown: {difference:+.1f} [{low:.1f}, {high:.1f}] over the reference"
    return Verdict(best.uid, sentence, True, low > 0, difference, low, high)


def is_tested(reference: Confirmed, other: Confirmed) -> bool:
    """Return whether both have the fresh seeds and the confirm images that an interval takes."""
    return min(len(c.mious) for c in (reference, other)) >= LEAST_SEEDS and len(other.counts[0]) >= LEAST_IMAGES


def interval(
    reference: Confirmed,
    best: Confirmed,
    everything: Sequence[Confirmed],
    compared: int,
    seed: int,
    rule: race.Rule | None = None,
) -> tuple[float, float]:
    """Return the bounds of the difference D = best - reference of the mean mIoU, in percent, for other seeds and other
    images.

        D +- c sqrt(S + I),   c = `critical(compared, f, r)`

        S = s^2 (1/n_best + 1/n_ref): n fresh seeds each; s^2 is the variance over seeds, on the same images, pooled
            over `everything` that ran again, with f_S = sum of (n - 1) degrees of freedom
        I = `image_variance`: of the images that both were scored on, with f_I = N - 1 degrees of freedom
        f = (S + I)^2 / (S^2 / f_S + I^2 / f_I)   (Welch-Satterthwaite)
        r = s^2 / n_ref / (s^2 (1/n_least + 1/n_ref) + I): what two of the comparisons share at least, the seeds of the
            reference; n_least is the fewest seeds of any configuration

    The verdict asks one question, whether the lower bound is above 0, once for each of k = `compared` configurations:
    by chance one of them passes in at most 5 % of sweeps in which none is better. In a race runs go to what is ahead:
    for S c is Student's t for `rule.chance`(I / s^2), which keeps the same promise (`race.level`), and for I it stays
    Dunnett's: how much images matter is itself estimated, and simulations ask for it.
    """
    squares = sum(float(np.sum((np.array(c.mious) - c.mean) ** 2)) for c in everything)
    seed_freedom = sum(len(c.mious) - 1 for c in everything)
    of_reference = squares / seed_freedom / len(reference.mious)
    of_seeds = squares / seed_freedom / len(best.mious) + of_reference
    of_images = image_variance(reference, best, seed)
    image_freedom = max(1, len(best.counts[0]) - 1)
    freedom = float(seed_freedom)
    if of_images > 0:
        freedom = (of_seeds + of_images) ** 2 / (of_seeds**2 / seed_freedom + of_images**2 / image_freedom)
    least = min(len(c.mious) for c in everything if c is not reference)
    most = squares / seed_freedom / least + of_reference + of_images
    bound = critical(rule.compared if rule else compared, freedom, of_reference / most if most > 0 else 0.0)
    half = bound * np.sqrt(of_seeds + of_images)
    if rule is not None:
        ratio = of_images / max(squares / seed_freedom, np.finfo(float).tiny)
        raced = float(special.stdtrit(freedom, 1 - rule.chance(ratio)))
        half = np.sqrt(raced**2 * of_seeds + max(raced, bound) ** 2 * of_images)
    difference = best.mean - reference.mean
    return difference - float(half), difference + float(half)


def critical(compared: int, freedom: float, shared: float) -> float:
    """Return what the largest of `compared` t statistics exceeds by chance with probability LEVEL: the one-sided
    critical value of Dunnett (1955).

    The statistics have `freedom` degrees of freedom in common and every two of them a correlation of `shared`, for all
    compare with one reference: T_i = (sqrt(r) Z + sqrt(1 - r) Z_i) / W, with Z normal and W^2 = chi^2_f / f. So

        P(max T < c) = E over Z and W of Phi((c W - sqrt(r) Z) / sqrt(1 - r))^k

    For one configuration it is Student's t, and for more it is below Bonferroni's t(1 - LEVEL / k), which knows nothing
    of what they share. Both expectations are Gaussian sums, good to four digits.
    """
    normal, weights = np.polynomial.hermite_e.hermegauss(20)
    nodes, chances = np.polynomial.legendre.leggauss(100)
    scale = np.sqrt(2 * special.gammaincinv(freedom / 2, (nodes + 1) / 2) / freedom)[:, None]

    def excess(c: float) -> float:
        below = special.ndtr((c * scale - np.sqrt(shared) * normal) / np.sqrt(1 - shared)) ** compared
        return float(chances @ below @ weights / chances.sum() / weights.sum() - (1 - LEVEL))

    bonferroni = float(special.stdtrit(freedom, 1 - LEVEL / compared))
    low, high = 0.0, 1.01 * bonferroni
    for _ in range(45):  # to the last digits of a float
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return high


def image_variance(reference: Confirmed, best: Confirmed, seed: int) -> float:
    """Return how much of the difference is owed to which images were scored: a variance in percent squared, seeds taken
    out.

    Let m_s be the mIoU of seed s in a draw of the paired bootstrap over images. The variance over draws of
    mean_s(m_s of best) - mean_s(m_s of reference) holds what the images favour in one configuration or the other, and
    on top what each seed does on each image, divided by n seeds. The latter is part of the variance over seeds already
    and is subtracted: sum_s Var(m_s - mean_s m_s) / (n - 1) / n for each of the two. Never below 0. A bootstrap of N
    images spreads like the N - 1 that are free, hence N / (N - 1).
    """
    draws, images = [bootstrap(c, seed) for c in (reference, best)], len(best.counts[0])
    together = float(np.var(draws[1].mean(axis=0) - draws[0].mean(axis=0)))
    return max(0.0, together - sum(own_seeds_share(drawn) for drawn in draws)) * images / max(1, images - 1)


def own_seeds_share(drawn: NDArray[np.float64]) -> float:
    """Return the part of the bootstrap variance of a mean over n seeds that the seeds put there: draws (n,
    RESAMPLES).
    """
    seeds = len(drawn)
    if seeds < 2:
        return 0.0
    return float(np.var(drawn - drawn.mean(axis=0), axis=1).sum()) / (seeds - 1) / seeds


def bootstrap(runs: Confirmed, seed: int) -> NDArray[np.float64]:
    """Return mIoU of each seed in percent when the N confirm images are redrawn: (n, RESAMPLES).

    Equal for equal `seed` and N: two configurations are scored on the same draws.
    """
    weights = resample_weights(len(runs.counts[0]), seed, RESAMPLES)
    return np.stack([values(c, weights) for c in runs.counts])
