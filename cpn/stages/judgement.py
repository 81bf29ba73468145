"""Judge score maps or pseudo labels of any method on a list with masks: what `python -m cpn.judge` prints and writes.

Score maps are read twice: for the counts at every background score beta, and for the masks at the betas chosen from
them. beta is chosen in two ways: on the images it is reported for, as the literature does, and on the selection images
alone, with which the hold-out images are scored. Maps with a background of their own, and labels, need no beta.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpn.config.cam import CamConfig
from cpn.config.crf import CrfConfig
from cpn.core.errors import InputError
from cpn.core.progress import Progress
from cpn.data.image_memory import SCALE_DOWN, image_of
from cpn.data.voc import Split, mask_of
from cpn.plots.panel import PanelRow, cam_panel, error_map
from cpn.plots.panel_choice import panel_choice
from cpn.plots.run_pictures import heat, iou_words, pseudo_mask, strongest
from cpn.propagation.crf import crf_scores
from cpn.propagation.walk_rule import alpha_of
from cpn.scoring.bootstrap import interval, resample_weights, weighted_sums
from cpn.scoring.breakdown import boundary_counts, boundary_errors, by_classes, by_size, class_shares, error_kinds
from cpn.scoring.cam import to_halved
from cpn.scoring.judgement_scores import JudgementScores, SetScores
from cpn.scoring.metrics import BETAS, best_beta, curve_counts, hard_counts, miou
from cpn.scoring.prediction_files import PredictionFiles, ScoreMaps, read_label, read_maps
from cpn.scoring.selection import select_and_confirm

SEED = 0
"""Of the bootstrap's draws: two methods, and two calls, are compared on the same ones."""
MAPS, WITH_BACKGROUND, LABELS = "score maps", "score maps with background", "labels"
UNDECIDED_OPTION = "--undecided background"
"""Of `cpn.judge`, for labels with undecided pixels."""


@dataclass(frozen=True)
class Judged:
    """The counts of one method on a list of N images."""

    files: PredictionFiles
    halved: bool
    kind: str
    """MAPS, WITH_BACKGROUND or LABELS."""
    betas: tuple[float, float] | None
    """Best on all images, and on the selection images alone; None where no beta is needed."""
    curve: NDArray[np.int64] | None
    """Counts at every beta, summed over selection and hold-out images: (2, len(BETAS), 3, C)."""
    counts: NDArray[np.int64]
    """Of each image's mask at either of `betas`: (2, N, 3, C)."""
    boundary: NDArray[np.int64]
    """`boundary_counts` at the first, summed: (2, 2)."""
    crf: NDArray[np.int64] | None = None
    """Of each image's mask behind the dense CRF, at either of `betas`: (2, N, 3, C); None where it was not run."""


def judge(files: PredictionFiles, split: Split, classes: int, report: Progress, halved: bool = False) -> Judged:
    """Count what a method's files make of a list with masks, `classes` C. InputError for a file that does not fit."""
    betas, curve, kind = None, None, LABELS
    if files.are_maps:
        kind = WITH_BACKGROUND if _maps(files, split, 0, classes, halved).with_background else MAPS
    if kind == MAPS:
        curve = _curve(files, split, classes, report, halved)
        chosen = curve[0] if curve[0].any() else curve.sum(axis=0)
        betas = best_beta(curve.sum(axis=0))[0], best_beta(chosen)[0]
    counts = np.zeros((2, len(split), 3, classes), np.int64)
    boundary = np.zeros((2, 2), np.int64)
    for index in range(len(split)):
        with image_of(split, index, SCALE_DOWN):
            truth = mask_of(split, index)
            masks = _masks(files, split, index, classes, halved, kind, betas)
            counts[:, index] = [hard_counts(mask, truth, classes) for mask in masks]
            boundary += boundary_counts(masks[0], truth)
        report("scoring masks", index + 1, len(split))
    return Judged(files, halved, kind, betas, curve, counts, boundary)


