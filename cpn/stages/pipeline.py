"""From a trained CAM network to a segmentation network: what each stage after the CAM run computes and writes.

    cam          maps of the training list, un-halved, present classes only
    crf          what AffinityNet learns from: scores of both background exponents, after the dense CRF;
                 or what IRN learns from: confident labels
    affinity     AffinityNet; or IRN's edges
    random_walk  pseudo labels as palette PNGs
    instance_masks  the same, refined by masks of another network; off unless instance_masks.folder is given
    deeplab      the segmentation network and its masks' scores on the validation list

random_walk.kind chooses between AffinityNet (cpn/stages/affinity_stages.py) and IRN (cpn/stages/irn_stages.py).

Stages that go image by image take the indices they shall do, so that they can be spread over processes; a file that is
there already is whole and is not made again.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from cpn.config import Config
from cpn.core.errors import InputError
from cpn.core.run_files import COUNTS, MODEL
from cpn.cost.inference_memory import check_cams, check_deeplab
from cpn.data.image_memory import CAM_CURE, image_of
from cpn.data.map_files import load_label, load_maps, present_classes, save_label, save_maps
from cpn.models.backbone import Backbone, build_backbone, is_known
from cpn.models.checkpoint import load_model, network_metadata, refuse_larger, save_model
from cpn.models.weights import refuse_overflow
from cpn.plots.run_pictures import pseudo_mask
from cpn.propagation.crf_processes import WORTH_PIXELS
from cpn.propagation.walk_rule import with_choice
from cpn.run import load_run
from cpn.scoring.cam import multi_scale_maps
from cpn.scoring.counts import save_counts
from cpn.scoring.metrics import hard_counts, miou
from cpn.scoring.selection import select_and_confirm
from cpn.segmentation.collapse import check_trained
from cpn.segmentation.deeplab import DeepLab, deeplab_job, evaluate
from cpn.segmentation.schedule import Facts, schedule_for
from cpn.stages.affinity_stages import make_crf_scores, train_affinities, walk_affinities
from cpn.stages.inputs import Inputs, LabelledImages, pretrained_backbone, stage_metadata
from cpn.stages.instance_masks import refine_labels
from cpn.stages.irn_stages import make_irn_labels, train_edges, walk_to_edges
from cpn.stages.walk_choice import grid_of
from cpn.training.loop import Report
from cpn.training.training_job import fit

SIZED = 32
"""Training images whose sizes are read for `deeplab.schedule`."""


def make_cams(inputs: Inputs, indices: Sequence[int], out: Path) -> None:
    """Write the maps of the images at `indices` of the training list to `out`/<id>.npz."""
    split, config = inputs.split, inputs.config
    left = [index for index in indices if not (out / f"{split.ids[index]}.npz").exists()]
    if not left:
        return
    todo = split.subset([split.ids[index] for index in left])
    check_cams(config.network, config.cam, inputs.classes, todo, inputs.device)
    network, _, _ = load_run(inputs.model, config.network.backbone)
    network.to(inputs.device)
    for index in left:
        with image_of(split, index, CAM_CURE):
            present = present_classes(split.labels[index])
            maps = multi_scale_maps(network, split.image(index), present, config.cam)
            save_maps(out / f"{split.ids[index]}.npz", maps, present)


def make_crf(inputs: Inputs, indices: Sequence[int], out: Path) -> None:
    """Write what the chosen network learns from, for the images at `indices`."""
    make = make_irn_labels if inputs.config.random_walk.kind == "irn" else make_crf_scores
    make(inputs, indices, out)


def make_affinity(inputs: Inputs, out: Path, report: Report) -> dict[str, float]:
    """Train the chosen network, write `out`/model.safetensors and return its last losses."""
    train = train_edges if inputs.config.random_walk.kind == "irn" else train_affinities
    return train(inputs, out, report)


def make_pseudo_labels(inputs: Inputs, indices: Sequence[int], out: Path) -> None:
    """Write the pseudo labels of the images at `indices` to `out`/<id>.png in VOC colours: their propagated maps, or
    where `inputs.walk` says so the CAM's own masks at the run's beta. Without a choice the rule gives what is `auto`.
    """
    config = inputs.config.random_walk
    if inputs.walk is not None and not inputs.walk.used:
        make_cam_masks(inputs, indices, out)
    elif config.kind == "irn":
        walk_to_edges(inputs, indices, out)
    else:
        choice = inputs.walk or grid_of(inputs).rule
        walk_affinities(inputs, with_choice(config, choice), indices, out)


def make_cam_masks(inputs: Inputs, indices: Sequence[int], out: Path) -> None:
    """Write argmax [beta, maps] of the images at `indices` to `out`/<id>.png; a tie is background."""
    assert inputs.beta is not None  # the choice was made with it
    for index in indices:
        target = out / f"{inputs.split.ids[index]}.png"
        if not target.exists():
            maps, present = load_maps(inputs.folders["cam"] / f"{inputs.split.ids[index]}.npz")
            save_label(target, pseudo_mask(maps, present, inputs.beta))


def score_pseudo_labels(inputs: Inputs, out: Path) -> dict[str, float]:
    """Return mIoU in percent of the pseudo labels in `out` over the scored list: confirm images, and all of them.

    Nothing where the list has no masks: pseudo labels need none, only their scores do.
    """
    scored = inputs.pack.split(inputs.config.data.score)
    if not scored.masked:
        return {}
    rows = []
    for index, name in enumerate(scored.ids):
        truth = scored.mask(index)
        path = out / f"{name}.png"
        if truth is None or not path.exists():
            raise InputError(
                f"{name}: list {scored.name!r} scores it, but it has no "
                f"{'mask' if truth is None else 'pseudo label'}; data.train must hold data.score"
            )
        rows.append(hard_counts(load_label(path), truth, inputs.classes))
    counts = np.stack(rows)
    _, confirm = select_and_confirm(scored.ids, inputs.config.cam)
    return {
        "miou_confirm": 100 * float(miou(counts[confirm].sum(0))),
        "miou_train": 100 * float(miou(counts.sum(0))),
    }


def make_deeplab(inputs: Inputs, out: Path, report: Report) -> dict[str, float]:
    """Train DeepLab on the pseudo labels, write `out`/model.safetensors and score it once on the validation list.

    The file's header holds the settings as `schedule_for` decided them. Returns mIoU in percent without and with CRF:
    miou_val, miou_val_crf; nothing where the list has no masks. Raises WorkError where the training collapsed; its
    checkpoints stay, no model is written. `out`/counts.npz keeps what the scores are made of, counts (N, 2, 3, C) of
    each image: intervals over images need them.
    """
    config = inputs.config
    torch.manual_seed(config.train.seed)
    backbone = pretrained_backbone(inputs)
    settings = schedule_for(config.deeplab, facts_of(inputs, cast(Backbone, backbone).stride))
    inputs = replace(inputs, config=config.model_copy(update={"deeplab": settings}))
    val = inputs.pack.split(config.data.val)
    if val.masked:
        check_deeplab(config.network.backbone, settings, inputs.classes, val, inputs.device, crf=True)
    network = DeepLab(backbone, inputs.classes, settings)
    labels = inputs.folders.get("instance_masks", inputs.folders["random_walk"])
    source = LabelledImages(inputs.split, labels)
    job = deeplab_job(network, source, settings, config.data, seed=config.train.seed, bf16=inputs.bf16)
    history = fit(job, inputs.training(out, report))
    check_trained(network, source, settings, settings.crop or config.data.crop, history)
    network.eval()
    save_model(out / MODEL, network, {"kind": "deeplab", **stage_metadata(inputs)})
    if not val.masked:
        return {}
    pixels = sum(height * width for height, width in map(val.size, range(len(val))))
    plain, refined = evaluate(network, val, settings, config.data.workers if pixels >= WORTH_PIXELS else 0)
    save_counts(out / COUNTS, val.ids, np.stack([plain, refined], axis=1))
    return {"miou_val": 100 * float(miou(plain.sum(0))), "miou_val_crf": 100 * float(miou(refined.sum(0)))}


def facts_of(inputs: Inputs, stride: int) -> Facts:
    """Return what the rule of `deeplab.schedule` reads: the sizes of a sample of the training images among it."""
    split, config = inputs.split, inputs.config
    sample = np.unique(np.linspace(0, len(split) - 1, SIZED).astype(int)).tolist()
    side = int(np.median([max(split.image(index).shape[:2]) for index in sample]))
    return Facts(len(split), side, config.deeplab.crop or config.data.crop, stride)


def load_deeplab(model: Path, own_backbone: str | None = None) -> tuple[DeepLab, Config, tuple[str, ...]]:
    """Return a trained DeepLab in eval mode, its configuration and foreground classes.

    Raises InputError for another checkpoint, or one that names other code than `own_backbone` as its backbone.
    """
    config, classes = network_metadata(model, "deeplab", "segmentation network", own_backbone)
    name = config.network.backbone
    if is_known(name):
        refuse_larger(model, lambda: DeepLab(build_backbone(name), len(classes) + 1, config.deeplab))
    network = DeepLab(build_backbone(name), len(classes) + 1, config.deeplab)
    load_model(model, network)
    refuse_overflow(network, model)
    return network.eval(), config, classes


PER_IMAGE = {"cam": make_cams, "crf": make_crf, "random_walk": make_pseudo_labels, "instance_masks": refine_labels}
TRAINED = {"affinity": make_affinity, "deeplab": make_deeplab}
"""Each stage is in one of the two: image by image, or one training."""
