"""The pipeline of PIL and float32 shows the crop that ours shows, and hides the same pixels."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.method.loader_vs_pil import pil_jitter, pil_sample
from benchmarks.method.superpixel_vs_grid import samples_of
from benchmarks.photos.free_photographs import NAMES, encoded, photograph, photographs
from cpn.data.transforms import STD, normalise


def test_one_sample_is_the_same_but_for_grey_levels(tmp_path: Path) -> None:
    samples = samples_of(photographs(tmp_path / "voc"), tmp_path, kind="grid")
    image, valid, hidden, *_ = samples[(3, 1)]
    theirs, their_hidden = pil_sample(encoded(photograph(NAMES[1])), np.random.default_rng([0, 3, 1]))
    mine = normalise(torch.from_numpy(image[None]), torch.from_numpy(valid[None]))[0].numpy()
    levels = np.abs(mine - theirs) * 255 * np.float32(STD)[:, None, None]
    assert levels[:, valid].mean() < 2 and (theirs[:, ~valid] == 0).all()
    np.testing.assert_array_equal(hidden, their_hidden)
    other, _ = pil_sample(encoded(photograph(NAMES[1])), np.random.default_rng([0, 3, 2]))
    assert np.abs(other - theirs).mean() > 0.1  # other numbers, another crop


def test_without_strength_nothing_is_jittered() -> None:
    from PIL import Image

    picture = Image.fromarray(photograph("chelsea"))
    same = pil_jitter(picture, (0, 0, 0, 0), np.random.default_rng(0))
    assert np.abs(np.asarray(same, int) - np.asarray(picture, int)).mean() < 2  # HSV and back loses a little
