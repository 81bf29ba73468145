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

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from cpn.config import Config, sections_in_keys
from cpn.core.contents import by_content
from cpn.core.errors import InputError
from cpn.core.files import digest
from cpn.core.run_files import COUNTS, MODEL
from cpn.cost.inference_memory import check_cams, check_deeplab
from cpn.data.image_memory import CAM_CURE, image_of
from cpn.models.backbone import Backbone, build_backbone, is_known
from cpn.models.checkpoint import load_model, network_metadata, refuse_larger, save_model
from cpn.plots.run_pictures import pseudo_mask
from cpn.propagation.walk_rule import with_choice
from cpn.run import load_run, select_and_confirm
from cpn.scoring.cam import load_maps, multi_scale_maps, present_classes, save_maps
from cpn.scoring.counts import save_counts
from cpn.scoring.metrics import hard_counts, miou
from cpn.segmentation.collapse import check_trained
from cpn.segmentation.deeplab import DeepLab, deeplab_job, evaluate
from cpn.segmentation.schedule import Facts, schedule_for
from cpn.stages.affinity_stages import make_crf_scores, train_affinities, walk_affinities
from cpn.stages.inputs import Inputs, LabelledImages, load_label, pretrained_backbone, save_label, stage_metadata
from cpn.stages.instance_masks import masks_digest, refine_labels
from cpn.stages.irn_stages import irn_settings, make_irn_labels, train_edges, walk_to_edges
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
    plain, refined = evaluate(network, val, settings)
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
    return network.eval(), config, classes


VERSIONS = {"cam": 2, "crf": 1, "affinity": 2, "random_walk": 1, "instance_masks": 1, "deeplab": 2}
"""Raised when a stage's results change for the same inputs; part of its key."""

PER_IMAGE = {"cam": make_cams, "crf": make_crf, "random_walk": make_pseudo_labels, "instance_masks": refine_labels}
TRAINED = {"affinity": make_affinity, "deeplab": make_deeplab}
"""Each stage is in one of the two: image by image, or one training."""


def stage_settings(stage: str, config: Config) -> tuple[str, dict[str, Any]]:
    """Return what a stage reads of its own: the section's name and the values in it, as plain JSON values."""
    if config.random_walk.kind == "irn" and stage in ("crf", "affinity", "random_walk"):
        return "irn", irn_settings(stage, config)
    return stage, config.model_dump(mode="json")[stage]


def stage_keys(
    model_digest: str,
    config: Config,
    fingerprint: str,
    beta: float | None = None,
    known: Callable[[dict[str, Any]], dict[str, Any]] = by_content,
    imported: str | None = None,
) -> dict[str, str]:
    """Return the key of every stage: its version, its own settings, and the keys of what it reads.

    So a changed setting makes anew what depends on it and nothing before it. The run's `beta` is in the keys of the
    stages that follow it, and in no other. Names of `ADDED` are in no key at the value that does what was done before.
    Weights and a user's own code are `known` by their content; `known=dict` gives the keys as they were until then, by
    path and name. Where another method's files take the place of stage `imported` (imported_files.py), `model_digest`
    is that of their list, and the stages before have no key. Raises ValueError where a stage follows beta and none is
    given.
    """
    dump = sections_in_keys(config)
    read = {stage: stage_settings(stage, config) for stage in VERSIONS}
    own = {
        stage: known({name: dump[section][name] for name in settings if name in dump[section]})
        for stage, (section, settings) in read.items()
    }
    augmentation = {name: dump["data"][name] for name in ("train", "crop", "jitter", "flip")}
    start = {**known(dump["network"]), "seed": dump["train"]["seed"], "precision": dump["train"]["precision"]}
    split = {name: dump["cam"][name] for name in ("confirm_share", "confirm_seed")}
    # IRN has a crop and a flip of its own and no jitter.
    learning = [augmentation, start] if config.random_walk.kind == "affinity" else ["irn", start]
    keys: dict[str, str] = {}
    affinity, gives_way = config.random_walk.kind == "affinity", config.random_walk.keep_if == "better"
    labels = [{"beta": beta}] if affinity and "auto" in (config.crf.alpha_low, config.crf.alpha_high) else []
    walks: list[Any] = [{"beta": beta}] if gives_way or (affinity and config.random_walk.alpha == "auto") else []
    walks += ["keep_if better"] if gives_way and not affinity else []  # section irn has no such name
    if beta is None and labels + walks and imported != "random_walk":
        raise ValueError("a stage follows the run's beta, but none was given")

    def add(stage: str, *inputs: Any) -> None:
        keys[stage] = digest([stage, VERSIONS[stage], *inputs])

    if imported == "random_walk":
        add("random_walk", "imported", model_digest, fingerprint, dump["data"]["train"], dump["data"]["score"], split)
    else:
        add("cam", model_digest, fingerprint, "imported" if imported else own["cam"], dump["data"]["train"])
        add("crf", keys["cam"], own["crf"], *labels)
        add("affinity", keys["crf"], own["affinity"], *learning)
        add("random_walk", keys["affinity"], own["random_walk"], dump["data"]["score"], split, *walks)
    last, masks = keys["random_walk"], config.instance_masks
    if masks.folder is not None:
        add("instance_masks", last, masks_digest(masks.folder), masks.share)
        last = keys["instance_masks"]
    add("deeplab", last, own["deeplab"], augmentation, start, dump["data"]["val"])
    return keys