def with_crf(judged: Judged, split: Split, config: CrfConfig, report: Progress) -> Judged:
    """Count the masks behind the dense CRF as well, as `cpn.stages.crf_score` does; scores are cut off at 0 and 1.

    InputError without score maps, or where the background has a map of its own.
    """
    if judged.betas is None:
        raise InputError(
            f"--crf: {judged.files.folder} holds {judged.kind}, and the CRF runs on score maps without a background; "
            "leave it out"
        )
    classes = judged.counts.shape[-1]
    counts = np.zeros_like(judged.counts)
    for index in range(len(split)):
        with image_of(split, index, SCALE_DOWN):
            score_maps = _maps(judged.files, split, index, classes, judged.halved)
            maps, image, truth = (
                np.clip(score_maps.maps, 0, 1).astype(np.float32),
                split.image(index),
                mask_of(split, index),
            )
            masks = {}
            for beta in set(judged.betas):
                scores = crf_scores(image, maps, alpha_of(beta), config)
                masks[beta] = np.concatenate([[0], score_maps.present])[scores.argmax(axis=0)]
            counts[:, index] = [hard_counts(masks[beta], truth, classes) for beta in judged.betas]
        report("CRF", index + 1, len(split))
    return replace(judged, crf=counts)


def _curve(files: PredictionFiles, split: Split, classes: int, report: Progress, halved: bool) -> NDArray[np.int64]:
    """Return the counts at every beta, summed over selection and hold-out images: (2, len(BETAS), 3, C)."""
    held_out = frozenset(select_and_confirm(split.ids, CamConfig())[1])
    total = np.zeros((2, len(BETAS), 3, classes), np.int64)
    for index in range(len(split)):
        with image_of(split, index, SCALE_DOWN):
            score_maps = _same_kind(_maps(files, split, index, classes, halved), MAPS, files.paths[index])
            total[int(index in held_out)] += curve_counts(
                score_maps.maps, score_maps.present, mask_of(split, index), classes, BETAS
            )
        report("scoring maps", index + 1, len(split))
    return total


def _maps(files: PredictionFiles, split: Split, index: int, classes: int, halved: bool) -> ScoreMaps:
    height, width = mask_of(split, index).shape
    return read_maps(files.paths[index], (height, width), classes, halved)


def _same_kind(score_maps: ScoreMaps, kind: str, path: Path) -> ScoreMaps:
    """Return maps as they were read. InputError unless their background is as in the first file."""
    if score_maps.with_background != (kind == WITH_BACKGROUND):
        how = "a map of the background" if score_maps.with_background else "no map of the background"
        raise InputError(f"{path}: has {how}, unlike the first file of its folder; write all files in one way")
    return score_maps


def _masks(
    files: PredictionFiles,
    split: Split,
    index: int,
    classes: int,
    halved: bool,
    kind: str,
    betas: tuple[float, float] | None,
) -> list[NDArray[np.uint8]]:
    """Return the mask of an image at either beta."""
    if kind == LABELS:
        height, width = mask_of(split, index).shape
        return [read_label(files.paths[index], (height, width), classes, files.undecided, UNDECIDED_OPTION)] * 2
    score_maps = _same_kind(_maps(files, split, index, classes, halved), kind, files.paths[index])
    if betas is None:
        return [score_maps.present[score_maps.maps.argmax(axis=0)].astype(np.uint8)] * 2
    first = pseudo_mask(score_maps.maps, score_maps.present, betas[0])
    return [first, first if betas[1] == betas[0] else pseudo_mask(score_maps.maps, score_maps.present, betas[1])]


