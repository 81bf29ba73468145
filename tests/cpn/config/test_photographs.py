"""Real photographs, those that scikit-image brings along: patches, augmentation, CRF and CAM inference at full size."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data

from cpn.config.cam import CamConfig
from cpn.config.crf import CrfConfig
from cpn.config.data import DataConfig
from cpn.config.network import NetworkConfig
from cpn.config.patches import PatchesConfig
from cpn.data.patches import complementary_pair, hidden_mask, superpixel_labels
from cpn.data.transforms import augment, normalise, resize
from cpn.models.network import build_network
from cpn.propagation.crf import crf_scores, dense_crf
from cpn.scoring.cam import multi_scale_maps
from tests.cpn.propagation.test_crf import exact_mean_field


@pytest.fixture(scope="module")
def astronaut() -> NDArray[np.uint8]:
    """A portrait, 512 x 512."""
    return np.asarray(data.astronaut(), np.uint8)


@pytest.fixture(scope="module")
def cat() -> NDArray[np.uint8]:
    """A cat's face, 300 x 451."""
    return np.asarray(data.chelsea(), np.uint8)


def test_superpixels_follow_the_colours_of_a_photograph(astronaut: NDArray[np.uint8]) -> None:
    """About S_N of them, and within one the colour varies far less than within a square of the same area."""
    crop = astronaut[:448, :448]
    labels = superpixel_labels(crop, 200)
    count = labels.max() + 1
    assert 100 <= count <= 240 and np.bincount(labels.ravel()).min() > 0

    def spread(parts: NDArray[np.integer]) -> float:
        sizes = np.bincount(parts.ravel())
        total = 0.0
        for channel in range(3):
            values = crop[..., channel].ravel().astype(float)
            means = np.bincount(parts.ravel(), values) / sizes
            total += ((values - means[parts.ravel()]) ** 2).mean()
        return total

    side = 448 // 14
    rows, columns = np.mgrid[:448, :448] // side
    assert spread(labels) < 0.8 * spread(rows * 14 + columns)


def test_a_training_sample_of_a_photograph(cat: NDArray[np.uint8]) -> None:
    """Long side 448 to 768 at a crop of 448: some padding, and a pair that adds up to the normalised image."""
    rng = np.random.default_rng(1)
    image, valid = augment(cat, DataConfig(), rng)
    assert image.shape == (448, 448, 3) and 0.6 < valid.mean() <= 1
    images = normalise(torch.from_numpy(image[None]), torch.from_numpy(valid[None]))
    assert not images[0, :, ~torch.from_numpy(valid)].any()
    shares = []
    for kind in ("superpixel", "grid"):
        hidden, lam = hidden_mask(image, PatchesConfig.model_validate({"kind": kind}), rng)
        pair = complementary_pair(images, torch.from_numpy(hidden[None]))
        torch.testing.assert_close(pair[0] + pair[1], images)
        assert lam == pytest.approx(1 - hidden.mean())
        shares.append(lam)
    assert 0.5 < shares[0] < 0.72, "the released draw shows 61 % on average"


def test_the_crf_on_a_photograph_is_the_exact_mean_field(cat: NDArray[np.uint8]) -> None:
    """A blurred guess of where the reddish fur is, at 30 x 45 pixels, with the settings of AffinityNet's labels."""
    image = resize(cat, (30, 45))
    red = np.clip((image[..., 0].astype(float) - image[..., 2]) / 120, 0.02, 0.98)
    scores = np.stack([1 - red, red]).astype(np.float32)
    config = CrfConfig()
    refined, exact = dense_crf(image, scores, config), exact_mean_field(image, scores, config)
    assert (refined.argmax(0) == exact.argmax(0)).mean() >= 0.975
    low, high = (crf_scores(image, scores[1:], alpha, config) for alpha in (config.alpha_low, config.alpha_high))
    assert ((low.argmax(0) == 0) >= (high.argmax(0) == 0)).mean() > 0.95, "a lower exponent gives more background"


def test_maps_of_a_photograph_at_four_scales(cat: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    small = {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8}
    network = build_network(NetworkConfig.model_validate(small), 21).eval()
    image = resize(cat, (65, 97))
    maps = multi_scale_maps(network, image, np.array([8, 15]), CamConfig())
    assert maps.shape == (2, 65, 97) and maps.dtype == np.float32
    assert maps.min() == 0 and 0.99 < maps.max() <= 1
    mirrored = multi_scale_maps(network, np.ascontiguousarray(image[:, ::-1]), np.array([8, 15]), CamConfig())
    np.testing.assert_allclose(mirrored[:, :, ::-1], maps, atol=2e-3)
