import pytest

from cpn.config.crf import CrfConfig
from cpn.config.irn import IrnConfig, LabelCrfConfig
from tests.cpn.config.sections import official, refusal


def test_the_defaults_are_the_released_values() -> None:
    values = official("irn")
    crf = {name.removeprefix("crf."): values.pop(name) for name in list(values) if name.startswith("crf.")}
    assert values == {
        "backbone": None,
        "weights": None,
        "map_power": 1.0,
        "fg_threshold": 0.3,
        "bg_threshold": 0.05,
        "gt_prob": 0.7,
        "radius": 10,
        "displacement": True,
        "epochs": 3,
        "batch_size": 32,
        "crop": 512,
        "scale": [0.5, 1.5],
        "flip": 0.5,
        "optimizer": "sgd",
        "lr": 0.1,
        "displacement_lr_factor": 10.0,
        "weight_decay": 1e-4,
        "sgd_momentum": 1e-4,
        "poly_power": 0.9,
        "walk_radius": 5,
        "walk_beta": 10.0,
        "walk_logt": 8,
        "walk_threshold": 0.25,
    }
    assert crf == CrfConfig().model_dump() | {"sxy_bilateral": 50.0, "srgb_bilateral": 5.0}


def test_one_value_of_the_crf_leaves_the_others_as_released() -> None:
    assert IrnConfig.model_validate({"crf": {"iterations": 2}}).crf == LabelCrfConfig(iterations=2)
    assert LabelCrfConfig(iterations=2).sxy_bilateral == 50


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fg_threshold": 0.1, "bg_threshold": 0.2}, "irn: bg_threshold 0.2 is above fg_threshold 0.1: lower it"),
        ({"scale": [1.5, 0.5]}, "irn: scale is [1.5, 0.5]: give [smallest, largest] factor"),
        ({"scale": [0, 0.5]}, "irn: scale is [0.0, 0.5]: give [smallest, largest] factor"),
        ({"gt_prob": 1.0}, "irn.gt_prob: Input should be less than 1, given 1.0"),
        ({"map_power": 0}, "irn.map_power: "),
        ({"radius": 1}, "irn.radius: Input should be greater than or equal to 2, given 1"),
        ({"walk_radius": 1}, "irn.walk_radius: Input should be greater than or equal to 2, given 1"),
        ({"walk_logt": 17}, "irn.walk_logt: Input should be less than or equal to 16, given 17"),
        ({"walk_threshold": 1.1}, "irn.walk_threshold: Input should be less than or equal to 1, given 1.1"),
        ({"crop": 15}, "irn.crop: Input should be greater than or equal to 16, given 15"),
        ({"raduis": 3}, "irn.raduis: unknown key; did you mean 'irn.radius'?"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], words: str) -> None:
    assert refusal("irn", values).startswith(words)


def test_equal_thresholds_and_a_single_scale_are_taken() -> None:
    config = IrnConfig(fg_threshold=0.2, bg_threshold=0.2, scale=(1.0, 1.0))
    assert config.fg_threshold == config.bg_threshold and config.scale == (1.0, 1.0)
