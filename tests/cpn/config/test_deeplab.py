import pytest

from cpn.config.deeplab import RULED, DeepLabConfig, decided, without_defaults


def test_by_images_leaves_to_the_rule_what_is_not_given() -> None:
    config = DeepLabConfig(schedule="by_images", lr=0.001)
    assert config.lr == 0.001 and {name for name in RULED if getattr(config, name) is None} == set(RULED) - {"lr"}
    assert DeepLabConfig.model_validate(config.model_dump()) == config


def test_without_defaults_keeps_what_somebody_gave() -> None:
    assert without_defaults({"lr": 0.5, "iterations": 20000, "scale": None, "width": 512}) == {"lr": 0.5, "width": 512}


def test_decided_refuses_what_is_open() -> None:
    assert decided(False) is False
    with pytest.raises(AssertionError):
        decided(None)
