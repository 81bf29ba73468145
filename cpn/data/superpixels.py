"""SLIC maps of whole images, made once and shared: a training sample only cuts its view out of one.

SLIC takes many times as long as the rest of a sample. So it runs on the images as they are, before augmentation, at
the levels of a fixed ladder, and what is drawn anew in every epoch is which patches are hidden. Level k asks for 1.5^k
superpixels in a square image, and in an oblong one for its share, so that one level has patches of one size, relative
to the long side, in all images. A sample takes the level nearest to S_N x image area / crop area, less what the
crop's edges cut: S_N counts the patches of a crop. Where S_N is drawn (`patches.S_N_range`), the levels of the whole
range are made, and a sample takes that of the S_N it has drawn: about ln(high / low) / ln 1.5 more of them.

    CACHE/superpixels/KEY/LEVEL.arrow    Arrow IPC, one image a record batch: height, width, labels (zstd of uint16)
    CACHE/superpixels/KEY/LEVEL.arrow.sha256   the digest of that file
    CACHE/superpixels/KEY/LEVEL.parts/   shares of a level that is being made

KEY is a digest of the images and SLIC's settings. A share is whole or absent and has a lock of its own: a killed
build goes on where it was, and of several builders each makes another share.
"""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pyarrow import ipc

from cpn.config import Config
from cpn.config.data import DataConfig
from cpn.config.patches import PatchesConfig
from cpn.core.checked import reading, side_digest, side_file, verified, write_side
from cpn.core.errors import InputError, to_stderr
from cpn.core.files import digest, file_digest, whole_file
from cpn.core.progress import Progress, silent
from cpn.data.patches import SLIC, grid_labels, superpixel_labels
from cpn.data.voc import Split

if TYPE_CHECKING:  # without torch, so that processes that only make maps start quickly
    from cpn.data.transforms import View

RATIO = 1.5
"""Between one level's number of superpixels and the next one's."""
FORMAT = 1
"""Layout number of the files; part of their key."""
SHARE = 64
"""Images of a level that are made in one go."""
WAIT_S = 0.2
"""Between looks at shares that somebody else is making."""

SCHEMA = pa.schema([("height", pa.int32()), ("width", pa.int32()), ("labels", pa.binary())])


@dataclass(frozen=True)
class Share:
    """The images `start` to `stop` - 1 of one level."""

    level: int
    start: int
    stop: int


Spread = Callable[[Sequence[Share]], Iterable[tuple[Share, bool]]]
"""Makes shares, wherever, and gives each with whether it was made; False: somebody else is at it."""


def level_of(S_N: int, height: int, width: int, crop: int) -> int:
    """Return the ladder's level for about `S_N` patches on a square crop of an image scaled to height x width.

    With patches of side s, and a and b 1 where the crop cuts the width and the height (0 where all of it shows), it
    shows (w / s + a) (h / s + b) of them, cut ones included, and padding holds cells of that area: solved for 1 / s.
    """
    cuts_width, cuts_height = width > crop, height > crop
    shown_width, shown_height = min(width, crop), min(height, crop)
    linear = cuts_width * shown_height + cuts_height * shown_width
    constant = cuts_width * cuts_height - S_N
    per_pixel = (-linear + math.sqrt(linear**2 - 4 * crop**2 * constant)) / (2 * crop**2)
    wanted = (max(height, width) * per_pixel) ** 2
    return max(0, round(math.log(wanted, RATIO))) if wanted > 0 else 0


def count_at(level: int, height: int, width: int) -> int:
    """Superpixels that a level asks for on an image of height x width."""
    return max(1, round(RATIO**level * min(height, width) / max(height, width)))


def levels_of(patches: PatchesConfig, data: DataConfig) -> list[int]:
    """Return the levels that samples under these settings can need, whatever the images' shapes."""
    low, high = data.long_side
    shapes = [(long, short) for long in range(low, high + 1) for short in (1, min(long, data.crop), long)]
    ends = patches.S_N_range or (patches.S_N,)  # more superpixels never mean a lower level
    levels = [level_of(S_N, long, short, data.crop) for S_N in ends for long, short in shapes]
    return list(range(min(levels), max(levels) + 1))


def maps_for(
    config: Config,
    split: Split,
    cache: Path,
    progress: Progress = silent,
    spread: Callable[[Path, Split], Spread] | None = None,
    say: Callable[[str], None] = to_stderr,
) -> "SuperpixelMaps | None":
    """Return the maps that training under `config` reads, made where they are missing by `make_maps`; None: it reads
    none.
    """
    if not reads_maps(config):
        return None
    return make_maps(maps_folder(cache, split), split, levels_of(config.patches, config.data), progress, spread, say)


