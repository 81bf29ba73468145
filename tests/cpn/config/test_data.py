import pytest

from cpn.config.data import ScenesConfig
from tests.cpn.config.sections import official, refusal


def test_the_defaults_are_the_released_values() -> None:
    assert official("data") == {
        "root": None,
        "scenes": None,
        "train": "trainaug",
        "score": "train",
        "val": "val",
        "crop": 448,
        "long_side": [448, 768],
        "flip": 0.5,
        "jitter": [0.3, 0.3, 0.3, 0.1],
        "workers": 2,
    }
    scenes = {"train": 150, "extra": 0, "val": 60, "size": 64, "trace": 0.15, "seed": 0}
    assert ScenesConfig().model_dump() == scenes


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"long_side": [500, 400]}, "data: long_side is [500, 400]: give [smallest, largest] in pixels"),
        ({"long_side": [0, 400]}, "data: long_side is [0, 400]: give [smallest, largest] in pixels"),
        ({"train": "test"}, "data: train is test: a test list serves prediction only; give trainaug or train"),
        ({"jitter": [0.1, 0.1, 0.1, 0.6]}, "data: jitter has hue 0.6: it lies in 0 to 0.5"),
        ({"jitter": [1.5, 0.1, 0.1, 0.1]}, "data: jitter has brightness 1.5: it lies in 0 to 1"),
        ({"jitter": [0.1, 0.1, -0.1, 0.1]}, "data: jitter has saturation -0.1: it lies in 0 to 1"),
        ({"crop": 15}, "data.crop: Input should be greater than or equal to 16, given 15"),
        ({"flip": 1.5}, "data.flip: Input should be less than or equal to 1, given 1.5"),
        ({"workers": -1}, "data.workers: Input should be greater than or equal to 0, given -1"),
        ({"scenes": {"train": 0}}, "data.scenes.train: Input should be greater than or equal to 1, given 0"),
        ({"scenes": {"size": 31}}, "data.scenes.size: Input should be greater than or equal to 32, given 31"),
        ({"scenes": {"size": 2049}}, "data.scenes.size: Input should be less than or equal to 2048, given 2049"),
        ({"scenes": {"trace": 1.1}}, "data.scenes.trace: Input should be less than or equal to 1, given 1.1"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], words: str) -> None:
    assert refusal("data", values).startswith(words)
