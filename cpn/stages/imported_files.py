"""Score maps or pseudo labels of any method in the place of a stage's own files, so that later stages go on from them.

Score maps take the place of stage cam, pseudo labels that of stage random_walk. A list of the files' digests stands for
the network that the stages' keys otherwise begin with: equal files give equal keys, wherever they lie.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cpn.config import Config
from cpn.core.errors import InputError
from cpn.core.files import digest, file_digest, write_json
from cpn.core.progress import Progress
from cpn.data.image_memory import SCALE_DOWN, image_of
from cpn.data.map_files import present_classes, save_label, save_maps
from cpn.data.voc import Pack, Split, mask_of
from cpn.scoring.metrics import BETAS, curve_counts, hard_counts, iou, miou
from cpn.scoring.prediction_files import PredictionFiles, find_predictions, read_label, read_maps
from cpn.scoring.selection import select_and_confirm, summarise

LIST_CURE = "name another list with --set data.train="


@dataclass(frozen=True)
class ImportedFiles:
    """Another method's files for the images of the training list."""

    files: PredictionFiles
    halved: bool
    """Whether score maps lie in [0, 0.5] and are to be doubled."""

    @property
    def stage(self) -> Literal["cam", "random_walk"]:
        """The stage whose files they are."""
        return "cam" if self.files.are_maps else "random_walk"

    @property
    def kind(self) -> str:
        """What they are, in words."""
        return "score maps" if self.files.are_maps else "pseudo labels"


def find_imported(folder: Path, config: Config, pack: Pack, maps: bool, halved: bool) -> ImportedFiles:
    """Find the file of every training image. InputError where one is missing, or they are not of the wanted kind."""
    files = find_predictions(folder, pack.split(config.data.train).ids, LIST_CURE)
    if files.are_maps != maps:
        kind, other = ("score maps", "--maps") if files.are_maps else ("pseudo labels", "--labels")
        raise InputError(f"{folder}: holds {kind}; give them with {other} (in a table: {other[2:]}:)")
    if halved and not maps:
        raise InputError(f"{folder}: pseudo labels have nothing to double; leave out halved")
    return ImportedFiles(files, halved)


def list_files(imported: ImportedFiles) -> dict[str, Any]:
    """Return everything that the results depend on, as plain values: kind, halved, and each file's SHA-256 by name."""
    names = {path.name: file_digest(path) for path in imported.files.paths}
    return {"kind": imported.kind, "halved": imported.halved, "files": names}


def write_list(imported: ImportedFiles, folder_of: Callable[[str], Path], name: str) -> Path:
    """Write `list_files` into the folder that `folder_of` gives for its digest, once; returns the file."""
    listed = list_files(imported)
    path = folder_of(digest(listed)[:16]) / name
    if not path.exists():
        write_json(path, listed)
    return path


def measure(imported: ImportedFiles, config: Config, pack: Pack, report: Progress) -> dict[str, float]:
    """Metrics of the files on the list `data.score`, as `cpn.run` gives them for a network's own maps, in percent.

    beta is chosen on the selection images of that list, never on the validation list. Empty where there are no masks.
    InputError for an image of the list that is not in the training list.
    """
    scored, classes = pack.split(config.data.score), len(pack.classes) + 1
    if not scored.masked:
        return {}
    by_name = {path.stem: path for path in imported.files.paths}
    held_back = frozenset(select_and_confirm(scored.ids, config.cam)[1])
    settings = len(BETAS) if imported.files.are_maps else 1
    total = np.zeros((2, settings, 3, classes), np.int64)
    for index, name in enumerate(scored.ids):
        if name not in by_name:
            raise InputError(
                f"{name}: list {scored.name!r} scores it, but has no file; data.train must hold data.score"
            )
        with image_of(scored, index, SCALE_DOWN):
            truth = mask_of(scored, index)
            if imported.files.are_maps:
                maps, present = fitted_maps(imported, by_name[name], scored, index, classes)
                counts = curve_counts(maps, present, truth, classes, BETAS)
            else:
                height, width = truth.shape
                counts = hard_counts(read_label(by_name[name], (height, width), classes), truth, classes)[None]
        total[int(index in held_back)] += counts
        report(f"scoring {imported.kind}", index + 1, len(scored))
    if imported.files.are_maps:
        metrics = summarise(total[0], total[1], config.cam).metrics
        return {**metrics, **_background_and_objects(total, BETAS.index(metrics["beta_train"]))}
    counted = {"miou": total[0, 0], "miou_confirm": total[1, 0], "miou_train": total[:, 0].sum(0)}
    return {name: 100 * float(miou(one)) for name, one in counted.items()} | _background_and_objects(total, 0)


def _background_and_objects(total: NDArray[np.int64], at: int) -> dict[str, float]:
    values = 100 * iou(total[:, at].sum(axis=0))
    return {"iou_background": float(values[0]), "iou_foreground": float(values[1:].mean())}


def fitted_maps(
    imported: ImportedFiles, path: Path, split: Split, index: int, classes: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the maps (P, H, W) of the classes that the image is labelled with, (P,), cut off at 0 and 1.

    A map of another class is left out: image labels are given to every method of the field. A labelled class without a
    map is zero. InputError where the background has a map of its own.
    """
    height, width = split.image(index).shape[:2]
    score_maps = read_maps(path, (height, width), classes, imported.halved)
    if score_maps.with_background:
        raise InputError(
            f"{path}: has a map of the background, and the later stages weigh maps against one of their own; leave it "
            "out, or save the class of the largest score as ID.png and give --labels"
        )
    present = present_classes(split.labels[index])
    maps = np.zeros((len(present), height, width), np.float32)
    rows = {int(label): row for row, label in enumerate(score_maps.present)}
    for place, label in enumerate(present.tolist()):
        if label in rows:
            maps[place] = np.clip(score_maps.maps[rows[label]], 0, 1)
    return maps, present.astype(np.int64)


def import_files(imported: ImportedFiles, split: Split, indices: Sequence[int], classes: int, out: Path,
                 report: Progress) -> None:  # fmt: skip
    """Write the files of the images at `indices` to `out` as their stage writes them; what is there stays."""
    for done, index in enumerate(indices, 1):
        path = imported.files.paths[index]
        target = out / path.name
        if not target.exists():
            with image_of(split, index, SCALE_DOWN):
                if imported.files.are_maps:
                    save_maps(target, *fitted_maps(imported, path, split, index, classes))
                else:
                    height, width = split.image(index).shape[:2]
                    save_label(target, read_label(path, (height, width), classes))
        report(f"taking over {imported.kind}", done, len(indices))
