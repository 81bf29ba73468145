from dataclasses import replace

import pytest

from cpn.config import Config, config_from, to_dotted, with_values
from cpn.config.deeplab import DEFAULTS, RULED, DeepLabConfig
from cpn.core.errors import InputError
from cpn.segmentation.schedule import Facts, iterations_for, schedule_for

VOC = Facts(images=10_582, side=500, crop=448, stride=8)
PHOTOS = Facts(images=370, side=500, crop=225, stride=16)
BY_IMAGES = DeepLabConfig(schedule="by_images")


def test_at_the_released_size_the_rule_gives_its_values() -> None:
    found = schedule_for(BY_IMAGES, VOC).model_dump()
    assert found == {**DeepLabConfig().model_dump(), "schedule": "by_images"}


def test_the_released_schedule_is_left_alone() -> None:
    config = DeepLabConfig(lr=0.5)
    assert schedule_for(config, PHOTOS) is config


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            PHOTOS,
            {
                "dilation": 3,
                "iterations": 240,
                "optimizer": "adamw",
                "scale": (0.251, 0.753),
                "scales": (0.251, 0.377, 0.502, 0.628, 0.753, 0.879),
                "freeze_stem": True,
                "batch_norm_train": False,
                "bn_momentum": 6 / 240,
            },
        ),
        # Ten images: never fewer than 240 steps, a dilation of at least one cell.
        (replace(PHOTOS, images=10, crop=32), {"dilation": 1, "iterations": 240}),
        # Small images are enlarged until a crop shows as much of them as the released one of VOC's.
        (replace(PHOTOS, side=60, crop=65), {"scale": (0.605, 1.814)}),
        (replace(VOC, images=5_291), {"iterations": 6_587, "optimizer": "adamw", "bn_momentum": 6 / 6_587}),
        # More images than VOC's take the same epochs, and all else as released.
        (replace(VOC, images=2 * 10_582), {"iterations": 40_000, "optimizer": "sgd", "bn_momentum": 1.5e-4}),
    ],
)
def test_the_rule(facts: Facts, expected: dict[str, object]) -> None:
    found = schedule_for(BY_IMAGES, facts).model_dump()
    assert {name: found[name] for name in expected} == expected
    assert all(found[name] is not None for name in RULED if name != "classifier_std")
    assert (found["classifier_std"] is None) == (facts.images >= VOC.images)


def test_more_images_never_take_fewer_steps() -> None:
    steps = [iterations_for(images, 10) for images in range(10, 30_000, 97)]
    assert steps == sorted(steps) and iterations_for(10_582, 20) == 10_000


@pytest.mark.parametrize("name", RULED)
def test_a_given_value_wins_even_if_it_is_the_released_one(name: str) -> None:
    value = 0.02 if name == "classifier_std" else DEFAULTS[name]
    decided = schedule_for(DeepLabConfig(**{"schedule": "by_images", name: value}), PHOTOS)
    assert getattr(decided, name) == value
    assert {n for n in RULED if getattr(decided, n) is None} == set()


def test_what_is_decided_stays_decided() -> None:
    once = schedule_for(BY_IMAGES, PHOTOS)
    again = DeepLabConfig.model_validate(once.model_dump())
    assert again == once and schedule_for(again, VOC) == once


def test_another_schedule_keeps_only_given_values() -> None:
    """As `--set deeplab.schedule=by_images` does to the configuration of a run, whose every value is written out."""
    run = with_values(Config(), {"deeplab.lr": 0.5}, "x")
    turned = with_values(run, {"deeplab.schedule": "by_images", "deeplab.width": 9}, "x")
    assert turned == config_from({"deeplab": {"schedule": "by_images", "lr": 0.5, "width": 9}}, "x")
    assert turned.deeplab.iterations is None
    assert with_values(turned, {"deeplab.schedule": "released", "deeplab.width": 512}, "x") == run
    assert with_values(turned, {"deeplab.iterations": 7}, "x").deeplab.iterations == 7
    assert with_values(Config(), to_dotted(turned), "x") == turned


def test_null_without_the_rule_is_one_line_with_the_cure() -> None:
    with pytest.raises(InputError, match=r"x: deeplab: iterations is null: give a value, or schedule: by_images"):
        config_from({"deeplab": {"iterations": None}}, "x")
