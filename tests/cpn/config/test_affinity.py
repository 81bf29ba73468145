import pytest

from tests.cpn.config.sections import official, refusal


def test_the_defaults_are_the_released_values() -> None:
    assert official("affinity") == {
        "radius": 5,
        "widths": [64, 128, 256],
        "epochs": 8,
        "batch_size": 8,
        "crop": None,
        "optimizer": "sgd",
        "lr": 0.01,
        "head_lr_factor": 10.0,
        "weight_decay": 5e-4,
        "sgd_momentum": 0.0005,
        "poly_power": 0.9,
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"radius": 1}, "affinity.radius: Input should be greater than or equal to 2, given 1"),
        ({"widths": [64, 128]}, "affinity.widths.2: is missing: the list is too short, given [64, 128]"),
        ({"epochs": 0}, "affinity.epochs: Input should be greater than or equal to 1, given 0"),
        ({"batch_size": 0}, "affinity.batch_size: Input should be greater than or equal to 1, given 0"),
        ({"crop": 15}, "affinity.crop: Input should be greater than or equal to 16, given 15"),
        ({"optimizer": "adam"}, "affinity.optimizer: Input should be 'sgd' or 'adamw', given 'adam'"),
        ({"lr": 0}, "affinity.lr: Input should be greater than 0, given 0"),
        ({"head_lr_factor": 0}, "affinity.head_lr_factor: Input should be greater than 0, given 0"),
        ({"weight_decay": -1}, "affinity.weight_decay: Input should be greater than or equal to 0, given -1"),
        ({"sgd_momentum": 1}, "affinity.sgd_momentum: Input should be less than 1, given 1"),
        ({"poly_power": 0}, "affinity.poly_power: Input should be greater than 0, given 0"),
        ({"raduis": 3}, "affinity.raduis: unknown key; did you mean 'affinity.radius'?"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], words: str) -> None:
    assert refusal("affinity", values).startswith(words)