def reads_maps(config: Config) -> bool:
    """Return whether training under `config` cuts its patches out of maps."""
    pairs = config.train.objective in ("cpn", "pair_classification")
    return pairs and config.patches.kind == "superpixel" and config.patches.slic_on == "image"


def packed_bytes(level: int, height: int, width: int) -> float:
    """Return the bytes of a level's map of a height x width image, at most: what zstd leaves grows with the edges'
    length.

    Measured on four photographs of 500 pixels: 2.6 to 3.6 x sqrt(superpixels per pixel) a pixel at 17 superpixels, less
    at more, 1.8 at 5,000.
    """
    pixels = height * width
    return pixels * min(2.0, 3.6 * math.sqrt(count_at(level, height, width) / pixels))


class SuperpixelMaps:
    """The maps of one list. Cheap to pickle: each process maps a level's file at its first access."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._readers: dict[int, tuple[int, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}

    def labels(self, level: int, index: int) -> NDArray[np.uint16]:
        """Return the map of image `index` at a level: uint16 (H, W), values from 0, none left out.

        InputError where the level is not there: `make_maps` makes it.
        """
        opened = self._readers.get(level)
        if opened is None or opened[0] != os.getpid():
            path = level_file(self._folder, level)
            if not path.exists():
                raise InputError(f"{path}: superpixels are not there (deleted meanwhile?); start the command again")
            with reading(path):
                opened = self._readers[level] = (os.getpid(), ipc.open_file(pa.memory_map(str(path))))
        with reading(level_file(self._folder, level)):
            row = opened[1].get_batch(index)
            height, width = row["height"][0].as_py(), row["width"][0].as_py()
            data = pa.decompress(row["labels"][0].as_buffer(), decompressed_size=2 * height * width, codec="zstd")
            labels: NDArray[np.uint16] = np.frombuffer(data, np.uint16).reshape(height, width)
        return labels

    def of_sample(self, index: int, view: "View", S_N: int) -> NDArray[np.int32]:
        """Return the patches of a training sample: int32 (crop, crop) from 0, some numbers without a pixel."""
        return seen(self.labels(level_of(S_N, *view.size, view.box.crop), index), view)


def seen(labels: NDArray[np.uint16], view: "View") -> NDArray[np.int32]:
    """Crop an image's map to a view: (H, W) -> int32 (crop, crop), nearest neighbour, superpixel numbers unchanged.

    Padding gets grid cells of the mean patch's area, numbered on.
    """
    (height, width), box = view.size, view.box
    rows = nearest(labels.shape[0], height)[box.top : box.top + box.height]
    columns = nearest(labels.shape[1], width)
    columns = (columns[::-1] if view.flipped else columns)[box.left : box.left + box.width]
    shown = labels[rows][:, columns]
    if shown.shape == (box.crop, box.crop):
        return shown.astype(np.int32)
    count = int(labels.max()) + 1
    side = max(1, round(math.sqrt(height * width / count)))
    canvas = grid_labels(box.crop, box.crop, side) + np.int32(count)
    canvas[box.canvas_top : box.canvas_top + box.height, box.canvas_left : box.canvas_left + box.width] = shown
    return canvas


def nearest(before: int, after: int) -> NDArray[np.int64]:
    """For each of `after` pixels along a side the one of `before` under its middle."""
    return ((np.arange(after) + 0.5) * before / after).astype(np.int64)


def maps_folder(cache: Path, split: Split) -> Path:
    """Return the folder of a list's maps; lists with the same images in the same order and the same SLIC share it."""
    return (
        cache / "superpixels" / digest({"format": FORMAT, "slic": SLIC, "pictures": split.digest, "order": split.ids})
    )


def level_file(folder: Path, level: int) -> Path:
    """Return the file of one level."""
    return folder / f"{level}.arrow"


