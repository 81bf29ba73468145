"""Parameters that no loss reaches: frozen, and named in one line."""

from typing import Any

import pytest
import torch
from torch import nn

from cpn.config import config_from, with_values
from cpn.config.loss import untrained_words
from cpn.models.network import build_network
from cpn.training.cam_training import freeze_unused
from cpn.training.unreached import unreached

OWN = {"network.backbone": "tests.cpn.models.test_backbone:OwnBackbone"}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"loss.w_cls": 0, "loss.w_tcp": 0},
        {"loss.w_cpcr": 0, "loss.amp_weight": 0, "train.objective": "seam"},
    ],
)
def test_freezing_says_what_the_weights_leave_untrained(values: dict[str, Any]) -> None:
    config = with_values(config_from({"network": {"backbone": "scene"}}, "test"), values, "test")
    words = untrained_words(config)
    assert (words is not None) == bool(values)
    assert freeze_unused(build_network(config.network, 3), config) == ([] if words is None else [words])


def test_a_layer_beside_the_top_is_frozen_and_said() -> None:
    config = with_values(config_from({"data": {"crop": 32}}, "test"), OWN, "test")
    network = build_network(config.network, 3).train()
    state = torch.get_rng_state()
    (line,) = freeze_unused(network, config)
    assert torch.equal(torch.get_rng_state(), state) and network.training
    assert line.startswith("network.backbone: its top is not made of 2 parameters (layers.1.weight, layers.1.bias)")
    assert {n for n, p in network.backbone.named_parameters() if p.requires_grad} == {
        "layers.2.weight",
        "layers.2.bias",
    }
    assert all(p.grad is None for p in network.parameters())
    assert freeze_unused(network, config) == []


def test_a_backbone_of_constants_has_nothing_to_lose() -> None:
    config = with_values(config_from({"data": {"crop": 32}}, "test"), OWN, "test")
    network = build_network(config.network, 3)
    network.backbone.requires_grad_(False)
    assert unreached(network, 32) == []
    assert isinstance(network.backbone, nn.Module)
