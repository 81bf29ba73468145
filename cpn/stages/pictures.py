"""The pictures of the later stages: before and after CRF and random walk, DeepLab with and without CRF."""

from pathlib import Path

import numpy as np

from cpn.core.files import write_bytes
from cpn.core.run_files import MODEL
from cpn.data.image_memory import DEEPLAB_CURE, image_of
from cpn.data.map_files import load_label, load_maps
from cpn.plots.panel import PanelRow, cam_panel, error_map
from cpn.plots.panel_choice import panel_choice
from cpn.plots.run_pictures import iou_words, pseudo_mask
from cpn.segmentation.deeplab import predict
from cpn.stages.affinity_stages import ScoredImages
from cpn.stages.inputs import Inputs
from cpn.stages.pipeline import load_deeplab


def draw_random_walk(inputs: Inputs, out: Path, beta: float) -> None:
    """`out`/pictures/random_walk.png: pseudo mask of the CAM at `beta`, after the CRF, after the walk, its errors.

    IRN's stage crf has confident labels in place of the mask after the CRF. Where the walk is not used, the pseudo
    labels are the CAM's and the head says so. Of imported pseudo labels there are no maps: they stand alone.
    """
    scored = inputs.pack.split(inputs.config.data.score)
    if not set(scored.ids) <= set(inputs.split.ids):
        scored = inputs.split  # without masks the scored list may be another: only the training list has labels
    position = {name: at for at, name in enumerate(inputs.split.ids)}
    irn = inputs.config.random_walk.kind == "irn"
    used = inputs.walk is None or inputs.walk.used
    last = "random walk" if used else "pseudo label, not walked"
    rows = []
    for index, why in panel_choice(scored).items():
        name, truth = scored.ids[index], scored.mask(index)
        walked = load_label(out / f"{name}.png")
        columns = {}
        if "cam" in inputs.folders:
            crf = inputs.folders["crf"]
            maps, present = load_maps(inputs.folders["cam"] / f"{name}.npz")
            columns[f"CAM, beta {beta:.2f}"] = pseudo_mask(maps, present, beta)
            if irn:
                columns["IRN's labels"] = load_label(crf / f"{name}.png")
            else:
                scores, _ = ScoredImages(inputs.split, crf).scores(position[name])
                columns["CRF, alpha_low"] = scores.argmax(axis=0).astype(np.uint8)
        columns[last if "cam" in inputs.folders else "pseudo label"] = walked
        notes = {head: iou_words(mask, truth) for head, mask in columns.items()}
        if truth is not None:
            columns["errors"] = error_map(walked, truth)
        rows.append(PanelRow(name, scored.image(index), truth, columns, why, notes))
    names = ["background", *inputs.pack.classes]
    write_bytes(
        out / "pictures" / "random_walk.png", cam_panel(rows, names, f"{scored.name}: from CAM to pseudo label")
    )


def draw_deeplab(inputs: Inputs, out: Path) -> None:
    """`out`/pictures/deeplab.png: DeepLab on validation images without and with CRF, and its errors."""
    network, config, _ = load_deeplab(out / MODEL, inputs.config.network.backbone)
    network.to(inputs.device)
    val = inputs.pack.split(inputs.config.data.val)
    rows = []
    for index, why in panel_choice(val).items():
        with image_of(val, index, DEEPLAB_CURE):
            image, truth = val.image(index), val.mask(index)
            plain, refined = predict(network, image, config.deeplab)
        columns = {"DeepLab": plain, "with CRF": refined}
        notes = {head: iou_words(mask, truth) for head, mask in columns.items()}
        if truth is not None:
            columns["errors with CRF"] = error_map(refined, truth)
        rows.append(PanelRow(val.ids[index], image, truth, columns, why, notes))
    names = ["background", *inputs.pack.classes]
    write_bytes(out / "pictures" / "deeplab.png", cam_panel(rows, names, f"{val.name}: the segmentation network"))
