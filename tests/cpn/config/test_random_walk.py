import pytest

from tests.cpn.config.sections import official, refusal


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
        ({"beta": "auto"}, "random_walk.beta: Input should be a valid number"),
        ({"logt": 17}, "random_walk.logt: Input should be auto or a whole number from 0 to 16, given 17"),
        ({"radius": 1}, "random_walk.radius: Input should be auto or a whole number from 2 to 512, given 1"),
        ({"keep_if": "worse"}, "random_walk.keep_if: Input should be 'always' or 'better', given 'worse'"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], words: str) -> None:
    assert refusal("random_walk", values).startswith(words)
