"""Counted operations of the CAM network: what a training step and a whole run compute, and how much a network weighs.

torch's FlopCounterMode counts the products of one forward pass on the meta device, which knows shapes and computes no
numbers: a count takes a fraction of a second whatever the network, a user's own backbone among them. What is counted
is a floating-point operation, twice a multiply-accumulate; everything but convolutions and matrix products is left out.
What plans and prices with it loads torch when it counts.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from cpn.config import Config
from cpn.config.network import NetworkConfig
from cpn.config.train import SEAM_SCALE, passes_of
from cpn.core.errors import InputError
from cpn.models.backbone import Backbone
from cpn.scoring.shown_sizes import sizes_at_scales

if TYPE_CHECKING:  # torch is imported where something is counted, so that a finished sweep does without
    from cpn.models.network import CPN

TRAINING_FACTOR = 3
"""Forward and backward beside the forward pass alone: the backward pass computes two products for each of its."""
BRANCHES = {"cpn": 3.0, "pair_classification": 3.0, "seam": 1 + SEAM_SCALE**2, "classification": 1.0}
"""Passes over a training image, by objective; SEAM's second sees it at `SEAM_SCALE` of its side."""
PAIR_PASSES = 3
"""What is scored without masks: the image and its complementary pair, at its own size."""
SMALL = 64
"""Side in pixels at which a network is counted that does not run on the meta device."""


def forward_operations(network: NetworkConfig, classes: int, height: int, width: int) -> float:
    """Return the operations of one image (height, width) through the CAM network with `classes` = C, heads and PCM
    included.

    A user's backbone that cannot run without numbers is counted on the CPU at `SMALL` and scaled by area, which leaves
    out that PCM grows with its square. Raises InputError when there is no such backbone.
    """
    module = _network(network, classes)
    if next(module.parameters()).is_meta:
        return _count(module, height, width)
    return _count(module, SMALL, SMALL) * height * width / SMALL**2


def step_operations(config: Config, classes: int) -> float:
    """Return the operations of one training step: a whole batch, all branches, forward and backward."""
    return config.train.batch_size * _training_operations(config, classes)


def run_operations(config: Config, classes: int, *, trained: int, scored: int, height: int, width: int) -> float:
    """Return the operations of a whole CAM run: `trained` images in a list that an epoch passes once or, by
    `train.epoch_images`, several times; and `scored` images of (height, width) pixels.

    After each epoch the select images, or `cam.epoch_images` of them, are scored in one pass; at the end all scored
    images at every scale and flip, and once more with their complementary pair.
    """
    training = trained * passes_of(config.train, trained) * config.train.epochs * _training_operations(config, classes)
    stride = cast(Backbone, _network(config.network, classes).backbone).stride
    single, *sizes = sizes_at_scales(height, width, [1.0, *config.cam.scales], config.cam, stride)
    once = forward_operations(config.network, classes, *single)
    at_the_end = sum(forward_operations(config.network, classes, *size) for size in sizes) * (1 + config.cam.flip)
    select = (1 - config.cam.confirm_share) * scored
    after_epoch = select if config.cam.epoch_images is None else min(select, config.cam.epoch_images)
    return training + scored * (at_the_end + PAIR_PASSES * once) + after_epoch * config.train.epochs * once


@lru_cache(maxsize=4)
def edge_training_operations(backbone: str, displacement: bool, side: int) -> float:
    """Return the operations of one training image (side, side) of IRN: a frozen backbone, passed forward alone, and
    heads that are trained. `backbone` is one of the shipped ones, which all run on the meta device.
    """
    import torch

    from cpn.propagation.irn_network import IrnNet, PyramidBackbone, pyramid_backbone

    with torch.device("meta"):
        module = pyramid_backbone(backbone)
        network = IrnNet(module, displacement)
        images = torch.zeros(1, 3, side, side)
    frozen = _operations_of(lambda: cast(PyramidBackbone, module).pyramid(images))
    heads = _operations_of(lambda: network(images)) - frozen
    return frozen + TRAINING_FACTOR * heads


def stored_bytes(network: NetworkConfig, classes: int) -> int:
    """Return the bytes of the CAM network's weights and buffers as a model file holds them."""
    return sum(t.numel() * t.element_size() for t in _network(network, classes).state_dict().values())


def _training_operations(config: Config, classes: int) -> float:
    """Return the operations of one training image, all branches, forward and backward."""
    crop = config.data.crop
    forward = forward_operations(config.network, classes, crop, crop)
    return BRANCHES[config.train.objective] * TRAINING_FACTOR * forward


@lru_cache(maxsize=4)
def _network(config: NetworkConfig, classes: int) -> "CPN":
    """Build the network in eval mode on the meta device, or on the CPU where a user's backbone needs numbers."""
    import torch

    from cpn.models.network import build_network

    try:
        with torch.device("meta"):
            network = build_network(config, classes).eval()
        _count(network, SMALL, SMALL)
    except (RuntimeError, InputError):  # what is wrong on the CPU too is said there
        network = build_network(config, classes).eval()
    return network


@lru_cache(maxsize=256)
def _count(network: "CPN", height: int, width: int) -> float:
    import torch

    device = next(network.parameters()).device
    return _operations_of(lambda: network(torch.zeros(1, 3, height, width, device=device)))


def _operations_of(forward: Callable[[], object]) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward()
    return float(counter.get_total_flops())
