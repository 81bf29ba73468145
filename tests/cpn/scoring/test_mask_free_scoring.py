"""Scores without masks of an image: the agreement by hand, the hidden cells, the size shown."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cpn.config.cam import CamConfig
from cpn.config.network import NetworkConfig
from cpn.data.transforms import resize
from cpn.models.network import build_network
from cpn.scoring.mask_free_scoring import agreement, hidden_cells, image_scores

NETWORK = NetworkConfig(backbone="scene", stage3_channels=6, stage4_channels=7, correlation_channels=8)


def test_agreement_by_hand() -> None:
    whole = torch.tensor([[[1.0, 0.5]], [[0.0, 0.0]]])
    shown, rest = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]]), torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]])
    # lam = .25: the pair gives .25, .75. Gap .75 + .25 = 1 over mass 1.25 + 1.25: 1 - 1/2.5 = .6; empty maps: 0.
    assert agreement(whole, shown, rest, 0.25) == pytest.approx((0.6 + 0) / 2)
    assert agreement(whole[:1], whole[:1], whole[:1], 0.3) == pytest.approx(1)
    assert agreement(whole[:1], shown[1:], rest[1:], 0.5) == pytest.approx(0)
    small = agreement(whole[:1] / 10, shown[:1] / 10, rest[:1] / 10, 0.25)
    assert small == pytest.approx(0.6)  # small maps don't agree better


def test_the_hidden_cells_are_fixed() -> None:
    hidden = hidden_cells(32, 48, "2007_000001")
    assert hidden.shape == (32, 48) and 0.2 < hidden.mean() < 0.8
    blocks = hidden.reshape(8, 4, 12, 4)
    assert (blocks == blocks[:, :1, :, :1]).all()  # cells of 4 pixels
    np.testing.assert_array_equal(hidden, hidden_cells(32, 48, "2007_000001"))
    assert (hidden != hidden_cells(32, 48, "2007_000002")).any()
    assert hidden_cells(3, 5, "tiny").shape == (3, 5)


def test_aligned_sizes_are_those_of_the_aligned_image() -> None:
    """30 x 31 pixels are shown as 29 x 33."""
    torch.manual_seed(0)
    network = build_network(NETWORK, 4).eval()
    image = np.random.default_rng(0).integers(0, 256, (30, 31, 3), dtype=np.uint8)
    labels = np.array([1, 0, 1], np.float32)

    def split(picture: np.ndarray) -> Any:
        return SimpleNamespace(image=lambda _: picture, ids=["a"], labels=[labels])

    plain, aligned = CamConfig(), CamConfig(sizes="aligned")
    scores, agreed = image_scores(network, split(image), 0, aligned)
    expected, expected_agreed = image_scores(network, split(resize(image, (29, 33))), 0, plain)
    np.testing.assert_array_equal(scores, expected)
    assert agreed == expected_agreed and not np.array_equal(scores, image_scores(network, split(image), 0, plain)[0])
