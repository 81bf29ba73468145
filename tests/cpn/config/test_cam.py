import pytest

from tests.cpn.config.sections import official, refusal


def test_the_defaults_are_the_released_values() -> None:
    assert official("cam") == {
        "scales": [0.5, 1.0, 1.5, 2.0],
        "long_side": None,
        "max_pixels": None,
        "sizes": "released",
        "flip": True,
        "map": "refined",
        "beta": 0.72,
        "confirm_share": 0.5,
        "confirm_seed": 0,
        "epoch_images": None,
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scales": []}, "cam.scales"),
        ({"scales": [1.0, 0]}, "cam.scales.1: Input should be greater than 0, given 0"),
        ({"scales": [-0.5]}, "cam.scales.0"),
        ({"scales": [5.0]}, "cam.scales.0: Input should be less than or equal to 4"),
        ({"scales": [float("nan")]}, "cam.scales.0"),
        ({"scales": [0.5, 1.0, 0.5]}, "cam: scales names 0.5 twice: give each scale once"),
        ({"scales": "0.5"}, "cam.scales"),
        ({"long_side": 15}, "cam.long_side: Input should be greater than or equal to 16, given 15"),
        ({"max_pixels": 1023}, "cam.max_pixels: Input should be greater than or equal to 1024, given 1023"),
        ({"sizes": "exact"}, "cam.sizes: Input should be 'released' or 'aligned', given 'exact'"),
        ({"map": "both"}, "cam.map: Input should be 'refined' or 'plain', given 'both'"),
        ({"flip": "perhaps"}, "cam.flip"),
        ({"beta": 1.3}, "cam.beta: Input should be less than or equal to 1.2, given 1.3"),
        ({"confirm_share": 1}, "cam.confirm_share: Input should be less than 1, given 1"),
        ({"epoch_images": 0}, "cam.epoch_images: Input should be greater than or equal to 1, given 0"),
        ({"scale": [1.0]}, "cam.scale: unknown key; did you mean 'cam.scales'?"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], words: str) -> None:
    assert refusal("cam", values).startswith(words)
