"""One run, from a configuration to a scored CAM network in a folder: what a trial, a confirm run and a single run are.

The folder of a finished run holds

    result.json         the manifest, written last: metrics, curve, per-class IoU, scores by scale, history, digests
    model.safetensors   the network; its header carries configuration, classes, fingerprint and the best beta of all
                        (a sweep that allows only some keeps its choice in its study, for sweeps share runs)
    counts.npz          per image and beta: true positives, predicted and true pixels of each class; not without masks
    mask_free.npz       per image: class scores, labels, agreement of the CP pair (cpn/scoring/mask_free.py)
    panel.npz           the maps and masks of the panel's images, for panels that show several runs
    pictures/*.png      CAM panel, beta curve, per-class IoU, loss terms
    epochs/*/*.png      the CAM over a few images after each epoch, where they are asked for
    checkpoints/        the newest two, of epochs or within one, until the run is finished

A folder without a whole `result.json` is an unfinished run, and the same call goes on with it.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cpn.config import METHOD_VERSION, Config, run_key
from cpn.config.cam import CamConfig
from cpn.core.errors import InputError
from cpn.core.files import file_digest, write_bytes, write_json
from cpn.core.run_files import CHECKPOINTS, COUNTS, MODEL, PANEL, PICTURES, RESULT, SCORES
from cpn.cost.inference_memory import check_cams
from cpn.data.image_memory import CAM_CURE, image_of
from cpn.data.map_files import present_classes
from cpn.data.superpixels import maps_for
from cpn.data.voc import Pack, Split, mask_of
from cpn.models.backbone import is_known
from cpn.models.checkpoint import load_model, network_metadata, refuse_larger, save_model, to_stderr
from cpn.models.imagenet import IMAGENET, published_file
from cpn.models.network import CPN, build_network
from cpn.models.ranks import differing_ranks, from_rank_0
from cpn.models.weights import WeightsReport, load_backbone_weights, refuse_overflow
from cpn.plots.epoch_pictures import EpochPictures
from cpn.plots.panel_images import panel_images
from cpn.plots.run_pictures import run_pictures, save_panel, whole_run
from cpn.scoring.cam import See, image_counts
from cpn.scoring.counts import counts_file, two_sums
from cpn.scoring.mask_free import MaskFreeScores, mask_free, parts, save_scores
from cpn.scoring.mask_free_scoring import score_without_masks
from cpn.scoring.metrics import BETAS, best_beta
from cpn.scoring.run_manifest import RunManifest
from cpn.scoring.scale_scores import counts_by_scale, row_names, score_rows
from cpn.scoring.selection import epoch_sample, select_and_confirm, summarise
from cpn.scoring.shown_sizes import shown_smaller
from cpn.training.cam_training import train
from cpn.training.loop import Report, TrainingContext
from cpn.training.pretrained_proxy import load_standin
from cpn.training.saving import Saving

Objective = Literal["miou", "mask_free"]
"""What trials are ranked by: of the masks, or of image-level labels alone (cpn/scoring/mask_free.py)."""


def run(
    config: Config,
    pack: Pack,
    folder: Path,
    *,
    cache: Path,
    device: torch.device,
    report: Report,
    rank: int = 0,
    world: int = 1,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
    objective: Objective | None = None,
    say: Callable[[str], None] = to_stderr,
    saving: Saving | None = None,
    draw_epochs: bool = False,
) -> RunManifest | None:
    """Train, score and draw; returns the manifest (on workers other than rank 0 None). Resumes itself, and `say` hears
    of damaged checkpoints that were passed over.

    `report` hears every epoch's means with `miou_epoch`, or `mask_free_epoch`, whichever is the `objective` (None: miou
    where there are masks), in percent; nothing else depends on it. `cache` holds the pretrained proxy and the
    superpixels, which are made first where they are missing. Metrics:
    `miou` select images at the best beta of the curve, `miou_fixed_beta` the same at cam.beta, `miou_confirm` the other
    images at the beta chosen on select, `miou_train` all scored images at their own best beta (the paper's protocol).
    `mask_free` and `mask_free_confirm` need no masks, and of select are their halves `classification_map` and
    `cp_agreement`. Without masks those are all, and `beta` is cam.beta: nothing can choose it.

    With `draw_epochs` the CAM of a few images is drawn after each epoch, before it is reported
    (cpn/plots/epoch_pictures.py).
    Within an epoch progress is saved as `saving` says (None: as `train.checkpoint_minutes` does).

    Several workers call it alike, each with its rank: what is finished and what is gone on from is what rank 0 sees.

    Raises WorkError, before the training, when the largest scored image does not fit in memory
    (cpn/cost/inference_memory.py).

    Raises InputError when `folder` holds the finished run of another configuration or other data, when the workers'
    configurations or data differ, when the scored images are too few to split, when only some of them have masks, or
    none has and miou is asked for.
    """
    key = run_key(config, pack.fingerprint)
    if others := differing_ranks(key):
        raise InputError(
            f"workers {others} would train another run than worker 0: their data set, configuration or code differs; "
            "make data.root and the installed code the same on every machine"
        )
    finished = on_every_rank(lambda: whole_run(folder, pack, say))
    if finished is not None:
        if finished.key != key:
            raise InputError(f"{folder}: holds run {finished.key}, not this one, {key}; give a folder of its own")
        for entry in finished.history:
            report(entry)
        return finished if rank == 0 else None
    began = time.perf_counter()
    classes = len(pack.classes) + 1
    scored = pack.split(config.data.score)
    select, confirm = select_and_confirm(scored.ids, config.cam)
    if not select or not confirm:
        raise InputError(
            f"data.score: the {len(scored)} images of list {scored.name!r} are too few to split into select and "
            "confirm; add images with masks"
        )
    masked = scored.masked
    objective = objective or ("miou" if masked else "mask_free")
    if objective == "miou" and not masked:
        raise InputError(
            f"data.score: list {scored.name!r} has no masks, miou cannot be measured; add them, or --set "
            "objective=mask_free"
        )
    from_rank_0(lambda: check_cams(config.network, config.cam, classes, scored, device))
    if rank == 0 and (words := shown_smaller(config.cam, scored)) is not None:
        say(words)
    torch.manual_seed(config.train.seed)
    network = build_network(config.network, classes)
    load_weights(network.backbone, config.network.weights, cache)
    epoch_split = scored.subset([scored.ids[i] for i in epoch_sample(scored.ids, config.cam)])
    quick = config.cam.model_copy(update={"scales": (1.0,), "flip": False})

    pictures = EpochPictures(epoch_split, folder) if draw_epochs else None

    def after_epoch(epoch: int) -> Mapping[str, float]:
        if rank != 0:
            return {}
        see = None
        if pictures is not None:
            pictures.epoch, see = epoch, pictures.see
        if objective == "mask_free":
            return {"mask_free_epoch": float(mask_free(score_without_masks(network, epoch_split, quick, see)))}
        return {"miou_epoch": 100 * best_beta(score(network, epoch_split, quick, classes, see))[1]}

    split = pack.split(config.data.train)
    context = TrainingContext(
        device=device,
        report=report,
        folder=folder / CHECKPOINTS,
        saving=saving,
        after_epoch=after_epoch,
        say=say,
        rank=rank,
        world=world,
        wrap=wrap,
    )
    history = train(network, split, config, context, maps_for(config, split, cache, say=say))
    if rank != 0:
        return None
    network.eval()
    by_masks: dict[str, Any] = {"metrics": {"beta": config.cam.beta}}
    if masked:
        for left in folder.glob(f".{COUNTS}.*.tmp"):  # by an attempt that was killed while it scored
            left.unlink(missing_ok=True)
        scales = score_by_scale(network, scored, config.cam, classes, folder / COUNTS)
        summary = summarise(*two_sums(folder / COUNTS, frozenset(confirm)), config.cam)
        rows = score_rows(scales, config.cam, pack.classes)
        by_masks = {"metrics": summary.metrics, "curve": summary.curve, "iou": summary.iou, "scales": rows}
    scores = score_without_masks(network, scored, config.cam)
    by_masks["metrics"] |= mask_free_metrics(scores, scored.ids, config.cam)
    metadata = {
        "key": key,
        "config": config.model_dump(mode="json"),
        "classes": list(pack.classes),
        "fingerprint": pack.fingerprint,
        "version": METHOD_VERSION,
    }
    manifest = RunManifest.model_validate(
        {**metadata, **by_masks, "history": history, "seconds": time.perf_counter() - began, "digests": {}}
    )
    beta = float(manifest.metrics["beta"])
    save_model(folder / MODEL, network, {"kind": "cam", "beta": beta, **metadata})
    save_scores(folder / SCORES, scored.ids, scores)
    panel = panel_images(network, scored, config, beta)
    save_panel(folder / PANEL, panel)
    for name, png in run_pictures(scored, pack.classes, config, manifest, panel).items():
        write_bytes(folder / PICTURES / f"{name}.png", png)
    outputs = [folder / MODEL, *([folder / COUNTS] if masked else []), folder / SCORES, folder / PANEL]
    written = [*outputs, *sorted((folder / PICTURES).glob("*.png"))]
    digests = {str(path.relative_to(folder)): file_digest(path) for path in written}
    manifest = manifest.model_copy(update={"digests": digests})
    write_json(folder / RESULT, manifest.to_json())
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return manifest


def on_every_rank(read: Callable[[], RunManifest | None]) -> RunManifest | None:
    """Give every rank the manifest that rank 0 reads."""

    def plain() -> dict[str, Any] | None:
        manifest = read()
        return None if manifest is None else manifest.to_json()

    values = from_rank_0(plain)
    return None if values is None else RunManifest.model_validate(values)


def load_weights(backbone: nn.Module, weights: str | None, cache: Path) -> WeightsReport | None:
    """Load `network.weights` into a fresh backbone; returns what a file had for it. InputError when it doesn't fit."""
    if weights == "scenes":
        load_standin(backbone, cache)
        return None
    if weights == IMAGENET:
        return load_backbone_weights(backbone, published_file(backbone))
    return None if weights is None else load_backbone_weights(backbone, Path(weights))


def load_run(model: Path, own_backbone: str | None = None) -> tuple[CPN, Config, tuple[str, ...]]:
    """Return the trained network of a run's `model.safetensors` in eval mode, its configuration and foreground classes.

    Raises InputError when the file is another one, or names other code than `own_backbone` as its backbone.
    """
    config, classes = network_metadata(model, "cam", "CAM network", own_backbone)
    if is_known(config.network.backbone):
        refuse_larger(model, lambda: build_network(config.network, len(classes) + 1))
    network = build_network(config.network, len(classes) + 1)
    load_model(model, network)
    refuse_overflow(network, model)
    return network.eval(), config, classes


def score(network: CPN, split: Split, config: CamConfig, classes: int, see: See | None = None) -> NDArray[np.int64]:
    """Return the counts at every beta, summed over a list: int64 (len(BETAS), 3, C). The network must be in
    eval mode. `see` hears of each image's maps.
    """
    total = np.zeros((len(BETAS), 3, classes), np.int64)
    for index in range(len(split)):
        with image_of(split, index, CAM_CURE):
            total += image_counts(network, split, index, config, classes, see)
    return total


def score_by_scale(network: CPN, split: Split, config: CamConfig, classes: int, counts_path: Path) -> NDArray[np.int64]:
    """Return the counts of every row of `scale_scores.row_names` summed over a list, int64 (R, len(BETAS), 3, C).

    Those of each image over all scales go to the file `counts_path`, one by one. The network must be in eval mode.
    Every scale is computed anyway: a row costs its histogram.
    """
    total = np.zeros((len(row_names(config)), len(BETAS), 3, classes), np.int64)
    with counts_file(counts_path, split.ids, total.shape[1:]) as add:
        for index in range(len(split)):
            with image_of(split, index, CAM_CURE):
                present, truth = present_classes(split.labels[index]), mask_of(split, index)
                rows = counts_by_scale(network, split.image(index), present, truth, config, classes)
            add(rows[-1])
            total += rows
    return total


def mask_free_metrics(scores: MaskFreeScores, ids: list[str], config: CamConfig) -> dict[str, float]:
    """Compute the mask-free metrics, in percent: of the select images, and `mask_free_confirm` of the others."""
    select, confirm = select_and_confirm(ids, config)
    chosen = scores.subset(select)
    precision, agreement = parts(chosen)
    return {
        "mask_free": float(mask_free(chosen)),
        "mask_free_confirm": float(mask_free(scores.subset(confirm))),
        "classification_map": 100 * float(precision),
        "cp_agreement": 100 * float(agreement),
    }
