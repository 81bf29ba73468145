"""How the winner stands against cam_baseline, in one line that every sweep ends with."""

from collections.abc import Sequence

from cpn.config.train import Objective

from .confirm import LEAST_IMAGES, LEAST_SEEDS, Confirmed, interval

NAMES: dict[Objective, str] = {
    "cpn": "CPN",
    "seam": "SEAM",
    "classification": "the winner",
    "pair_classification": "the winner",
}
"""What the winner's objective is called."""


def against_baseline(
    winner: Confirmed | None,
    baseline: Confirmed | None,
    everything: Sequence[Confirmed],
    objective: Objective,
    seed: int,
) -> str:
    """`CPN against cam_baseline: +12.6 [10.4, 14.8]`, or why there is no interval, or nothing to compare.

    Both ran again with fresh seeds on the confirm images; the bounds are the verdict's (`confirm.interval`) for one
    comparison. `everything` ran again too and tells the spread over seeds.
    """
    heading = f"{NAMES[objective]} against cam_baseline"
    if baseline is None:
        return f"{heading}: not compared, no run of cam_baseline finished"
    if winner is None:
        return f"{heading}: not compared, the winner did not run again (confirm.top_k)"
    difference = f"{heading}: {winner.mean - baseline.mean:+.1f}"
    fewest = min(len(winner.mious), len(baseline.mious))
    if fewest < LEAST_SEEDS:
        return f"{difference}, not tested: {fewest} fresh seed{'s' * (fewest > 1)}, {LEAST_SEEDS} are needed"
    if len(winner.counts[0]) < LEAST_IMAGES:
        return f"{difference}, not tested: a single confirm image"
    low, high = interval(baseline, winner, [*everything, baseline], 1, seed)
    shown = "" if low > 0 else ", no gain shown" if high > 0 else ", it is worse"
    return f"{difference} [{low:.1f}, {high:.1f}]{shown}"
