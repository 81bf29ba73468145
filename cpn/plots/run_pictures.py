"""The pictures of a run: the fixed CAM panel, the loss terms, and where masks exist the beta curve and IoU by class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpn.config import Config, config_from
from cpn.core.checked import OF_RUN, read_typed, reading
from cpn.core.files import file_digest, whole_file, write_bytes, write_json
from cpn.core.run_files import PANEL, PICTURES, RESULT
from cpn.data.voc import IGNORE, Pack, Split
from cpn.plots.curves import beta_curve, class_iou, loss_terms
from cpn.plots.panel import PanelRow, cam_panel, error_map, heat_over
from cpn.scoring.finished_run import damaged_files, finished_run
from cpn.scoring.metrics import BETAS
from cpn.scoring.run_manifest import RunManifest

CAM_BASELINE = "cam_baseline CAM"
NOT_YET = "not run here: a sweep adds it at its end"
ACROSS = 5
"""Cells side by side: maps and truth above; below the complementary pair, the map over the image, mask and errors."""
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
        shown = scored.image(position[image.id])
        judged = next(name for name in ("refined CAM", "CAM") if name in arrays)
        columns[f"{judged} over the image"] = heat_over(shown, heat(arrays[judged]))
        columns[mask_head] = arrays["mask"]
        notes[mask_head] = iou_words(arrays["mask"], truth)
        if truth is not None:
            columns["errors"] = error_map(arrays["mask"], truth)
        rows.append(PanelRow(image.id, shown, truth, columns, image.why, notes))
    how = "chosen by their masks alone" if scored.masked else "chosen by their labels alone"
    return cam_panel(rows, names, f"{scored.name}: the same images in every run, {how}", ACROSS)


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
    """`IoU 56`: the mean over the classes that mask or truth hold, background among them; empty without a truth.

    No number where more of the truth is void than object, as around small and thin ones: it would hang on a few pixels.
    """
    if truth is None:
        return ""
    known = truth != IGNORE
    if 0 < np.count_nonzero(known & (truth != 0)) < np.count_nonzero(~known):
        return f"{before}no IoU: more void than object"
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


def whole_run(folder: Path, pack: Pack, say: Callable[[str], None]) -> RunManifest | None:
    """`finished_run`, after its pictures have been drawn again if they alone are damaged."""
    damaged = damaged_files(folder)
    if damaged and all(name.startswith(PICTURES) for name in damaged):
        say(f"{folder / damaged[0]}: missing or damaged; the run's pictures are drawn again")
        manifest = read_typed(folder / RESULT, RunManifest, OF_RUN)
        config = config_from(manifest.config, str(folder / RESULT))
        drawn = run_pictures(pack.split(config.data.score), pack.classes, config, manifest, load_panel(folder / PANEL))
        digests = {**manifest.digests}
        for name, png in drawn.items():
            write_bytes(folder / PICTURES / f"{name}.png", png)
            digests[f"{PICTURES}/{name}.png"] = file_digest(folder / PICTURES / f"{name}.png")
        write_json(folder / RESULT, manifest.model_copy(update={"digests": digests}).to_json())
    return finished_run(folder, say)
