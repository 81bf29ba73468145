"""The pictures of a run: the fixed CAM panel, the loss terms, and where masks exist the beta curve and IoU by class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpn.config import Config
from cpn.config.patches import PatchesConfig
from cpn.core.checked import OF_RUN, reading
from cpn.core.files import whole_file
from cpn.data.image_memory import CAM_CURE, image_of
from cpn.data.loader import TrainingSamples
from cpn.data.voc import IGNORE, Split
from cpn.models.network import CPN
from cpn.plots.curves import beta_curve, class_iou, loss_terms
from cpn.plots.panel import PanelRow, cam_panel, error_map
from cpn.plots.panel_choice import panel_choice
from cpn.scoring.cam import multi_scale_maps, present_classes
from cpn.scoring.metrics import BETAS
from cpn.scoring.run_manifest import RunManifest

CAM_BASELINE = "cam_baseline CAM"
NOT_YET = "not run here: a sweep adds it at its end"
ACROSS = 5
"""Cells side by side: maps and truth above, the pair that the network saw, mask and errors below."""
ARRAYS = ("I_h", "I_hb", "CAM", "refined CAM", "mask")


@dataclass(frozen=True)
class PanelImage:
    """A network's maps of one image of the panel: `arrays` by the names of ARRAYS, all uint8."""

    id: str
    why: str
    arrays: dict[str, np.ndarray]


def run_pictures(
    scored: Split, classes: tuple[str, ...], config: Config, manifest: RunManifest, panel: Sequence[PanelImage]
) -> dict[str, bytes]:
    """PNG bytes by name, of a run with this manifest."""
    beta = float(manifest.metrics["beta"])
    names, compared = ["background", *classes], config.train.objective != "classification"
    select = f"{config.data.score}, select images"
    drawn = {
        "cam_panel": draw_panel(panel, scored, names, beta, compared),
        "loss_terms": loss_terms(manifest.history),
    }
    if manifest.curve is None:
        return drawn
    return drawn | {
        "beta_curve": beta_curve(np.array(BETAS), np.array(manifest.curve.miou) / 100, beta, select),
        "class_iou": class_iou(names, np.array(manifest.iou) / 100, select),
    }


def panel_images(network: CPN, scored: Split, config: Config, beta: float) -> list[PanelImage]:
    """Return the panel's images as the network sees them; it has to be in eval mode."""
    images = []
    for index, why in panel_choice(scored).items():
        with image_of(scored, index, CAM_CURE):
            images.append(PanelImage(scored.ids[index], why, panel_arrays(network, scored, index, config, beta)))
    return images


def panel_arrays(network: CPN, scored: Split, index: int, config: Config, beta: float) -> dict[str, np.ndarray]:
    """CAM and refined CAM (strongest present class), pseudo mask, and the CP pair of the first epoch."""
    image = scored.image(index)
    present = present_classes(scored.labels[index])
    arrays: dict[str, np.ndarray] = {}
    if config.train.objective in ("cpn", "pair_classification"):
        arrays |= complementary_views(scored, index, config)
    plain = config.cam.model_copy(update={"map": "plain"})
    arrays["CAM"] = strongest(multi_scale_maps(network, image, present, plain))
    maps = multi_scale_maps(network, image, present, config.cam)
    if config.cam.map == "refined":
        arrays["refined CAM"] = strongest(maps)
    return arrays | {"mask": pseudo_mask(maps, present, beta)}


def draw_panel(
    panel: Sequence[PanelImage],
    scored: Split,
    names: Sequence[str],
    beta: float,
    compared: bool,
    cam_baseline: Sequence[PanelImage] | None = None,
) -> bytes:
    """Return the panel as PNG. If it is `compared` there is a column for cam_baseline, filled once that system
    has run.
    """
    beside = {image.id: image for image in cam_baseline or []}
    mask_head = f"pseudo mask, beta {beta:.2f}"
    position = {name: at for at, name in enumerate(scored.ids)}
    rows = []
    for image in panel:
        truth, arrays = scored.mask(position[image.id]), image.arrays
        columns: dict[str, np.ndarray | None] = {}
        notes: dict[str, str] = {}
        if compared:
            other = beside.get(image.id)
            columns[CAM_BASELINE] = None if other is None else heat(other.arrays["CAM"])
            notes[CAM_BASELINE] = NOT_YET
            if other is not None:
                notes[CAM_BASELINE] = iou_words(other.arrays["mask"], truth, "its mask: ")
        for name in ("CAM", "refined CAM"):
            if name in arrays:
                columns[name] = heat(arrays[name])
        columns |= {name: arrays[name] for name in ("I_h", "I_hb") if name in arrays}
        columns[mask_head] = arrays["mask"]
        notes[mask_head] = iou_words(arrays["mask"], truth)
        if truth is not None:
            columns["errors"] = error_map(arrays["mask"], truth)
        rows.append(PanelRow(image.id, scored.image(position[image.id]), truth, columns, image.why, notes))
    how = "chosen by their masks alone" if scored.masked else "chosen by their labels alone"
    return cam_panel(rows, names, f"{scored.name}: the same images in every run, {how}", ACROSS)


