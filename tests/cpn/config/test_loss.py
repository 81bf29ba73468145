"""The section `loss`, and what its weights reach; tests/cpn/training/test_cam_training.py looks at gradients."""

from typing import Any

import pytest

from cpn.config import config_from, with_values
from cpn.config.loss import LossConfig, Reach, nothing_trained, reach_of, untrained_words
from cpn.core.errors import InputError
from tests.cpn.config.sections import official, refusal

NO_REFINING = {"network.pcm": False, "network.prcm": False}


def test_the_defaults_are_the_released_values() -> None:
    assert official("loss") == {
        "w_cls": 1.0,
        "w_tcp": 1.0,
        "w_cpcr": 1.0,
        "amp_weight": 1.0,
        "tcp_refined": True,
        "tcp_refined_detach": False,
        "normalise_refined": True,
        "onehot_target": True,
        "ohem_ratio": 0.2,
        "ohem_scope": "image",
        "background": "after_lambda",
        "norm": "min_max",
        "alpha": 1.0,
        "ramp": 0.0,
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"w_cls": -1}, "loss.w_cls: Input should be greater than or equal to 0, given -1"),
        ({"w_tcp": -1}, "loss.w_tcp: Input should be greater than or equal to 0, given -1"),
        ({"w_cpcr": -1}, "loss.w_cpcr: Input should be greater than or equal to 0, given -1"),
        ({"amp_weight": -1}, "loss.amp_weight: Input should be greater than or equal to 0, given -1"),
        ({"ohem_ratio": 0}, "loss.ohem_ratio: Input should be greater than 0, given 0"),
        ({"ohem_ratio": 1.1}, "loss.ohem_ratio: Input should be less than or equal to 1, given 1.1"),
        ({"ohem_scope": "worker"}, "loss.ohem_scope: Input should be 'image' or 'batch', given 'worker'"),
        ({"background": "never"}, "loss.background: Input should be 'after_lambda' or 'before_lambda', given 'never'"),
        ({"norm": "min"}, "loss.norm: Input should be 'min_max' or 'max', given 'min'"),
        ({"alpha": 0}, "loss.alpha: Input should be greater than 0, given 0"),
        ({"ramp": 1.1}, "loss.ramp: Input should be less than or equal to 1, given 1.1"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], words: str) -> None:
    assert refusal("loss", values).startswith(words)


@pytest.mark.parametrize(
    ("values", "objective", "refining", "reach"),
    [
        ({}, "cpn", True, (True, True)),
        ({}, "cpn", False, (True, False)),
        ({}, "classification", True, (True, False)),
        ({"w_cls": 0, "w_tcp": 0, "w_cpcr": 0}, "pair_classification", True, (True, False)),
        ({"w_cls": 0, "w_tcp": 0}, "cpn", True, (False, True)),
        ({"w_tcp": 0, "w_cpcr": 0}, "cpn", True, (True, True)),  # AMP is on refined maps
        ({"w_tcp": 0, "w_cpcr": 0, "amp_weight": 0}, "cpn", True, (True, False)),
        ({"w_cls": 0, "w_cpcr": 0}, "cpn", True, (True, True)),  # the second line of Eq. 14 is
        ({"w_cls": 0, "w_cpcr": 0, "tcp_refined": False}, "cpn", True, (True, False)),
        ({"w_cls": 0, "w_cpcr": 0}, "seam", True, (True, False)),  # SEAM has no such line
    ],
)
def test_a_weight_reaches_the_maps_that_its_loss_is_on(
    values: dict[str, Any], objective: Any, refining: bool, reach: tuple[bool, bool]
) -> None:
    assert reach_of(LossConfig(**values), objective, refining) == Reach(*reach)


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
def test_a_configuration_that_trains_nothing_is_refused(values: dict[str, Any], words: str) -> None:
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
    line = untrained_words(config)
    assert line is None if words is None else (line is not None and line.startswith(words))
