"""Whole training samples through the real loader, against a pipeline of PIL and float32 as the released scripts have.

    python -m benchmarks loader_vs_pil --json

Photographs of 500 pixels, crops of 448, grid patches, up to the stacked batch that a step takes: ours in bytes, which
the device normalises; with `ratio_normalised` it is normalised here, as a step on the CPU has it. The usual way: decode
with PIL, resize, flip, jitter with PIL's enhancers and HSV, normalise the whole image in float32, crop into a canvas
of zeros, hide patches cell by cell. Both draw the same numbers, so both show the same crop: `equal` is that ours,
normalised, differs from it by less than 2 grey levels on average in every sample (`worst_mean`), and hides the same
pixels; `most_grey_levels` is the largest difference of any pixel. Nearly all of it is the hue step: PIL cuts hue and
saturation off to whole steps, ours rounds. The resize has the same kernel in both. What the difference does to mIoU on
scenes: `python -m benchmarks fast_forms --forms pictures`.
"""

import argparse
import io
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import Comparison, take_turns

if TYPE_CHECKING:
    from PIL import Image

    from cpn.data.voc import Split

CROP, CELLS, P_H = 448, (56, 112), 0.5
JITTER = (0.3, 0.3, 0.3, 0.1)


def pil_jitter(picture: "Image.Image", strengths: Sequence[float], rng: Any) -> "Image.Image":
    """`cpn.data.transforms.colour_jitter` with PIL's enhancers and its HSV, from the same numbers."""
    import numpy as np
    from PIL import Image, ImageEnhance

    factors = [float(rng.uniform(1 - s, 1 + s)) for s in strengths[:3]]
    shift = float(rng.uniform(-strengths[3], strengths[3]))
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for step in rng.permutation(4):
        if step < 3:
            picture = enhancers[step](picture).enhance(factors[step])
        else:
            hue, saturation, value = picture.convert("HSV").split()
            turned = (np.asarray(hue, np.int16) + int(shift * 255)) % 256
            channels = (Image.fromarray(turned.astype(np.uint8)), saturation, value)
            picture = Image.merge("HSV", channels).convert("RGB")
    return picture


def pil_sample(data: bytes, rng: Any) -> tuple[Any, Any]:
    """One sample the usual way: normalised float32 (3, 448, 448), hidden bool (448, 448)."""
    import numpy as np
    from PIL import Image

    from cpn.data.transforms import MEAN, STD

    picture = Image.open(io.BytesIO(data)).convert("RGB")
    scale = int(rng.integers(448, 769)) / max(picture.size)
    picture = picture.resize(tuple(max(1, round(side * scale)) for side in picture.size), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = pil_jitter(picture, JITTER, rng)
    pixels = (np.asarray(picture).astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    canvas = np.zeros((CROP, CROP, 3), np.float32)
    taken, put = [], []
    for length in pixels.shape[:2]:
        there = min(length, CROP)
        start = int(rng.integers(abs(length - CROP) + 1))
        taken.append(slice(start, start + there) if length >= CROP else slice(0, there))
        put.append(slice(0, there) if length >= CROP else slice(start, start + there))
    canvas[put[0], put[1]] = pixels[taken[0], taken[1]]
    side = int(rng.choice(CELLS))
    hidden = np.zeros((CROP, CROP), bool)
    across = math.ceil(CROP / side)
    drawn = rng.random(across * across) <= P_H
    for cell in range(across * across):
        top, left = cell // across * side, cell % across * side
        hidden[top : top + side, left : left + side] = drawn[cell]
    return canvas.transpose(2, 0, 1).copy(), hidden


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Check and time."""
    import numpy as np
    import torch

    from benchmarks.method.superpixel_vs_grid import samples_of
    from benchmarks.photos.free_photographs import encoded, photograph, photographs
    from cpn.data.loader import collate
    from cpn.data.transforms import STD, normalise

    torch.set_num_threads(1)
    rounds, epochs = (2, 1) if options.quick else (5, 3)
    with tempfile.TemporaryDirectory() as folder:
        split: Split = photographs(Path(folder) / "voc")
        samples = samples_of(split, Path(folder), kind="grid")
        files = [encoded(photograph(name.rsplit("_", 1)[0])) for name in split.ids]

        def usual(at: int, index: int) -> tuple[Any, Any]:
            return pil_sample(files[index], np.random.default_rng([0, at, index]))

        mean, most, same = [], 0.0, True
        for at in range(epochs):
            for index in range(len(split)):
                image, valid, hidden, *_ = samples[(at, index)]
                theirs, their_hidden = usual(at, index)
                mine = normalise(torch.from_numpy(image[None]), torch.from_numpy(valid[None]))[0].numpy()
                levels = np.abs(mine - theirs) * 255 * np.float32(STD)[:, None, None]
                mean.append(float(levels[:, valid].mean()))
                most = max(most, float(levels.max()))
                same = same and np.array_equal(hidden, their_hidden)

        def our_batches(normalised: bool) -> None:
            for at in range(epochs):
                batch = collate([samples[(at, index)] for index in range(len(split))])
                if normalised:
                    normalise(batch.images, batch.valid)

        def usual_batches() -> None:
            for at in range(epochs):
                stacked = zip(*(usual(at, index) for index in range(len(split))), strict=True)
                for arrays in stacked:
                    torch.from_numpy(np.stack(arrays))

        ours, other = take_turns(lambda: our_batches(False), usual_batches, rounds)
        on_cpu, _ = take_turns(lambda: our_batches(True), lambda: None, rounds)
    worst = max(mean)
    more = {
        "ratio_normalised": on_cpu / other,
        "mean_grey_levels": sum(mean) / len(mean),
        "worst_mean": worst,
        "most_grey_levels": most,
    }
    per = epochs * len(files)
    return Comparison(ours / per, other / per, "CPU s a sample", same and worst < 2, 1 / 3, more).result()
