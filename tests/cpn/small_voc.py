"""A VOC 2012 folder in small, as the archives of VOC and SBD unpack: for the tests that need VOC's own classes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from cpn.data.voc import IGNORE, VOC_CLASSES, encode_mask

LISTS = {
    "train": ["2007_000032", "2007_000039"],
    "val": ["2007_000033", "2007_000042"],
    "test": ["2008_000006", "2008_000011"],
}
EXTRA = ["2008_000002", "2008_000015", "2009_000009"]
"""Images of SBD that are in neither list."""


def write_small_voc(root: Path, sbd: bool = True) -> None:
    """Write the folder VOC2012 in small: pictures of 20 x 14, the i-th with class i; SegmentationClassAug if `sbd`."""
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation", "SegmentationClassAug"):
        if sbd or part != "SegmentationClassAug":
            (root / part).mkdir(parents=True)
    for name, ids in LISTS.items():
        (root / f"ImageSets/Segmentation/{name}.txt").write_text("\n".join(ids) + "\n")
    everything = [*(i for ids in LISTS.values() for i in ids), *EXTRA]
    for at, image_id in enumerate(everything):
        rng = np.random.default_rng(at)
        Image.fromarray(rng.integers(0, 256, (14, 20, 3)).astype(np.uint8)).save(root / f"JPEGImages/{image_id}.jpg")
        if image_id in LISTS["test"]:
            continue
        objects = f"<object><name>{VOC_CLASSES[at]}</name><difficult>{at % 2}</difficult></object>"
        (root / f"Annotations/{image_id}.xml").write_text(f"<annotation>{objects}</annotation>")
        mask = np.zeros((14, 20), np.uint8)
        mask[3:9, 4:12], mask[3, 4:12] = at + 1, IGNORE
        if image_id not in EXTRA:
            (root / f"SegmentationClass/{image_id}.png").write_bytes(encode_mask(mask))
        if sbd:
            sbd_mask = np.where(mask == IGNORE, at + 1, mask).astype(np.uint8)  # drawn otherwise, without the border
            (root / f"SegmentationClassAug/{image_id}.png").write_bytes(encode_mask(sbd_mask))


def write_sized_voc(root: Path, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Write a list `train` with masks, of images with these heights and widths; classes in turn."""
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(sizes) + "\n")
    for at, (name, size) in enumerate(sizes.items()):
        pixels = np.random.default_rng(at).integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"JPEGImages/{name}.jpg")
        mask = np.zeros(size, np.uint8)
        mask[: size[0] // 2] = at % 3 + 1
        (root / f"SegmentationClass/{name}.png").write_bytes(encode_mask(mask))
