import pytest

from cpn.config.random_walk import InstanceMasksConfig, extra_supervision
from tests.cpn.config.sections import official, refusal


def test_instance_masks_are_off_until_a_folder_is_given() -> None:
    assert official("instance_masks") == {"folder": None, "share": 0.5}
    assert extra_supervision(InstanceMasksConfig()) is None
    assert "/masks" in (extra_supervision(InstanceMasksConfig(folder="/masks")) or "")
    assert refusal("instance_masks", {"share": 0}).startswith("instance_masks.share: Input should be greater than 0")


def test_the_defaults_are_the_released_values() -> None:
    assert official("random_walk") == {
        "kind": "affinity",
        "alpha": 6.0,
        "beta": 8.0,
        "logt": 6,
        "radius": 5,
        "keep_if": "always",
        "crf": False,
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "dino"}, "random_walk.kind: Input should be 'affinity' or 'irn', given 'dino'"),
        ({"alpha": 0}, "random_walk.alpha: Input should be auto or a number above 0, given 0"),
        ({"beta": "auto"}, "random_walk.beta: Input should be a number"),
        ({"logt": 17}, "random_walk.logt: Input should be auto or a whole number from 0 to 16, given 17"),
        ({"radius": 1}, "random_walk.radius: Input should be auto or a whole number from 2 to 512, given 1"),
        ({"keep_if": "worse"}, "random_walk.keep_if: Input should be 'always' or 'better', given 'worse'"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], words: str) -> None:
    assert refusal("random_walk", values).startswith(words)
