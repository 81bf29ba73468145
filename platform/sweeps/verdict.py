"""What the confirm runs of a sweep come to: the verdict, means and intervals, told to the records."""

from dataclasses import replace
from typing import NamedTuple

from cpn.config.random_walk import extra_supervision

from ..run.sweep_context import SweepContext
from ..search import confirm
from ..search.confirm import CAM_BASELINE, Verdict
from ..search.confirm_bounds import Bounds, against_baseline, mean_interval
from ..search.confirm_bounds import bounds as bounds_of
from ..search.study import REFERENCE, State, Study, TrialRow


class Confirmation(NamedTuple):
    """What the confirm runs of a sweep show."""

    verdict: Verdict
    means: dict[str, list[float]]
    """By uid, and `cam_baseline`: the objective on the confirm images for each fresh seed, percent."""
    bounds: dict[str, Bounds]
    """By uid, and `cam_baseline`; empty where nothing was confirmed."""


def reach_verdict(sweep: SweepContext, chosen: list[TrialRow], again: Study) -> Confirmation:
    """Return the verdict, means and intervals of a sweep's confirm runs; the records hear of each mean."""
    options = confirm.options_of(sweep.spec.confirm, again.rows())
    runs = confirm.counted(chosen, again.rows(), confirm.race_of(chosen, options))
    for run in runs:
        sweep.finished(run)
    folders = {run.uid: sweep.folder(run) for run in runs}
    cam, objective = sweep.config.cam, sweep.spec.objective
    confirmed = confirm.confirmed(chosen, runs, folders, cam, objective)
    means = {c.uid: c.mious for c in confirmed}
    cam_baseline = [r for r in runs if r.role == CAM_BASELINE and r.state is State.COMPLETE]
    means[CAM_BASELINE] = [float(r.attrs[f"{objective}_confirm"]) for r in cam_baseline]
    system = sweep.method(chosen[0]).train.objective
    plain = [replace(cam_baseline[0], uid=CAM_BASELINE)] if cam_baseline else []
    baseline = next(iter(confirm.confirmed(plain, runs, folders, cam, objective)), None)
    extra = "" if (words := extra_supervision(sweep.config.instance_masks)) is None else f"; {words}"
    if not confirmed:
        best = max(chosen, key=lambda row: row.miou or 0.0)
        words = against_baseline(None, baseline, [], system, 0)
        verdict = Verdict(best.uid, "not tested: nothing was confirmed" + extra, False, False, baseline=words)
        return Confirmation(verdict, means, {})
    reference = next((c for c in confirmed if c.uid == chosen[0].uid and chosen[0].role == REFERENCE), None)
    others = [c for c in confirmed if c is not reference]
    seed = sweep.spec.search_options.seed
    rule = confirm.rule_of(chosen, options)
    verdict, bounds = confirm.judge(reference, others, seed, rule), bounds_of(reference, confirmed, seed, rule)
    for one in confirmed:
        sweep.records.confirmed(one.uid, one.mious, bounds[one.uid].mean)
    if baseline is not None:
        bounds[CAM_BASELINE] = Bounds(mean_interval(baseline, [*confirmed, baseline], seed))
    unit = "" if objective == "miou" else f" (of {objective}, which is no mIoU)"
    winner = next(c for c in confirmed if c.uid == verdict.winner)
    words = against_baseline(winner, baseline, confirmed, system, seed)
    worded = replace(verdict, sentence=verdict.sentence + unit + extra, baseline=words + unit)
    return Confirmation(worded, means, bounds)
