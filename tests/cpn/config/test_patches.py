import pytest

from cpn.config.patches import PatchesConfig
from tests.cpn.config.sections import official, refusal


def test_the_defaults_are_the_released_values() -> None:
    assert official("patches") == {
        "kind": "superpixel",
        "S_N": 200,
        "S_N_range": None,
        "slic_on": "image",
        "K": [56, 112],
        "p_h": 0.5,
        "draw": "with_replacement",
        "guard": False,
        "hidden_value": "mean",
        "lambda_by": "pixels",
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"S_N_range": [800, 50]}, "patches: S_N_range is [800, 50]: give [smallest, largest], for example [50, 800]"),
        ({"S_N_range": [0, 50]}, "patches.S_N_range.0: Input should be greater than or equal to 1, given 0"),
        ({"S_N": 8001}, "patches.S_N: Input should be less than or equal to 8000, given 8001"),
        ({"K": []}, "patches.K: "),
        ({"K": [56, 0]}, "patches.K.1: Input should be greater than or equal to 1, given 0"),
        ({"p_h": 0}, "patches.p_h: Input should be greater than 0, given 0"),
        ({"p_h": 1}, "patches.p_h: Input should be less than 1, given 1"),
        ({"draw": "uniform"}, "patches.draw: Input should be 'with_replacement' or 'bernoulli', given 'uniform'"),
        ({"slic_on": "patch"}, "patches.slic_on: Input should be 'image' or 'crop', given 'patch'"),
        ({"hidden_value": "black"}, "patches.hidden_value: Input should be 'mean', 'blur' or 'noise', given 'black'"),
        ({"lambda_by": "area"}, "patches.lambda_by: Input should be 'pixels' or 'patches', given 'area'"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], words: str) -> None:
    assert refusal("patches", values).startswith(words)


def test_a_range_of_one_number_is_taken() -> None:
    assert PatchesConfig(S_N_range=(50, 50)).S_N_range == (50, 50)
