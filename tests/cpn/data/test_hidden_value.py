"""What hidden pixels show: nothing for the mean, the image without its details, or noise of the images' own spread."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data as photographs

from cpn.core.opencv import cv2
from cpn.data.hidden_value import blurred, hidden_picture, noise
from cpn.data.transforms import MEAN, STD


def test_the_mean_needs_no_picture_and_draws_nothing() -> None:
    rng = np.random.default_rng(4)
    image = np.zeros((5, 6, 3), np.uint8)
    assert hidden_picture(image, "mean", rng) is None and hidden_picture(image, "blur", rng) is not None
    assert rng.random() == np.random.default_rng(4).random()


def test_a_sharp_border_becomes_the_integral_of_the_gaussian() -> None:
    """Black before column 32, white from there. At 64 pixels sigma is 4, so that column c has Phi((c - 31.5) / 4)."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    row = blurred(image)[32, :, 1] / 255
    for column, share in ((27, 0.130), (31, 0.450), (32, 0.550), (35, 0.809), (39, 0.970)):
        assert row[column] == pytest.approx(share, abs=0.01)


def test_the_short_way_is_the_gaussian_of_the_whole_picture() -> None:
    picture = np.ascontiguousarray(np.asarray(photographs.chelsea(), np.uint8)[:224, :448])
    exact = cv2.GaussianBlur(picture, (0, 0), 28.0)
    off = np.abs(blurred(picture).astype(int) - exact)
    assert off.mean() < 1 and off.max() <= 8
    assert np.abs(picture.astype(int) - exact).mean() > 10


@given(height=st.integers(1, 90), width=st.integers(1, 90), colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_a_flat_picture_stays_what_it_is(height: int, width: int, colour: tuple[int, int, int]) -> None:
    image = np.full((height, width, 3), colour, np.uint8)
    soft = blurred(image)
    assert soft.shape == image.shape and soft.dtype == np.uint8
    assert np.abs(soft.astype(int) - image).max() <= 1


def test_noise_has_mean_and_spread_and_no_neighbours() -> None:
    drawn = noise(300, 200, np.random.default_rng(0)) / 255
    assert drawn.shape == (300, 200, 3)
    # Cut off at both ends, a Gaussian loses a few per cent of its spread.
    assert drawn.mean(axis=(0, 1)) == pytest.approx(MEAN, abs=0.004)
    assert drawn.std(axis=(0, 1)) == pytest.approx(STD, rel=0.06)
    for other in (drawn[1:, :, 0], drawn[:-1, :, 1]):
        assert abs(np.corrcoef(drawn[:-1, :, 0].ravel(), other.ravel())[0, 1]) < 0.02


def test_noise_follows_the_generator_alone() -> None:
    image = np.zeros((8, 9, 3), np.uint8)
    first, again, other = (
        hidden_picture(image + n, "noise", np.random.default_rng(s)) for n, s in ((0, 1), (9, 1), (0, 2))
    )
    assert first is not None and np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_image_is_not_written_into() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 100, 3), np.uint8)
    image.setflags(write=False)
    for kind in ("blur", "noise"):
        hidden_picture(image, kind, np.random.default_rng(0))  # type: ignore[arg-type]
