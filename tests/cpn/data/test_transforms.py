import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cpn.config.data import DataConfig
from cpn.core.errors import InputError
from cpn.data.transforms import (
    FILL,
    MEAN,
    STD,
    CropBox,
    augment,
    colour_jitter,
    normalise,
    place,
    random_crop,
    resize,
    resize_for_training,
    scaled_size,
    shift_hue,
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_place_by_hand() -> None:
    array = np.arange(6).reshape(2, 3)
    # Rows are padded at the top, columns 1 and 2 are taken.
    box = CropBox(crop=3, top=0, left=1, canvas_top=1, canvas_left=0, height=2, width=2)
    assert place(array, box, 9).tolist() == [[9, 9, 9], [1, 2, 9], [4, 5, 9]]
    assert place(np.stack([array, array], -1), box, (7, 8))[0, 0].tolist() == [7, 8]
    assert place(array > 2, box, False).dtype == np.bool_


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_crop_takes_as_much_of_the_picture_as_fits(height: int, width: int, crop: int, seed: int) -> None:
    box = random_crop(height, width, crop, np.random.default_rng(seed))
    marked = np.arange(1, height * width + 1).reshape(height, width)
    canvas = place(marked, box, 0)
    assert canvas.shape == (crop, crop)
    seen = canvas[canvas > 0]
    assert len(seen) == min(height, crop) * min(width, crop) and len(np.unique(seen)) == len(seen)


def test_crop_reaches_both_ends() -> None:
    rng = np.random.default_rng(0)
    boxes = [random_crop(10, 6, 8, rng) for _ in range(200)]
    assert {box.top for box in boxes} == {0, 1, 2} and {box.canvas_left for box in boxes} == {0, 1, 2}
    assert {box.canvas_top for box in boxes} == {0} == {box.left for box in boxes}


def test_scaled_size_rounds_the_shorter_side() -> None:
    assert scaled_size(375, 500, 448) == (336, 448)
    assert scaled_size(500, 333, 768) == (768, 511)
    assert scaled_size(1, 500, 100) == (1, 100)


@pytest.mark.parametrize("size", [(11, 15), (40, 71), (20, 15), (23, 30), (1, 1)])
def test_resize_is_pil_bicubic(size: tuple[int, int]) -> None:
    image = picture(20, 30)
    expected = np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
    assert (resize(image, size) == expected).all()
    difference = np.abs(resize_for_training(image, size) - expected)
    assert difference.max() <= 2 and (difference > 0).mean() < 0.03


@pytest.mark.parametrize("resizes", [resize, resize_for_training])
def test_nothing_is_resized_to_nothing(resizes: Callable[..., np.ndarray]) -> None:
    with pytest.raises(InputError, match="resized to 0x5 pixels: raise data.long_side"):
        resizes(picture(20, 30), (5, 0))


def test_resize_to_the_same_size_is_a_copy() -> None:
    image = picture(5, 6)
    same = resize(image, (5, 6))
    assert (same == image).all() and not np.shares_memory(same, image)


def test_hue_against_colorsys() -> None:
    for rgb in ((200, 40, 40), (30, 180, 90), (10, 60, 220)):
        turned = shift_hue(np.full((1, 1, 3), rgb, np.uint8), 0.25)[0, 0]
        h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in rgb))
        expected = np.array(colorsys.hsv_to_rgb((h + 0.25) % 1, s, v)) * 255
        assert np.abs(turned - expected).max() <= 8  # a step of 8-bit hue is 1.4 degrees, about 4 grey levels
        back = shift_hue(np.full((1, 1, 3), rgb, np.uint8), -0.25)[0, 0]
        expected = np.array(colorsys.hsv_to_rgb((h - 0.25) % 1, s, v)) * 255
        assert np.abs(back - expected).max() <= 8


def test_brightness_alone_scales_grey_levels() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    seen = [int(colour_jitter(image, (0.3, 0, 0, 0), np.random.default_rng(i))[0, 0, 0]) for i in range(300)]
    assert min(seen) >= 70 and max(seen) <= 130 and min(seen) < 75 and max(seen) > 125


def test_contrast_and_saturation_leave_a_grey_picture() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    assert (colour_jitter(image, (0, 0.5, 0.5, 0), np.random.default_rng(0)) == 100).all()


