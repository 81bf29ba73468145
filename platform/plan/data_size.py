"""How much data a sweep has before it starts: images of a list, their size, the number of classes. For the price."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cpn.config import Config
from cpn.core.errors import InputError
from cpn.data.voc import VOC_CLASSES, open_pack
from cpn.sources.creatures import CREATURES
from cpn.sources.voc_lists import VOC_COUNTS

PHOTO = (375, 500)
"""Height and width in pixels of most of VOC's photographs."""
SIZED = 50
"""Images whose sizes are read."""


@dataclass(frozen=True)
class Packed:
    """What a packed data set tells."""

    lists: dict[str, int]
    """Images by list."""
    height: int
    """Median height in pixels of a sample of the images."""
    width: int
    """Median width in pixels."""
    classes: int
    """C, with background."""


@lru_cache(8)
def packed(root: str) -> Packed:
    """Of the packed data set `root`, folder or URL. InputError where it is not packed yet or cannot be read."""
    pack = open_pack(root)
    largest = max((pack.split(name) for name in pack.lists), key=len)
    sample = np.unique(np.linspace(0, len(largest) - 1, SIZED).astype(int)).tolist()
    height, width = np.median([largest.image(index).shape[:2] for index in sample], axis=0).astype(int).tolist()
    lists = {name: pack.manifest["lists"][name]["rows"] for name in pack.lists}
    return Packed(lists, height, width, len(pack.classes) + 1)


def of(config: Config) -> Packed | None:
    """Of the data that `config` names; None for scenes, and for what is not packed (which is looked for again)."""
    if config.data.root is None:
        return None
    try:
        return packed(config.data.root)
    except InputError:
        return None


def list_length(config: Config, name: str) -> int:
    """Count the images of a list: in the packed data, of the configured scenes, else VOC 2012's."""
    if (packed_size := of(config)) is not None:
        return packed_size.lists.get(name, max(packed_size.lists.values()))
    scenes = config.data.scenes if config.data.root is None else None
    if scenes is not None:
        return {"train": scenes.train, "val": scenes.val}.get(name, scenes.train + scenes.extra)
    return VOC_COUNTS.get(name, VOC_COUNTS["trainaug"])


def picture(config: Config) -> tuple[int, int]:
    """Return height and width of an image in pixels: of the packed data, of the scenes, else of a photograph of VOC."""
    if (packed_size := of(config)) is not None:
        return packed_size.height, packed_size.width
    scenes = config.data.scenes if config.data.root is None else None
    return (scenes.size, scenes.size) if scenes is not None else PHOTO


def class_count(config: Config) -> int:
    """Count the classes with background: of the packed data, of the configured scenes, else of VOC."""
    if (packed_size := of(config)) is not None:
        return packed_size.classes
    scenes = config.data.scenes if config.data.root is None else None
    return len(CREATURES if scenes is not None else VOC_CLASSES) + 1


def size_words(config: Config) -> str:
    """Return what the price counts."""
    trained, scored = (list_length(config, name) for name in (config.data.train, config.data.score))
    height, width = picture(config)
    images = f"{trained:,} images to train on, {scored:,} scored, of {height} x {width} pixels"
    words = f"{images} and {class_count(config)} classes"
    if config.data.root is not None and of(config) is None:
        return (
            f"{words}: VOC 2012's, as {config.data.root} is not packed yet (python -m cpn.prepare {config.data.root})"
        )
    return words
