import numpy as np
import pytest
import torch

from cpn.data.segmentation_samples import collate, scale_flip_crop
from cpn.data.transforms import FILL
from cpn.data.voc import IGNORE

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
LABEL = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6)


def sample(crop: int, scale: float = 1.0, flip: float = 0.0, seed: int = 0):
    return scale_flip_crop(IMAGE, LABEL, crop, (scale, scale), flip, np.random.default_rng(seed))


def test_a_larger_canvas_shows_the_image_on_fill_and_ignore() -> None:
    image, valid, label = sample(8)
    assert image.shape == (8, 8, 3) and valid.shape == label.shape == (8, 8)
    assert valid.sum() == LABEL.size and np.array_equal(label[valid], LABEL.reshape(-1))
    assert np.array_equal(image[valid], IMAGE.reshape(-1, 3))
    assert (label[~valid] == IGNORE).all() and (image[~valid] == FILL).all()


def test_a_flip_mirrors_image_and_label_alike() -> None:
    image, valid, label = sample(8, flip=1.0)
    assert np.array_equal(label[valid], LABEL[:, ::-1].reshape(-1))
    assert np.array_equal(image[valid], IMAGE[:, ::-1].reshape(-1, 3))


@pytest.mark.parametrize("seed", range(5))
def test_a_crop_inside_shows_one_piece_of_both(seed: int) -> None:
    image, valid, label = sample(3, seed=seed)
    row, column = divmod(int(label[0, 0]), 6)
    assert valid.all() and np.array_equal(label, LABEL[row : row + 3, column : column + 3])
    assert np.array_equal(image, IMAGE[row : row + 3, column : column + 3])


def test_a_label_is_scaled_to_the_nearest_pixel() -> None:
    _, valid, label = sample(12, scale=2.0)
    assert valid.sum() == 8 * 12
    assert np.array_equal(label[valid].reshape(8, 12), LABEL.repeat(2, 0).repeat(2, 1))
    _, tiny, _ = sample(4, scale=0.01)
    assert tiny.sum() == 1, "an image never vanishes"


def test_the_arguments_stay_as_they_are() -> None:
    image, label = IMAGE.copy(), LABEL.copy()
    scale_flip_crop(image, label, 4, (0.5, 1.5), 0.5, np.random.default_rng(0))
    assert np.array_equal(image, IMAGE) and np.array_equal(label, LABEL)


def test_a_batch_holds_its_samples_in_order() -> None:
    samples = [sample(4, seed=seed) for seed in range(3)]
    batch = collate(samples)
    assert (batch.images.shape, batch.images.dtype) == ((3, 4, 4, 3), torch.uint8)
    assert (batch.valid.dtype, batch.labels.dtype) == (torch.bool, torch.uint8)
    for at, (image, valid, label) in enumerate(samples):
        assert np.array_equal(batch.images[at], image) and np.array_equal(batch.labels[at], label)
        assert np.array_equal(batch.valid[at], valid)