def test_saturation_by_hand() -> None:
    image = np.zeros((1, 1, 3), np.uint8)
    image[...] = (200, 100, 50)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    out = colour_jitter(image, (0, 0, 0.3, 0), np.random.default_rng(4))[0, 0].astype(float)
    factor = (out[0] - luma) / (200 - luma)
    assert 0.7 <= factor <= 1.3 and abs(factor - 1) > 0.02
    np.testing.assert_allclose(out, luma + factor * (np.array([200, 100, 50]) - luma), atol=1.5)


def test_steps_come_in_random_order() -> None:
    # The steps clip and round, so the same factors in another order give another picture.
    class Fixed:
        def __init__(self, order: list[int]) -> None:
            self.order = order

        def uniform(self, low: float, high: float) -> float:
            return high

        def permutation(self, count: int) -> list[int]:
            assert count == 4
            return self.order

    image = picture(6, 6)
    first = colour_jitter(image, (0.3, 0.3, 0.3, 0.1), Fixed([0, 1, 2, 3]))  # type: ignore[arg-type]
    second = colour_jitter(image, (0.3, 0.3, 0.3, 0.1), Fixed([3, 2, 1, 0]))  # type: ignore[arg-type]
    assert (first != second).any()


def test_no_jitter_is_identity_and_bad_strengths_are_named() -> None:
    image = picture(6, 7)
    assert (colour_jitter(image, (0, 0, 0, 0), np.random.default_rng(0)) == image).all()
    with pytest.raises(InputError, match=r"data.jitter is \[0.3, 0.3, 0.3, 0.9\].*hue in 0 to .5"):
        colour_jitter(image, (0.3, 0.3, 0.3, 0.9), np.random.default_rng(0))


def test_augment_is_repeatable_and_leaves_its_input() -> None:
    image, config = picture(40, 60), DataConfig(crop=48, long_side=(32, 64))
    kept = image.copy()
    first, valid = augment(image, config, np.random.default_rng(1))
    again, _ = augment(image, config, np.random.default_rng(1))
    other, _ = augment(image, config, np.random.default_rng(2))
    assert (image == kept).all() and (first == again).all() and (first != other).any()
    assert first.shape == (48, 48, 3) and first.dtype == np.uint8 and valid.shape == (48, 48)
    assert (first[~valid] == FILL).all()


def test_augment_pads_or_cuts_according_to_the_long_side() -> None:
    image = picture(40, 60)
    for index in range(20):
        _, valid = augment(image, DataConfig(crop=48, long_side=(30, 30)), np.random.default_rng(index))
        assert valid.sum() == 20 * 30
        _, valid = augment(image, DataConfig(crop=16, long_side=(30, 30)), np.random.default_rng(index))
        assert valid.all()


def test_augment_draws_both_ends_of_the_long_side() -> None:
    image, config = np.zeros((10, 10, 3), np.uint8), DataConfig(crop=32, long_side=(20, 22))
    rng = np.random.default_rng(0)
    sizes = {int(augment(image, config, rng)[1].sum()) for _ in range(60)}
    assert sizes == {400, 441, 484}


def test_flip() -> None:
    image = picture(16, 16)
    plain = dict(crop=16, long_side=(16, 16), jitter=(0.0, 0.0, 0.0, 0.0))
    rng = np.random.default_rng(0)
    assert (augment(image, DataConfig(**plain, flip=1.0), rng)[0] == image[:, ::-1]).all()
    assert (augment(image, DataConfig(**plain, flip=0.0), rng)[0] == image).all()


def test_normalise_by_hand() -> None:
    images = torch.tensor([[[[0, 128, 255], [10, 20, 30]]]], dtype=torch.uint8)
    out = normalise(images, torch.tensor([[[True, False]]]))
    assert out.shape == (1, 3, 1, 2) and out.dtype == torch.float32
    expected = [(v / 255 - m) / s for v, m, s in zip((0, 128, 255), MEAN, STD, strict=True)]
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor(expected))
    assert (out[0, :, 0, 1] == 0).all()
    torch.testing.assert_close(normalise(images)[..., 0], out[..., 0])
    assert (normalise(images)[..., 1] != 0).all()


def test_the_fill_is_the_mean_colour() -> None:
    out = normalise(torch.tensor(FILL, dtype=torch.uint8).reshape(1, 1, 1, 3))
    assert out.abs().max() < 0.5 / 255 / min(STD)


def test_normalise_refuses_other_layouts() -> None:
    with pytest.raises(ValueError, match="images are uint8"):
        normalise(torch.zeros(1, 3, 4, 4))