def summary(judged: Judged, split: Split, names: Sequence[str], other: Judged | None = None) -> JudgementScores:
    """Summarise a method's scores in percent; `names` are the C classes, background first.

    `sets` has a row for all images and one for the hold-out images, each with its interval and, with `other`, the
    paired difference from it; and the same two behind the CRF where it ran. All else is of the masks at the first
    row's beta, over all images.
    """
    counts = judged.counts[0]
    held_out = select_and_confirm(split.ids, CamConfig())[1]
    sets = []
    for crf in [False] if judged.crf is None else [False, True]:
        sets.append(_set_row("all", 0, range(len(split)), judged, other, crf))
        if 0 < len(held_out) < len(split):
            sets.append(_set_row("hold-out", 1, held_out, judged, other, crf))
    shares = 100 * class_shares(counts.sum(axis=0))
    report: dict[str, Any] = {
        "folder": str(judged.files.folder),
        "kind": judged.kind,
        "halved": judged.halved,
        "list": split.name,
        "images": len(split),
        "sets": sets,
        "classes": {
            name: {"iou": float(share[0]), "false_positive": float(share[1]), "false_negative": float(share[2])}
            for name, share in zip(names, shares.T, strict=True)
        },
        "errors": error_kinds(counts.sum(axis=0)),
        "by_size": by_size(counts),
        "by_classes": by_classes(counts),
        "boundary": boundary_errors(judged.boundary),
    }
    if judged.files.undecided is not None:
        report["undecided"] = judged.files.undecided
    if judged.curve is not None:
        lines = {"select": judged.curve[0], "hold-out": judged.curve[1], "all": judged.curve.sum(axis=0)}
        report["all_below_half"] = not judged.curve[:, BETAS.index(0.5) :, 1, 1:].any()
        report["curve"] = {"beta": list(BETAS), **{name: (100 * miou(one)).tolist() for name, one in lines.items()}}
    if other is not None:
        report["against"] = {"folder": str(other.files.folder), "kind": other.kind, "halved": other.halved}
    return JudgementScores.model_validate(report)


def _set_row(
    name: str, which: int, images: Sequence[int], judged: Judged, other: Judged | None, crf: bool
) -> SetScores:
    """Return mIoU of some images with its interval, and the paired difference from another method, which has its CRF
    too.
    """
    chosen = list(images)
    weights = resample_weights(len(chosen), SEED)

    def drawn(one: Judged) -> tuple[float, NDArray[np.float64]]:
        counts = (one.crf if crf and one.crf is not None else one.counts)[which, chosen]
        return 100 * float(miou(counts.sum(axis=0))), 100 * miou(weighted_sums(counts, weights))

    value, draws = drawn(judged)
    row: dict[str, Any] = {"set": name, "crf": crf, "images": len(chosen), "miou": value}
    row["interval"] = None if (own_bounds := interval(value, draws, len(chosen))) is None else _within(own_bounds)
    if judged.betas is not None:
        row |= {"beta": judged.betas[which], "t": to_halved(judged.betas[which])}
    if other is not None:
        against, other_draws = drawn(other)
        bounds = interval(value - against, draws - other_draws, len(chosen))
        row |= {
            "other": against,
            "difference": value - against,
            "difference_interval": None if bounds is None else list(bounds),
        }
        if other.betas is not None:
            row["other_beta"] = other.betas[which]
    return SetScores.model_validate(row)


def _within(bounds: tuple[float, float]) -> list[float]:
    """Return the bounds of an mIoU, which lies between 0 and 100 %."""
    return [max(0.0, bounds[0]), min(100.0, bounds[1])]


def panel(judged: Judged, split: Split, names: Sequence[str], other: Judged | None = None) -> bytes:
    """Return a few images with maps, masks at the first beta, and errors, as PNG; `other`'s mask beside them."""
    rows = []
    for index, why in panel_choice(split).items():
        truth = mask_of(split, index)
        columns: dict[str, NDArray[Any] | None] = {}
        notes: dict[str, str] = {}
        for one, of in ((judged, ""), (other, "other ")):
            if one is None:
                continue
            if one.kind == MAPS:
                columns[f"{of}map"] = heat(strongest(_maps(one.files, split, index, len(names), one.halved).maps))
            mask = _masks(one.files, split, index, len(names), one.halved, one.kind, one.betas)[0]
            head = f"{of}mask" if one.betas is None else f"{of}mask, beta {one.betas[0]:.2f}"
            columns[head], notes[head] = mask, iou_words(mask, truth)
            columns[f"errors{' of other' * bool(of)}"] = error_map(mask, truth)
        rows.append(PanelRow(split.ids[index], split.image(index), truth, columns, why, notes))
    return cam_panel(rows, names, f"{split.name}: images chosen by their masks alone")
