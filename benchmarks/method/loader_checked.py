"""An epoch of training samples whose files are checked against their digests, against one whose files are not.

    python -m benchmarks loader_checked --json

A start of a command reads a list's packed images and superpixel maps once more, for their digests
(cpn/core/checked.py); no sample is read more slowly by it. So the price is that of one start over the samples of its
training. Measured is the least training there could be, one epoch, in which the check weighs most: ours begins with the
digests of all files, computed anew as on a first start (`ratio`); on a later one they are remembered by size, time and
inode (`ratio_remembered`). Photographs of 500 pixels, crops of 448, superpixels. `equal`: both show the same samples,
and a byte that was changed in a file is found at the next start.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import Comparison, take_turns

if TYPE_CHECKING:
    from cpn.data.voc import Pack

COPIES = 12
"""Of each photograph: a list of dozens of images, as files and records are sized in VOC."""


def damage_is_found(pack: "Pack", name: str) -> bool:
    """Whether a start finds a byte that is another one, in a file that is put back afterwards."""
    from cpn.core.files import DamagedFile

    path = Path(pack.root, "packed", f"{name}.arrow")
    whole = path.read_bytes()
    at = len(whole) // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    try:
        pack.check([name], again=True)
    except DamagedFile:
        return True
    finally:
        path.write_bytes(whole)
    return False


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Check and time."""
    import numpy as np
    import torch

    from benchmarks.method.superpixel_vs_grid import epoch, samples_of
    from benchmarks.photos.free_photographs import photographs
    from cpn.core.checked import side_digest, verified
    from cpn.data.voc import open_pack

    torch.set_num_threads(1)
    copies, rounds = (2, 2) if options.quick else (COPIES, 7)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CPN_SCRATCH"] = folder
        root = Path(folder, "voc")
        photographs(root, copies)
        pack = open_pack(root)
        split = pack.split("train")
        samples = samples_of(split, Path(folder), kind="superpixel")
        maps = [path for path in Path(folder).rglob("*.arrow") if side_digest(path) is not None]
        files = [*root.glob("packed/train*.arrow"), *maps]

        def start(again: bool) -> None:
            pack.check(["train"], again)
            assert all(verified(path, side_digest(path) or "", again) for path in maps)

        def checked(again: bool) -> Any:
            start(again)
            return epoch(samples, 1)

        ours, other = take_turns(lambda: checked(True), lambda: epoch(samples, 1), rounds)
        later, _ = take_turns(lambda: checked(False), lambda: None, rounds)
        alone, remembered = take_turns(lambda: start(True), lambda: start(False), rounds)
        fresh = samples_of(open_pack(root).split("train"), Path(folder), kind="superpixel")
        keys = [(0, index) for index in range(len(split))]
        same = all(np.array_equal(samples[key].image, fresh[key].image) for key in keys)
        size = sum(path.stat().st_size for path in files) / 1e6
        equal = same and bool(maps) and damage_is_found(pack, "train")
    more = {
        "ratio_remembered": later / other,
        "check_share": alone / other,
        "remembered_share": remembered / other,
        "mb_an_image": size / len(keys),
    }
    return Comparison(ours / len(keys), other / len(keys), "CPU s a sample", equal, 1.03, more).result()
