"""The end of a sweep in words and numbers: leaderboard, verdict, the table from CAM to DeepLab, the pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from cpn.core.files import write_bytes, write_json
from cpn.data.voc import Pack
from cpn.stages.stage_manifest import StageManifest

from ..base.paths import SweepPaths
from ..base.terminal import shown
from ..config.space.domains import encode
from ..config.sweep_spec import SweepSpec
from ..run.run_stages import StageFailed
from ..search import pruning_audit
from ..search.confirm import CAM_BASELINE, Verdict
from ..search.confirm_bounds import Bounds, failed_words
from ..search.study import State, TrialRow
from ..search.sweep_summary import LeaderboardEntry, SweepSummary

FEWEST = 20
"""Ended trials below which statistics of pruning and of mask_free mean nothing."""


def summarise(
    spec: SweepSpec,
    pack: Pack,
    rows: Sequence[TrialRow],
    again: Sequence[TrialRow],
    means: Mapping[str, Sequence[float]],
    verdict: Verdict,
    winner: TrialRow,
    manifests: Mapping[str, StageManifest],
    hours: float,
    pruning_off: Mapping[str, str] | None = None,
    bounds: Mapping[str, Bounds] = MappingProxyType({}),
    failed: StageFailed | None = None,
) -> SweepSummary:
    """Return everything the report shows; kept as JSON. `pruning_off`: rungs that were switched off; `bounds`: those of
    platform/search/confirm_bounds.py; `failed`: the stage that did not come to its end.
    """
    count = {
        state.name.lower(): sum(row.state is state for row in rows)
        for state in (State.COMPLETE, State.PRUNED, State.FAIL)
    }
    stages = {name: manifest.metrics for name, manifest in manifests.items()}
    walk, deeplab = stages.get("random_walk", {}), stages.get("deeplab", {})
    objective = spec.objective
    metrics = {
        f"{objective}_confirm_cam_baseline": mean(means.get(CAM_BASELINE)),
        f"{objective}_confirm": mean(means.get(winner.uid)),
        objective: winner.miou,
        "random_walk/miou_confirm": walk.get("miou_confirm"),
        "random_walk/miou_train": walk.get("miou_train"),
        "deeplab/miou_val": deeplab.get("miou_val"),
        "deeplab/miou_val_crf": deeplab.get("miou_val_crf"),
        "hours": hours,
        "difference": verdict.difference,
    }
    summary = SweepSummary(
        sweep=spec.name,
        objective=objective,
        verdict=verdict.sentence,
        against_baseline=verdict.baseline,
        tested=verdict.tested,
        better=verdict.better,
        interval=(verdict.low, verdict.high),
        winner=winner.uid,
        winner_values={name: encode(value) for name, value in winner.values.items()},
        winner_beta=winner.beta,
        trials=count,
        confirm_runs=sum(row.state is State.COMPLETE for row in again),
        confirm_failed=failed_words(again),
        confirmed={uid: tuple(values) for uid, values in means.items()},
        leaderboard=tuple(leaderboard(rows, means, bounds)),
        pruning=pruning_audit.account(
            rows,
            spec.pruning,
            spec.base_config.train.epochs,
            spec.resources.workers * spec.resources.gpus_per_worker,
            pruning_off or {},
        ),
        baseline_interval=bounds.get(CAM_BASELINE, Bounds()).mean,
        without_masks=mask_free_words(rows, objective) if sum(count.values()) >= FEWEST else None,
        walk=walk_words(manifests),
        walk_used=walk.get("used") != 0.0,
        unscored=tuple(
            name
            for name in ("random_walk", "deeplab")
            if name in stages and not any(key.startswith("miou") for key in stages[name])
        ),
        stage_failed=None if failed is None else str(failed),
        metrics=metrics,
        sets={"score": spec.base_config.data.score, "val": spec.base_config.data.val},
        fingerprint=pack.fingerprint,
        hours=hours,
    )
    return summary.model_copy(update={"note": markdown(summary)})


def walk_words(manifests: Mapping[str, StageManifest]) -> str | None:
    """Return what was chosen for the random walk, and whether it is used; None where its numbers were given."""
    walk = manifests["random_walk"].walk if "random_walk" in manifests else None
    return walk.words if walk else None


def mask_free_words(rows: Sequence[TrialRow], objective: str) -> str | None:
    """Return how well mask_free ranks the trials as miou does, in words; None where no trial has both."""
    keys = ("miou", "mask_free", "classification_map", "cp_agreement")
    done = [{**row.attrs, objective: row.miou} for row in rows if row.state is State.COMPLETE]
    both = [values for values in done if all(values.get(key) is not None for key in keys)]
    if not both:
        return None
    first, second, *halves = (np.array([values[key] for values in both], float) for key in keys)
    weights = np.ones(len(both))
    correlation = pruning_audit.spearman(first, second, weights)
    if correlation is None:
        return f"mask_free against miou: {len(both)} trials are too few, or too equal, to compare their order"
    low, high = pruning_audit.bounds(correlation, weights)
    bounds = f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else ""
    each = [
        f"{name} {shown_correlation(pruning_audit.spearman(first, half, weights))}"
        for name, half in zip(keys[2:], halves, strict=True)
    ]
    return (
        f"mask_free against miou: rank correlation {correlation:.2f}{bounds} over {len(both)} trials; of its halves "
        + ", ".join(each)
    )


def shown_correlation(value: float | None) -> str:
    """Return two decimals, a dash where it is undefined."""
    return "-" if value is None else f"{value:.2f}"


def leaderboard(
    rows: Sequence[TrialRow],
    means: Mapping[str, Sequence[float]],
    bounds: Mapping[str, Bounds] = MappingProxyType({}),
) -> list[LeaderboardEntry]:
    """Full-budget trials, best miou first, with confirmed means and their intervals (confirm_bounds.py)."""
    done = sorted((r for r in rows if r.state is State.COMPLETE), key=lambda r: (-(r.miou or 0.0), r.number))
    return [
        LeaderboardEntry(
            uid=row.uid,
            role=row.role,
            miou=row.miou,
            beta=row.beta,
            miou_confirm_mean=mean(means.get(row.uid)),
            interval=bounds.get(row.uid, Bounds()).mean,
            difference=bounds.get(row.uid, Bounds()).difference,
            seeds=len(means.get(row.uid, ())),
            would_prune_at=row.would_prune_at,
            values={name: encode(value) for name, value in row.values.items()},
        )
        for row in done
    ]


def markdown(summary: SweepSummary) -> str:
    """Return the parent run's description."""
    lines = [
        f"**{summary.plain_verdict}**",
        "",
        *([f"{summary.against_baseline}.", ""] if summary.against_baseline else []),
        *([f"The search ended early: {summary.stopped}.", ""] if summary.stopped else []),
        f"Winner: `{summary.winner}`",
        *([f"\nWarning: {summary.confirm_failed}"] if summary.confirm_failed else []),
        "",
        f"| step | images | {ladder_head(summary)} |",
        "|---|---|---|",
    ]
    lines += [f"| {step} | {images} | {shown(value)} |" for step, images, value in ladder(summary)]
    lines += ["", summary.walk] if summary.walk else []
    lines += [f"\n**Failed: {summary.stage_failed}**"] if summary.stage_failed else []
    masks = "pixel masks" if summary.objective == "miou" else "the image-level labels, no masks,"
    lines += [
        "",
        f"Selection uses {masks} of the select images; the numbers above are of images that no selection saw.",
    ]
    return "\n".join(lines)


