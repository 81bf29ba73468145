import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpn.config.train import TrainConfig, passes_of
from tests.cpn.config.sections import official, refusal


def test_the_defaults_are_the_released_values() -> None:
    values = official("train")
    assert values == {
        "objective": "cpn",
        "epochs": 8,
        "epoch_images": None,
        "batch_size": 4,
        "optimizer": "sgd",
        "lr": 0.01,
        "head_lr_factor": 10.0,
        "sgd_momentum": 0.0005,
        "weight_decay": 5e-4,
        "poly_power": 0.9,
        "precision": "fp32",
        "compiled": None,
        "checkpoint_minutes": 20.0,
        "seed": 0,
    }
    steps = 10582 // values["batch_size"]
    assert (steps, steps * values["epochs"]) == (2645, 21160), "the released code's, on the list trainaug of VOC"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"objective": "cam"}, "train.objective: Input should be 'cpn', 'seam', 'classification' or "),
        ({"epochs": 0}, "train.epochs: Input should be greater than or equal to 1, given 0"),
        ({"epoch_images": 0}, "train.epoch_images: Input should be greater than or equal to 1, given 0"),
        ({"batch_size": 0}, "train.batch_size: Input should be greater than or equal to 1, given 0"),
        ({"optimizer": "adam"}, "train.optimizer: Input should be 'sgd' or 'adamw', given 'adam'"),
        ({"lr": 0}, "train.lr: Input should be greater than 0, given 0"),
        ({"head_lr_factor": 0}, "train.head_lr_factor: Input should be greater than 0, given 0"),
        ({"sgd_momentum": 1}, "train.sgd_momentum: Input should be less than 1, given 1"),
        ({"weight_decay": -1}, "train.weight_decay: Input should be greater than or equal to 0, given -1"),
        ({"poly_power": 0}, "train.poly_power: Input should be greater than 0, given 0"),
        ({"precision": "fp16"}, "train.precision: Input should be 'fp32' or 'bf16', given 'fp16'"),
        ({"checkpoint_minutes": 0}, "train.checkpoint_minutes: Input should be greater than 0, given 0"),
        ({"seed": -1}, "train.seed: Input should be greater than or equal to 0, given -1"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], words: str) -> None:
    assert refusal("train", values).startswith(words)


def test_an_epoch_passes_a_short_list_until_it_has_shown_enough() -> None:
    assert [passes_of(TrainConfig(epoch_images=e), 8) for e in (None, 1, 8, 9, 16, 17)] == [1, 1, 1, 2, 2, 3]
    assert passes_of(TrainConfig(epoch_images=5), 0) == 5, "an empty list is refused elsewhere, not divided by"


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_one_pass_less_would_show_too_few(wanted: int, images: int) -> None:
    passes = passes_of(TrainConfig(epoch_images=wanted), images)
    assert passes * images >= wanted and (passes == 1 or (passes - 1) * images < wanted)
