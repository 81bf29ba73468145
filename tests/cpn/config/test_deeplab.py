import pytest

from cpn.config import config_from
from cpn.config.deeplab import RULED, DeepLabConfig, decided, without_defaults
from tests.cpn.config.sections import official, refusal


def test_the_defaults_are_the_released_values() -> None:
    values = official("deeplab")
    crf = {name: values.pop(name) for name in list(values) if name.startswith("crf.")}
    assert values == {
        "schedule": "released",
        "width": 512,
        "dilation": 12,
        "dropout": 0.5,
        "classifier_std": None,
        "iterations": 20000,
        "batch_size": 10,
        "optimizer": "sgd",
        "lr": 0.001,
        "head_lr_factor": 10.0,
        "weight_decay": 5e-4,
        "sgd_momentum": 0.9,
        "poly_power": 0.9,
        "crop": None,
        "scale": [0.5, 1.5],
        "hsv_jitter": 10,
        "flip": 0.5,
        "freeze_stem": False,
        "batch_norm_train": True,
        "bn_momentum": 3e-4,
        "affine_train": False,
        "scales": [0.5, 0.75, 1.0, 1.25, 1.5, 1.75],
        "sizes": "released",
        "max_pixels": None,
        "test_flip": True,
    }
    assert crf == {
        "crf.iterations": 1,
        "crf.sxy_gaussian": 3.0,
        "crf.w_gaussian": 3.0,
        "crf.sxy_bilateral": 32.0,
        "crf.srgb_bilateral": 13.0,
        "crf.w_bilateral": 10.0,
        "crf.alpha_low": 4.0,
        "crf.alpha_high": 24.0,
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scale": [1.5, 0.5]}, "deeplab: scale is [1.5, 0.5]: give [smallest, largest] factor"),
        ({"scales": [0.0]}, "deeplab: scales are [0.0]: all have to be positive"),
        ({"scales": []}, "deeplab.scales: "),
        ({"lr": None}, "deeplab: lr is null: give a value, or schedule: by_images, which decides it"),
        ({"schedule": "by_steps"}, "deeplab.schedule: Input should be 'released' or 'by_images', given 'by_steps'"),
        ({"iterations": 0}, "deeplab.iterations: Input should be greater than or equal to 1, given 0"),
        ({"dropout": 1}, "deeplab.dropout: Input should be less than 1, given 1"),
        ({"hsv_jitter": 91}, "deeplab.hsv_jitter: Input should be less than or equal to 90, given 91"),
        ({"max_pixels": 1023}, "deeplab.max_pixels: Input should be greater than or equal to 1024, given 1023"),
        ({"crf": {"iterations": 0}}, "deeplab.crf.iterations: Input should be greater than or equal to 1, given 0"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], words: str) -> None:
    assert refusal("deeplab", values).startswith(words)


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


def test_one_value_of_the_crf_leaves_the_others_as_published() -> None:
    config = config_from({"deeplab": {"crf": {"srgb_bilateral": 7.0}}}, "here")
    assert config.deeplab.crf.iterations == 1 and config.deeplab.crf.sxy_bilateral == 32
    assert config.deeplab.crf.srgb_bilateral == 7
