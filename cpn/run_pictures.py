"""The pictures of a run: the fixed CAM panel, the loss terms, and where masks exist the beta curve and IoU by class."""

from typing import Any

import numpy as np

from cpn.cam import multi_scale_maps, present_classes
from cpn.config import Config
from cpn.loader import TrainingSamples
from cpn.metrics import BETAS
from cpn.network import CPN
from cpn.pictures import PanelRow, beta_curve, cam_panel, class_iou, error_map, loss_terms
from cpn.voc import Split

PANEL_ROWS = 6


def run_pictures(
    network: CPN, scored: Split, classes: tuple[str, ...], config: Config, result: dict[str, Any]
) -> dict[str, bytes]:
    """PNG bytes by name. `result` is the run's manifest; the network is in eval mode."""
    beta = result["metrics"]["beta"]
    rows = [panel_row(network, scored, index, config, beta) for index in panel_indices(scored)]
    names = ["background", *classes]
    select = f"{config.data.score}, select images"
    drawn = {
        "cam_panel": cam_panel(rows, names, f"{config.data.score}: the same images in every run"),
        "loss_terms": loss_terms(result["history"]),
    }
    if "curve" not in result:
        return drawn
    return drawn | {
        "beta_curve": beta_curve(np.array(BETAS), np.array(result["curve"]["miou"]) / 100, beta, select),
        "class_iou": class_iou(names, np.array(result["iou"]) / 100, select),
    }


def panel_indices(scored: Split) -> list[int]:
    """The panel's images, the same in every run on these data: spread over the number of classes and the list."""
    order = sorted(range(len(scored)), key=lambda i: (int(scored.labels[i].sum()), scored.ids[i]))
    return [order[round(i)] for i in np.linspace(0, len(order) - 1, min(PANEL_ROWS, len(order)))]


def panel_row(network: CPN, scored: Split, index: int, config: Config, beta: float) -> PanelRow:
    """One image of the panel: CAM, refined CAM (strongest present class), pseudo mask and errors, the CP pair."""
    image, truth = scored.image(index), scored.mask(index)
    present = present_classes(scored.labels[index])
    columns: dict[str, np.ndarray] = {}
    if config.train.objective in ("cpn", "pair_classification"):
        columns["I_h"] = hidden_view(scored, index, config)
    columns["CAM"] = strongest(
        multi_scale_maps(network, image, present, config.cam.model_copy(update={"map": "plain"}))
    )
    maps = multi_scale_maps(network, image, present, config.cam)
    if config.cam.map == "refined":
        columns["refined CAM"] = strongest(maps)
    mask = pseudo_mask(maps, present, beta)
    columns[f"pseudo mask, beta {beta:.2f}"] = mask
    if truth is not None:
        columns["errors"] = error_map(mask, truth)
    return PanelRow(scored.ids[index], image, truth, columns)


def hidden_view(scored: Split, index: int, config: Config) -> np.ndarray:
    """A crop of the image as the first epoch's I_h shows it, hidden patches grey: uint8 (crop, crop, 3)."""
    samples = TrainingSamples(scored, config.data, config.patches, config.train.seed)
    image, _, hidden, _, _ = samples[(0, index)]
    view: np.ndarray = np.where(hidden[..., None], np.uint8(124), image)
    return view


def strongest(maps: np.ndarray) -> np.ndarray:
    """(P, H, W) maps -> (H, W), the largest over classes."""
    heat: np.ndarray = maps.max(axis=0)
    return heat


def pseudo_mask(maps: np.ndarray, present: np.ndarray, beta: float) -> np.ndarray:
    """Argmax of [beta, maps]: (P, H, W) un-halved maps, classes (P,) -> uint8 (H, W). A tie goes to the background."""
    if len(present) == 0:
        return np.zeros(maps.shape[1:], np.uint8)
    best = maps.max(axis=0)
    winner = np.asarray(present)[maps.argmax(axis=0)]
    mask: np.ndarray = np.where(best > np.float32(beta), winner, 0).astype(np.uint8)
    return mask
