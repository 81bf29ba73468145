"""What the losses reach: refused where nothing, said where less than expected; test_train.py looks at gradients."""

from typing import Any

import pytest
import torch
from torch import nn

from cpn.config import config_from, with_values
from cpn.config.loss import nothing_trained, untrained_words
from cpn.core.errors import InputError
from cpn.models.network import build_network
from cpn.training.cam_training import freeze_unused
from cpn.training.unreached import unreached

NO_REFINING = {"network.pcm": False, "network.prcm": False}
OWN = {"network.backbone": "tests.cpn.models.test_backbone:OwnBackbone"}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        section, key = name.split(".")
        found.setdefault(section, {})[key] = value
    return found


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"loss.w_cls": 0, "loss.w_tcp": 0, "loss.w_cpcr": 0}, "loss.w_cls: .*no loss has a weight"),
        ({"loss.w_cls": 0, "loss.w_tcp": 0, "loss.w_cpcr": 0, "train.objective": "seam"}, "no loss has a weight"),
        ({"loss.w_cls": 0, "loss.w_tcp": 0, "loss.w_cpcr": 0, "loss.amp_weight": 9.0}, "no loss has a weight"),
        ({"loss.w_cls": 0.0, "loss.w_tcp": 0, "loss.w_cpcr": 0, **NO_REFINING}, "no loss has a weight"),
        ({"loss.w_cls": 0, "loss.w_tcp": 0, **NO_REFINING}, "loss.w_cpcr: .*network.pcm=false and network.prcm=false"),
    ],
)
def test_a_configuration_that_trains_nothing_is_refused_when_it_is_read(values: dict[str, Any], words: str) -> None:
    for read in (
        lambda: config_from(nested(values), "my.yaml"),
        lambda: with_values(config_from({}, "my.yaml"), values, "my.yaml"),
    ):
        with pytest.raises(InputError, match=f"^my.yaml: .*{words}.*give loss.w_cls") as refused:
            read()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, None),
        (NO_REFINING, None),
        ({"train.objective": "classification", "loss.w_cls": 0, "loss.w_tcp": 0, "loss.w_cpcr": 0}, None),
        ({"loss.w_cls": 0, "loss.w_tcp": 0}, "loss.w_cls and loss.w_tcp are 0: backbone and classifier"),
        ({"loss.w_cpcr": 0, "loss.amp_weight": 0, "loss.tcp_refined": False}, "no loss on refined maps has a weight"),
        ({"loss.w_cpcr": 0, "loss.amp_weight": 0, "train.objective": "seam"}, "no loss on refined maps has a weight"),
        ({"loss.w_cls": 0, "loss.w_cpcr": 0}, None),
    ],
)
def test_what_the_weights_leave_untrained_is_said(values: dict[str, Any], words: str | None) -> None:
    config = with_values(config_from({"network": {"backbone": "scene"}}, "test"), values, "test")
    assert nothing_trained(config) is None
    said = untrained_words(config)
    assert said is None if words is None else (said is not None and said.startswith(words))
    assert freeze_unused(build_network(config.network, 3), config) == ([] if said is None else [said])


def test_a_layer_beside_the_top_of_an_own_backbone_is_frozen_and_said() -> None:
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
