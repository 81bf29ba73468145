import pytest

from tests.cpn.config.sections import official, refusal


def test_the_defaults_are_the_released_values() -> None:
    assert official("crf") == {
        "iterations": 10,
        "sxy_gaussian": 3.0,
        "w_gaussian": 3.0,
        "sxy_bilateral": 80.0,
        "srgb_bilateral": 13.0,
        "w_bilateral": 10.0,
        "alpha_low": 4.0,
        "alpha_high": 24.0,
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"iterations": 0}, "crf.iterations: Input should be greater than or equal to 1, given 0"),
        ({"sxy_gaussian": 0}, "crf.sxy_gaussian: Input should be greater than 0, given 0"),
        ({"w_gaussian": -1}, "crf.w_gaussian: Input should be greater than or equal to 0, given -1"),
        ({"sxy_bilateral": 0}, "crf.sxy_bilateral: Input should be greater than 0, given 0"),
        ({"srgb_bilateral": 0}, "crf.srgb_bilateral: Input should be greater than 0, given 0"),
        ({"w_bilateral": -1}, "crf.w_bilateral: Input should be greater than or equal to 0, given -1"),
        ({"alpha_low": 0}, "crf.alpha_low: Input should be auto or a number above 0, given 0"),
        ({"alpha_high": None}, "crf.alpha_high: Input should be auto or a number above 0, given null"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], words: str) -> None:
    assert refusal("crf", values).startswith(words)
