"""The pictures of the later stages: before and after CRF and random walk, DeepLab with and without CRF."""

from pathlib import Path

import numpy as np

from cpn.cam import load_maps
from cpn.deeplab import predict
from cpn.files import write_bytes
from cpn.pictures import PanelRow, cam_panel, error_map
from cpn.pipeline import Inputs, ScoredImages, load_deeplab, load_label
from cpn.run_pictures import panel_indices, pseudo_mask


def draw_random_walk(inputs: Inputs, out: Path, beta: float) -> None:
    """`out`/pictures/random_walk.png: pseudo mask of the CAM at `beta`, after the CRF, after the walk, its errors."""
    scored = inputs.pack.split(inputs.config.data.score)
    position = {name: at for at, name in enumerate(inputs.split.ids)}
    images = ScoredImages(inputs.split, inputs.folders["crf"])
    rows = []
    for index in panel_indices(scored):
        name, truth = scored.ids[index], scored.mask(index)
        maps, present = load_maps(inputs.folders["cam"] / f"{name}.npz")
        low, _ = images.scores(position[name])
        walked = load_label(out / f"{name}.png")
        columns = {
            f"CAM, beta {beta:.2f}": pseudo_mask(maps, present, beta),
            "CRF, alpha_low": low.argmax(axis=0).astype(np.uint8),
            "random walk": walked,
        }
        if truth is not None:
            columns["errors"] = error_map(walked, truth)
        rows.append(PanelRow(name, scored.image(index), truth, columns))
    names = ["background", *inputs.pack.classes]
    write_bytes(
        out / "pictures" / "random_walk.png", cam_panel(rows, names, f"{scored.name}: from CAM to pseudo label")
    )


def draw_deeplab(inputs: Inputs, out: Path) -> None:
    """`out`/pictures/deeplab.png: DeepLab on validation images without and with CRF, and its errors."""
    network, config, _ = load_deeplab(out / "model.safetensors")
    network.to(inputs.device)
    val = inputs.pack.split(inputs.config.data.val)
    rows = []
    for index in panel_indices(val):
        image, truth = val.image(index), val.mask(index)
        plain, refined = predict(network, image, config.deeplab)
        columns = {"DeepLab": plain, "with CRF": refined}
        if truth is not None:
            columns["errors with CRF"] = error_map(refined, truth)
        rows.append(PanelRow(val.ids[index], image, truth, columns))
    names = ["background", *inputs.pack.classes]
    write_bytes(out / "pictures" / "deeplab.png", cam_panel(rows, names, f"{val.name}: the segmentation network"))