def complementary_views(scored: Split, index: int, config: Config) -> dict[str, np.ndarray]:
    """Return a crop of the image as the first epoch's I_h and I_hb show it: uint8 (crop, crop, 3) each.

    Hidden pixels are grey, or what `patches.hidden_value` fills them with.
    """
    # For a few pictures no maps are made.
    patches: PatchesConfig = config.patches.model_copy(update={"slic_on": "crop"})
    samples = TrainingSamples(scored, config.data, patches, config.train.seed)
    sample = samples[(0, index)]
    image, covered = sample.image, sample.hidden[..., None]
    lost: np.ndarray = np.full_like(image, 124)
    if sample.filling is not None:
        lost = np.where(sample.valid[..., None], sample.filling, image)  # padding stays what it is
    return {"I_h": np.where(covered, lost, image), "I_hb": np.where(covered, image, lost)}


def strongest(maps: np.ndarray) -> np.ndarray:
    """Return maps (P, H, W) in [0, 1] -> the largest over classes in 255 steps, uint8 (H, W); 0 where no class is."""
    top: np.ndarray = np.rint(255 * np.clip(maps, 0, 1)).astype(np.uint8).max(axis=0, initial=0)
    return top


def heat(array: np.ndarray) -> np.ndarray:
    """Convert the output of `strongest` to float32 in [0, 1], which panels show as heat."""
    shown: np.ndarray = array.astype(np.float32) / 255
    return shown


def pseudo_mask(maps: np.ndarray, present: np.ndarray, beta: float) -> np.ndarray:
    """Argmax of [beta, maps]: (P, H, W) un-halved maps, classes (P,) -> uint8 (H, W). A tie goes to the background.

    As in `curve_counts` beta is compared in the maps' precision.
    """
    if len(present) == 0:
        return np.zeros(maps.shape[1:], np.uint8)
    best = maps.max(axis=0)
    winner = np.asarray(present)[maps.argmax(axis=0)]
    mask: np.ndarray = np.where(best > best.dtype.type(beta), winner, 0).astype(np.uint8)
    return mask


def iou_words(mask: np.ndarray, truth: np.ndarray | None, before: str = "") -> str:
    """`IoU 56`: the mean over the classes that mask or truth hold, background among them; empty without a truth."""
    if truth is None:
        return ""
    known = truth != IGNORE
    mask, truth = mask[known], truth[known]
    classes = np.union1d(mask, truth)
    each = [((mask == c) & (truth == c)).sum() / ((mask == c) | (truth == c)).sum() for c in classes]
    return f"{before}IoU {100 * float(np.mean(each)):.0f}" if each else ""


def save_panel(path: Path, panel: Sequence[PanelImage]) -> None:
    """Write the arrays of a panel, whole or absent."""
    arrays = {f"{at}/{name}": array for at, image in enumerate(panel) for name, array in image.arrays.items()}
    texts: dict[str, Any] = {
        "ids": np.array([image.id for image in panel]),
        "why": np.array([image.why for image in panel]),
    }
    with whole_file(path) as file:
        np.savez_compressed(file, **{**texts, **arrays})


def load_panel(path: Path) -> list[PanelImage]:
    """Read what `save_panel` wrote. DamagedFile where it is missing or damaged."""
    with reading(path, OF_RUN), open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
        return [
            PanelImage(
                str(name), str(why), {kind: file[f"{at}/{kind}"] for kind in ARRAYS if f"{at}/{kind}" in file.files}
            )
            for at, (name, why) in enumerate(zip(file["ids"], file["why"], strict=True))
        ]