def make_maps(
    folder: Path,
    split: Split,
    levels: Sequence[int],
    progress: Progress = silent,
    spread: Callable[[Path, Split], Spread] | None = None,
    say: Callable[[str], None] = to_stderr,
) -> SuperpixelMaps:
    """Make what is missing of these levels, and open them; `spread(folder, split)` says where (None: threads here).

    `progress` hears of every share, also of those that others make meanwhile, and `say`, in a line, of a level that was
    damaged and is made again. Raises InputError where an image gets more superpixels than its file can number.
    """
    for level in levels:
        drop_damaged(folder, level, say)
    compute_shares = (spread or in_threads)(folder, split)
    total = len(levels) * len(split)
    while missing := missing_shares(folder, len(split), levels):
        done = total - sum(share.stop - share.start for share in missing)
        busy = True
        for share, is_computed in compute_shares(missing):
            busy = busy and not is_computed
            done += (share.stop - share.start) if is_computed else 0
            progress("superpixels", done, total)
        if busy:
            time.sleep(WAIT_S)
    for level in levels:
        join_shares(folder, len(split), level)
    return SuperpixelMaps(folder)


def drop_damaged(folder: Path, level: int, say: Callable[[str], None]) -> None:
    """Delete a level's file, and shares of it, that are not what was written. Those of earlier versions have no
    digest and are taken as they are.
    """
    for path in (level_file(folder, level), *sorted((folder / f"{level}.parts").glob("*.arrow"))):
        expected = side_digest(path)
        if expected is None or verified(path, expected) or not path.exists():
            continue
        with FileLock(folder / f"{level}.lock"):
            expected = side_digest(path)
            # Another process may have made it again meanwhile.
            if path.exists() and expected is not None and not verified(path, expected):
                side_file(path).unlink(missing_ok=True)
                path.unlink()
                say(f"{path} is damaged; these superpixels are made again")


def missing_shares(folder: Path, pictures: int, levels: Sequence[int]) -> list[Share]:
    """List the shares of these levels that are missing."""
    return [
        share
        for level in levels
        if not level_file(folder, level).exists()
        for share in shares_of(pictures, level)
        if not share_file(folder, share).exists()
    ]


def shares_of(pictures: int, level: int) -> list[Share]:
    """Return a level cut into shares."""
    return [Share(level, start, min(start + SHARE, pictures)) for start in range(0, pictures, SHARE)]


def share_file(folder: Path, share: Share) -> Path:
    """Return the file of one share."""
    return folder / f"{share.level}.parts" / f"{share.start}.arrow"


def in_threads(folder: Path, split: Split) -> Spread:
    """Make shares in threads of this process: SLIC leaves the interpreter lock."""

    def spread(shares: Sequence[Share]) -> Iterator[tuple[Share, bool]]:
        with ThreadPoolExecutor(max_workers=min(8, len(os.sched_getaffinity(0)))) as pool:
            try:
                jobs = {pool.submit(make_share, folder, split, share): share for share in shares}
                for job in as_completed(jobs):
                    yield jobs[job], job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    return spread


def make_share(folder: Path, split: Split, share: Share) -> bool:
    """Make one share unless it is there; False when another process is making it just now."""
    path = share_file(folder, share)
    try:
        held = FileLock(path.with_suffix(".lock"), blocking=False).acquire()
    except Timeout:
        return False
    with held:
        if path.exists() or level_file(folder, share.level).exists():
            return True
        side_file(path).unlink(missing_ok=True)
        with whole_file(path) as file, ipc.new_file(file, SCHEMA) as writer:
            for index in range(share.start, share.stop):
                image = split.image(index)
                height, width = image.shape[:2]
                labels = superpixel_labels(image, count_at(share.level, height, width))
                if labels.max() > np.iinfo(np.uint16).max:
                    raise InputError(f"{split.ids[index]}: more than 65536 superpixels; lower patches.S_N")
                packed = pa.compress(labels.astype(np.uint16).tobytes(), codec="zstd", asbytes=True)
                writer.write_batch(pa.record_batch([[height], [width], [packed]], schema=SCHEMA))
        write_side(path, file_digest(path))
    return True


def join_shares(folder: Path, pictures: int, level: int) -> None:
    """Join a level's shares into one file, unless another process did already. One that an earlier version made
    gets its digest.
    """
    target, parts = level_file(folder, level), folder / f"{level}.parts"
    if target.exists() and not parts.exists() and side_file(target).exists():
        return
    with FileLock(folder / f"{level}.lock"):
        if not target.exists():
            side_file(target).unlink(missing_ok=True)
            with whole_file(target) as file, ipc.new_file(file, SCHEMA) as writer:
                for share in shares_of(pictures, level):
                    with pa.memory_map(str(share_file(folder, share))) as source:
                        reader = ipc.open_file(source)
                        for index in range(reader.num_record_batches):
                            writer.write_batch(reader.get_batch(index))
        if not side_file(target).exists():
            write_side(target, file_digest(target))
        shutil.rmtree(parts, ignore_errors=True)
