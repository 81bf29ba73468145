"""What reading a sweep's images takes in memory, list by list, for its plan: scoring and CAMs, the walk, DeepLab."""

from cpn.config import Config
from cpn.core import object_storage
from cpn.core.contents import is_code
from cpn.core.errors import InputError
from cpn.cost.inference_memory import GIB, Largest, cam_bytes, largest, list_needs, list_words
from cpn.data.voc import Pack, open_pack
from cpn.scoring.shown_sizes import shown_smaller

from ..config.sweep_spec import SweepSpec
from .data_size import class_count
from .estimate import corner_configs

VOC_LARGEST = 500
"""Longest side in pixels of VOC 2012's images."""


def reading_lines(spec: SweepSpec, have: tuple[float, str] | None, run_code: bool) -> list[str]:
    """Return a line for each list that is read: its largest image, and what that takes at least in the largest corner.

    Of data that are not packed, or not here, the images are taken to be VOC 2012's. `have` is how many bytes a worker
    has and where, if that is known: a list that needs more is said to be refused there. Without `run_code` IRN's
    backbone is not made where it is the user's code.
    """
    pack = pack_of(spec.base_config)
    lines = []
    data = spec.base_config.data
    for name in dict.fromkeys((data.train, data.score, data.val)):
        try:
            split = None if pack is None else pack.split(name)
        except InputError:
            continue  # said where the data are looked at
        most = assumed(spec.base_config) if split is None else largest(split)
        config = heaviest(spec, most)
        shown = most if split is None else largest(split, config.cam.long_side)
        walk = run_code or config.random_walk.kind != "irn" or not is_code(config.irn.backbone or "")
        needs = list_needs(config, class_count(config), name, most, shown, walk)
        line = list_words(name, most, needs)
        need = max((needed for needed in needs.values() if needed is not None), default=0.0)
        if have is not None and need > have[0]:
            line += f", and {have[1]} has {have[0] / GIB:.1f} GiB: refused there; cam.max_pixels or cam.long_side help"
        lines.append(line)
        if split is not None:
            read = [config.cam] if name != data.val else [config.deeplab]
            lines += [words for section in read if (words := shown_smaller(section, split)) is not None]
    return lines


def pack_of(config: Config) -> Pack | None:
    """Return the packed data, if they lie on this machine."""
    if config.data.root is None or object_storage.is_url(config.data.root):
        return None
    try:
        return open_pack(config.data.root)
    except InputError:
        return None


def assumed(config: Config) -> Largest:
    """Return the largest image of data that are not there: a scene, or one of VOC 2012's."""
    scenes = config.data.scenes if config.data.root is None else None
    side = VOC_LARGEST if scenes is None else scenes.size
    return Largest("one as in VOC 2012" if scenes is None else "a scene", side, side)


def heaviest(spec: SweepSpec, most: Largest) -> Config:
    """Return the corner of the search whose CAM takes most; the base where none is counted."""
    configs = {(config.network, config.cam): config for _, config in corner_configs(spec)}
    return max(
        configs.values(),
        key=lambda c: cam_bytes(c.network, c.cam, class_count(c), most.height, most.width) or 0.0,
    )
