"""The pictures of an epoch: the CAM over a few of the images that are scored after it, to see it change.

Nothing is computed for them but their drawing: the maps are those of the epoch's score.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cpn.config.cam import CamConfig
from cpn.core.files import write_bytes
from cpn.core.run_files import epoch_folder
from cpn.data.voc import Split
from cpn.plots.panel import heat_over
from cpn.plots.run_pictures import heat, strongest
from cpn.scoring.selection import epoch_sample

MOST = 4
"""Images that are drawn after each epoch."""
SIDE = 256
"""Pixels of a picture's longer side at most, as of the small pictures that MLflow keeps."""
LONGEST_NAME = 100


class EpochPictures:
    """Draws the chosen images of the list that is scored after each epoch, into the run's folder."""

    def __init__(self, split: Split, folder: Path) -> None:
        self._split, self._folder = split, folder
        chosen = epoch_choice(split.labels)
        self._names = dict(zip(chosen, file_names([split.ids[index] for index in chosen]), strict=True))
        self.epoch = 0
        """The epoch that is being scored."""

    def see(self, index: int, maps: NDArray[np.floating]) -> None:
        """Draw an image of the list if it is one of the chosen: un-halved maps (P, h, w) in [0, 1], of any size.

        An epoch that is trained again after an interruption draws the same over what was there.
        """
        if index in self._names:
            picture = cam_over_image(self._split.image(index), maps)
            write_bytes(epoch_folder(self._folder, self.epoch) / f"{self._names[index]}.png", picture)


def drawn_names(scored: Split, config: CamConfig) -> list[str]:
    """Return the names of the pictures that every run draws whose network is scored on this list."""
    sample = epoch_sample(scored.ids, config)
    return file_names([scored.ids[sample[at]] for at in epoch_choice(scored.labels[sample])])


def epoch_choice(labels: NDArray[np.floating]) -> list[int]:
    """Choose the images by their labels (N, F) alone, the same in every run on a list: the first one of each class, in
    the order of classes, until there are MOST.
    """
    chosen: list[int] = []
    for column in np.nan_to_num(labels).T:
        chosen += [int(index) for index in np.flatnonzero(column) if int(index) not in chosen][:1]
    return chosen[:MOST]


def file_names(ids: Sequence[str]) -> list[str]:
    """Return names of files for images, all different, of letters that MLflow takes in a key, and a URL as they are."""
    names: list[str] = []
    for text in ids:
        name = re.sub(r"[^A-Za-z0-9_\-.]", "_", text)[-LONGEST_NAME:].strip(".") or "image"
        alike = [name, *(f"{name}_{number}" for number in range(2, len(ids) + 1))]
        names.append(next(free for free in alike if free not in names))
    return names


def cam_over_image(image: NDArray[np.uint8], maps: NDArray[np.floating]) -> bytes:
    """Draw the strongest present class over an image as PNG: uint8 (H, W, 3), maps (P, h, w) in [0, 1]."""
    height, width = image.shape[:2]
    share = min(1.0, SIDE / max(height, width))
    size = max(1, round(share * width)), max(1, round(share * height))
    shown = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    map_shown = np.asarray(Image.fromarray(strongest(maps)).resize(size, Image.Resampling.BILINEAR))
    buffer = io.BytesIO()
    Image.fromarray(heat_over(shown, heat(map_shown))).save(buffer, "png")
    return buffer.getvalue()
