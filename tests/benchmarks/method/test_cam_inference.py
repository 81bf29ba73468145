"""Passes one by one come to the maps that mirrored pairs come to."""

import numpy as np
import torch

from benchmarks.method.cam_inference import TOLERANCE, one_by_one
from cpn.config import config_from
from cpn.config.cam import CamConfig
from cpn.models.network import build_network
from cpn.scoring.cam import multi_scale_maps


def test_the_maps_are_the_same() -> None:
    torch.manual_seed(0)
    network = build_network(config_from({"preset": ["official", "scenes"]}, "the test").network, 7).eval()
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3)).astype(np.uint8)
    cam, present = CamConfig(), np.array([2, 5])
    ours, other = multi_scale_maps(network, image, present, cam), one_by_one(network, image, present, cam.scales)
    assert ours.shape == other.shape == (2, 30, 41)
    assert np.abs(ours - other).max() < TOLERANCE
    assert np.abs(ours - one_by_one(network, image, present, cam.scales[:1])).max() > 100 * TOLERANCE
