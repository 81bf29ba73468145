"""The scores of a CAM network scale by scale: per-image counts, kept so that a killed scoring goes on, and their rows.

Every image is shown to the network once per scale (with its mirror image); the sum of a scale gives that scale's row,
and the sum of these sums the row `all`: the columns 0.5, 1.0, 1.5, 2.0 and all of the paper's Table 1.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpn.config.cam import CamConfig
from cpn.core.errors import InputError
from cpn.core.files import DamagedFile, read_json, write_json
from cpn.core.progress import Progress
from cpn.data.image_memory import CAM_CURE, image_of
from cpn.data.map_files import present_classes
from cpn.data.voc import Split, mask_of
from cpn.models.network import CPN
from cpn.scoring.cam import RELEASED_BETAS, normalise_sum, scale_sums, to_halved
from cpn.scoring.counts import load_counts, save_counts
from cpn.scoring.metrics import BETAS, best_beta, curve_counts, iou, miou

ALL = "all"
CHUNK = 16
"""Images per kept file: what a kill costs at most."""

SETTINGS = "settings.json"
PARTS = "parts"


def row_names(config: CamConfig) -> list[str]:
    """Return the rows: each scale, such as "0.5" and "1", and `all` where there are several."""
    return [f"{scale:g}" for scale in config.scales] + ([ALL] if len(config.scales) > 1 else [])


def counts_by_scale(
    network: CPN,
    image: NDArray[np.uint8],
    present: NDArray[np.integer],
    truth: NDArray[np.uint8],
    config: CamConfig,
    classes: int,
) -> NDArray[np.int64]:
    """Return the counts of one image for every row at every beta: int64 (R, len(BETAS), 3, C), rows as in `row_names`.

    Takes the image (H, W, 3), its classes (P,) in 1..F and its mask (H, W); the network must be in eval mode.
    """
    rows, total = [], None
    for summed in scale_sums(network, image, present, config):
        rows.append(curve_counts(normalise_sum(summed).cpu().numpy(), present, truth, classes, BETAS))
        total = summed if total is None else total + summed
    if total is not None and len(rows) > 1:
        rows.append(curve_counts(normalise_sum(total).cpu().numpy(), present, truth, classes, BETAS))
    return np.stack(rows)


def score_list(
    network: CPN, split: Split, config: CamConfig, classes: int, report: Progress, folder: Path | None = None
) -> NDArray[np.int64]:
    """Return the counts summed over a list: int64 (R, len(BETAS), 3, C).

    With `folder` the counts of every CHUNK images are written to `folder`/parts, whole or absent, and those that are
    there already are not made again; `claim` sees to it that they belong to the same network, data and settings.
    Raises InputError for a kept file that cannot be read, or an image without a mask.
    """

    def counts(index: int) -> NDArray[np.int64]:
        present = present_classes(split.labels[index])
        return counts_by_scale(network, split.image(index), present, mask_of(split, index), config, classes)

    shape = (len(row_names(config)), len(BETAS), 3, classes)
    return in_parts(split, shape, counts, report, None if folder is None else folder / PARTS)


def in_parts(
    split: Split,
    shape: tuple[int, ...],
    counts_of: Callable[[int], NDArray[np.int64]],
    report: Progress,
    folder: Path | None,
    what: str = "scoring",
) -> NDArray[np.int64]:
    """Sum over a list of `counts_of` an image's index, int64 of `shape`; with `folder` kept CHUNK images at a time."""
    total = np.zeros(shape, np.int64)
    todo: list[range] = []
    for start in range(0, len(split), CHUNK):
        part = range(start, min(start + CHUNK, len(split)))
        saved = None if folder is None else _kept_counts(_part(folder, start), [split.ids[i] for i in part])
        if saved is None:
            todo.append(part)
        else:
            total += saved.sum(0)
    images = sum(len(part) for part in todo)
    what = what if images == len(split) else f"{what} the rest"
    done = 0
    for part in todo:
        counts = []
        for index in part:
            with image_of(split, index, CAM_CURE):
                counts.append(counts_of(index))
            done += 1
            report(what, done, images)
        if folder is not None:
            save_counts(_part(folder, part.start), [split.ids[i] for i in part], np.stack(counts))
        total += np.sum(counts, axis=0)
    return total


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Make `folder` the folder of this scoring, or find that it is. `settings` are plain JSON values.

    Raises InputError when it holds another scoring or anything else, or cannot be written.
    """
    place = folder / SETTINGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            if any(not path.name.startswith(f".{SETTINGS}.") for path in folder.iterdir()):
                raise InputError(f"--out {folder}: holds other files; give a folder of its own")
            write_json(place, settings)
            return
        earlier = read_json(place, f"delete {folder}, and all is scored again, or give another --out")
    except DamagedFile:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"--out {folder}: cannot be used ({error}); give another folder") from error
    if earlier != settings:
        other = [name for name in settings if not isinstance(earlier, dict) or earlier.get(name) != settings[name]]
        raise InputError(
            f"--out {folder}: holds a score with another {other[0] if other else 'setting'}; give a folder of its own"
        )


def score_row(name: str, counts: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, Any]:
    """Return what is said of one row: counts (len(BETAS), 3, C) summed over the list, C - 1 class names -> plain
    values.

    mIoU (percent) at the best beta of the whole curve and of the released code's grid, each with t = beta / 2, the
    threshold on its halved maps (method.md (k) 19). At the first: IoU of the background and mean IoU of the foreground
    (Table 3), precision and recall over all foreground pixels (right class predicted, of those predicted as and of
    those that are foreground), and the IoU of each class, all in percent.
    """
    beta, best = best_beta(counts)
    window = [BETAS.index(one) for one in RELEASED_BETAS]
    released_beta, released = best_beta(counts[window], RELEASED_BETAS)
    return {
        "scale": name,
        "miou": 100 * best,
        "beta": beta,
        "t": to_halved(beta),
        "miou_released_grid": 100 * released,
        "beta_released_grid": released_beta,
        "t_released_grid": to_halved(released_beta),
        **foreground_and_classes(counts[BETAS.index(beta)], classes),
    }


def foreground_and_classes(chosen: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the part of a row that is of one beta: counts (3, C) -> percent."""
    ratios = 100 * iou(chosen)
    hits, predicted, true = (int(part) for part in chosen[:, 1:].sum(axis=1))
    return {
        "iou_background": float(ratios[0]),
        "iou_foreground": float(ratios[1:].mean()),
        "precision": 100 * hits / max(1, predicted),
        "recall": 100 * hits / max(1, true),
        "iou": dict(zip(("background", *classes), ratios.tolist(), strict=True)),
    }


def score_rows(counts: NDArray[np.int64], config: CamConfig, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """`score_row` of every row of counts (R, len(BETAS), 3, C)."""
    return [score_row(name, part, classes) for name, part in zip(row_names(config), counts, strict=True)]


def curves(counts: NDArray[np.int64], config: CamConfig) -> dict[str, NDArray[np.float64]]:
    """Return mIoU in [0, 1] over BETAS by row: (len(BETAS),) each, of counts (R, len(BETAS), 3, C)."""
    return dict(zip(row_names(config), miou(counts), strict=True))


def _part(folder: Path, start: int) -> Path:
    return folder / f"{start:06d}.npz"


def _kept_counts(path: Path, ids: list[str]) -> NDArray[np.int64] | None:
    """Return the counts (n, R, len(BETAS), 3, C) that were kept, None if there are none. InputError if they cannot be
    read.
    """
    if not path.exists():
        return None
    kept_ids, counts = load_counts(path, "delete it, and its images are scored again")
    if kept_ids != ids:
        raise InputError(f"{path}: holds other images than the list; delete it, and its images are scored again")
    return counts
