"""Training samples with superpixels through the real loader, against the same samples with grid cells.

    python -m benchmarks superpixel_vs_grid --json

Photographs of 500 pixels, crops of 448 with the preset's whole augmentation, S_N 200 and 1000 (`ratio` is the larger of
the two), after the maps were made: `build_ms_200` and `_1000` are what making one image's maps of all levels costs,
`levels_200` and `_1000` how many that are. `ours_on_crop` is a sample with SLIC on the crop, as released
(`patches.slic_on: crop`); the paper's times are 1.45 s against 0.006 s for the patches alone.

`equal`: images, padding and labels are those of the grid's samples, and the median number of patches in a crop, over
`crops` of them spread evenly over the augmentation's scales, is within 15 % of that of SLIC on the same crops, at S_N
50, 200 and 1000 (`count_50` and so on: the medians' ratios). At a single scale it may be further off, as levels are 1.5
apart: `furthest_50` is the ratio that is furthest from 1, `furthest_50_at` its scale, as the long side.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import Comparison, take_turns

if TYPE_CHECKING:
    from cpn.data.voc import Split

TIMED, COUNTED = (200, 1000), (50, 200, 1000)
MOST_OFF = 0.15
LONG_SIDES = range(448, 769, 32)
"""The scales at which patches are counted: evenly from one end of the augmentation to the other."""

Pairs = tuple[list[int], list[int]]
"""Patches in some crops: from the maps, and by SLIC on the crop."""


def samples_of(split: "Split", cache: Path, **patches: Any) -> Any:
    """The product's training samples under these settings of `patches`, their maps made."""
    from cpn.config import config_from
    from cpn.data.loader import TrainingSamples
    from cpn.data.superpixels import maps_for

    config = config_from({"data": {"train": "train", "workers": 0}, "patches": patches}, "the benchmark")
    return TrainingSamples(split, config.data, config.patches, 0, maps_for(config, split, cache))


def epoch(samples: Any, epochs: int) -> None:
    """Every sample of some epochs."""
    for at in range(epochs):
        for index in range(len(samples)):
            samples[(at, index)]


def counts(samples: Any, S_N: int, long_side: int, epochs: int) -> Pairs:
    """Patches in each crop of images scaled to `long_side`: from the maps, and by SLIC on the crop."""
    import numpy as np

    from cpn.data.patches import superpixel_labels
    from cpn.data.transforms import augment_and_tell

    data = samples.data.model_copy(update={"long_side": (long_side, long_side)})
    ours, slic = [], []
    for at in range(epochs):
        for index in range(len(samples)):
            rng = np.random.default_rng([samples.seed, at, index])
            image, _, view = augment_and_tell(samples.split.image(index), data, rng)
            ours.append(len(np.unique(samples.superpixels.of_sample(index, view, S_N))))
            slic.append(int(superpixel_labels(image, S_N).max()) + 1)
    return ours, slic


def ratio_of_medians(sides: Iterable[Pairs]) -> float:
    """The median of the first over that of the second, over all crops together."""
    ours, slic = zip(*sides, strict=True)
    return statistics.median(chain(*ours)) / statistics.median(chain(*slic))


def furthest(by_side: Mapping[int, Pairs]) -> tuple[int, float]:
    """Of the scales' ratios the one that is furthest from 1, above or below, after its scale."""
    ratios = {side: ratio_of_medians([pairs]) for side, pairs in by_side.items()}
    at = max(ratios, key=lambda side: abs(ratios[side] - 1))
    return at, ratios[at]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time samples and count patches."""
    import numpy as np

    from benchmarks.photos.free_photographs import photographs
    from cpn.data.superpixels import levels_of, make_share, maps_folder, shares_of

    rounds, epochs, counted = (2, 1, 1) if options.quick else (5, 3, 3)
    more: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        split = photographs(root / "voc")
        grid = samples_of(split, root, kind="grid")
        fair, pairs = True, []
        more["crops"] = counted * len(split) * len(LONG_SIDES)
        for S_N in COUNTED:
            samples = samples_of(split, root, S_N=S_N)
            by_side = {side: counts(samples, S_N, side, counted) for side in LONG_SIDES}
            more[f"count_{S_N}"] = ratio_of_medians(by_side.values())
            more[f"furthest_{S_N}_at"], more[f"furthest_{S_N}"] = furthest(by_side)
            fair = fair and abs(more[f"count_{S_N}"] - 1) <= MOST_OFF
            if S_N not in TIMED:
                continue
            levels, began = levels_of(samples.patches, samples.data), time.process_time()
            for level in levels:
                make_share(root / f"alone{S_N}", split, shares_of(len(split), level)[0])
            more[f"build_ms_{S_N}"] = 1000 * (time.process_time() - began) / len(split)
            more[f"levels_{S_N}"] = len(levels)
            pairs.append(take_turns(lambda s=samples: epoch(s, epochs), lambda: epoch(grid, epochs), rounds))
            for one, other in zip(samples[(0, 1)], grid[(0, 1)], strict=True):
                same = np.array_equal(one, other)
                fair = fair and (same or np.asarray(one).dtype == bool or np.ndim(one) == 0)
            fair = fair and np.array_equal(samples[(0, 1)][1], grid[(0, 1)][1])
        files = list(maps_folder(root, split).glob("*.arrow"))
        more["kilobytes_a_map"] = sum(f.stat().st_size for f in files) / len(files) / len(split) / 1000
        crop = samples_of(split, root, S_N=200, slic_on="crop")
        began = time.process_time()
        epoch(crop, 1)
        more["ours_on_crop"] = (time.process_time() - began) / len(split)
    per_sample = epochs * len(split)
    slowest = max(pairs, key=lambda pair: pair[0] / pair[1])
    more |= {f"ratio_{S_N}": a / b for S_N, (a, b) in zip(TIMED, pairs, strict=True)}
    ours_s, other_s = (seconds / per_sample for seconds in slowest)
    return Comparison(ours_s, other_s, "CPU s a sample", fair, 1.5, more).result()
