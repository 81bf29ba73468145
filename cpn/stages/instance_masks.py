"""Pseudo labels refined by instance masks that somebody else has computed, such as SAM's: each mask takes a vote.

    ID.json   a list of masks, or an object with the list as `annotations`; each has `segmentation`: {size: [H, W],
              counts: COCO's run lengths, plain or compressed}, as segment-anything writes them with --convert-to-rle

The vote is that of Chen et al. (arXiv 2305.05803) by share of the mask alone: a mask in which one class of the pseudo
label fills at least `instance_masks.share` is of that class as a whole. The background does not vote, so an object
without a mask stays; where masks overlap the smaller one is on top.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpn.core.checked import reading
from cpn.core.errors import InputError
from cpn.core.plain_file import MB, read_plain
from cpn.data.image_memory import SCALE_DOWN, image_of
from cpn.data.map_files import load_label, save_label
from cpn.data.voc import IGNORE
from cpn.sources.coco_masks import Annotation, annotation_mask
from cpn.stages.inputs import Inputs

CURE = "write it again"
LARGEST_FILE = 256 * MB


def refine_labels(inputs: Inputs, indices: Sequence[int], out: Path) -> None:
    """Write the refined pseudo labels of the images at `indices` to `out`/<id>.png; what is there stays."""
    settings, split = inputs.config.instance_masks, inputs.split
    assert settings.folder is not None
    for index in indices:
        name = split.ids[index]
        target = out / f"{name}.png"
        if target.exists():
            continue
        with image_of(split, index, SCALE_DOWN):
            label = load_label(inputs.folders["random_walk"] / target.name)
            height, width = label.shape
            masks = read_masks(Path(settings.folder) / f"{name}.json", height, width)
            save_label(target, vote(label, masks, settings.share))


def vote(label: NDArray[np.uint8], masks: Sequence[NDArray[np.bool_]], share: float) -> NDArray[np.uint8]:
    """Give each mask the class that fills `share` of it: labels uint8 (H, W), masks bool (H, W) -> uint8 (H, W).

    All masks vote on the label as it was.
    """
    refined = label.copy()
    for mask in sorted(masks, key=lambda mask: -int(mask.sum())):
        counts = np.bincount(label[mask], minlength=IGNORE + 1)
        counts[[0, IGNORE]] = 0
        best = int(counts.argmax())
        if counts[best] > 0 and counts[best] >= share * int(mask.sum()):
            refined[mask] = best
    return refined


def read_masks(path: Path, height: int, width: int) -> list[NDArray[np.bool_]]:
    """Return the masks of one image, bool (H, W) each. InputError in one line for a file that is missing or does not
    fit.
    """
    if not path.is_file():
        raise InputError(
            f"instance_masks.folder: {path} is missing; write it (an empty list where there is no mask), or set "
            "instance_masks.folder=null"
        )
    with reading(path, CURE):
        content: Any = json.loads(read_plain(path, LARGEST_FILE))
    listed = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(listed, list):
        raise InputError(f"{path}: holds no list of masks; {CURE} as a list, or an object with `annotations`")
    masks = []
    for number, entry in enumerate(listed):
        runs = entry.get("segmentation") if isinstance(entry, dict) else None
        counts, size = (runs.get("counts"), runs.get("size")) if isinstance(runs, dict) else (None, None)
        sides = size if isinstance(size, list) and len(size) == 2 and all(isinstance(s, int) for s in size) else None
        if not isinstance(counts, (list, str)) or sides is None:
            raise InputError(
                f"{path}: mask {number} has no `segmentation` with `size` and `counts`; {CURE} as COCO RLE"
            )
        annotation = Annotation(number, 0, 0, False, None, counts, (sides[0], sides[1]))
        try:
            masks.append(annotation_mask(annotation, height, width))
        except InputError as error:
            raise InputError(f"{path}: mask {number}: {error}; {CURE}") from None
    return masks