def statistics(summary: SweepSummary) -> list[str]:
    """Return what pruning cost, and how well mask_free ranks, in words; nothing below `FEWEST` trials."""
    return [*summary.pruning.words, *filter(None, [summary.without_masks])] if summary.ended >= FEWEST else []


def ladder_head(summary: SweepSummary) -> str:
    """Return what the values of `ladder` are."""
    return "mIoU %" if summary.objective == "miou" else "%"


def ladder(summary: SweepSummary) -> list[tuple[str, str, float | str | None]]:
    """Step, image set and mIoU in percent: cam_baseline, best CAM, random walk, DeepLab.

    Where the walk was not used its rows are of the CAM's masks in its place. Where the objective is another the first
    two are of it and say so; a stage that had no masks to be scored on says that, and one that failed, or stands behind
    it, says that.
    """
    score, val, metrics = summary.sets["score"], summary.sets["val"], summary.metrics
    key, unscored = summary.objective, summary.unscored
    what, miou = ("", "") if key == "miou" else (f", {key}", ", mIoU")

    def value(stage: str, name: str) -> float | str | None:
        cell = "no masks" if stage in unscored else metrics[f"{stage}/{name}"]
        return "failed" if cell is None and summary.stage_failed else cell

    walk = "random walk" if summary.walk_used else "the CAM's masks, for the walk is a miss"
    return [
        (f"cam_baseline, mean over fresh seeds{what}", f"{score}, confirm", metrics[f"{key}_confirm_cam_baseline"]),
        (f"best CAM, mean over fresh seeds{what}", f"{score}, confirm", metrics[f"{key}_confirm"]),
        (f"{walk}{miou}", f"{score}, confirm", value("random_walk", "miou_confirm")),
        (f"{walk}{miou}", f"{score}, all", value("random_walk", "miou_train")),
        (f"DeepLab{miou}", val, value("deeplab", "miou_val")),
        (f"DeepLab with CRF{miou}", val, value("deeplab", "miou_val_crf")),
    ]


def mean(values: Sequence[float] | None) -> float | None:
    """Return the mean, None of nothing."""
    return float(np.mean(values)) if values else None


def write_summary(paths: SweepPaths, summary: SweepSummary) -> list[Path]:
    """Write the summary as JSON and Markdown; returns the files."""
    text = paths.summary.with_suffix(".md")
    write_json(paths.summary, summary.to_json())
    write_bytes(text, (f"# sweep {summary.sweep}\n\n" + summary.note + "\n").encode())
    return [paths.summary, text]
