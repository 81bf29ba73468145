import pytest

from cpn.config import config_from, to_dotted
from cpn.models.backbone import BACKBONES as OURS
from tests.cpn.config.sections import official, refusal


def test_the_defaults_are_the_released_values() -> None:
    assert official("network") == {
        "backbone": "resnet38",
        "weights": None,
        "stage3_channels": 64,
        "stage4_channels": 128,
        "correlation_channels": 192,
        "dropout": 0.5,
        "pcm": True,
        "prcm": True,
        "prcm_transposed": False,
        "x_scale": "released",
        "x_image": 1.0,
        "prcm_scale": 1.0,
        "average_refined": False,
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stage3_channels": 0}, "network.stage3_channels: Input should be greater than or equal to 1, given 0"),
        ({"stage4_channels": 0}, "network.stage4_channels: Input should be greater than or equal to 1, given 0"),
        ({"correlation_channels": 0}, "network.correlation_channels: Input should be greater than or equal to 1"),
        ({"dropout": 1}, "network.dropout: Input should be less than 1, given 1"),
        ({"x_scale": "rms"}, "network.x_scale: Input should be 'released' or 'unit', given 'rms'"),
        ({"x_image": -1}, "network.x_image: Input should be greater than or equal to 0, given -1"),
        ({"prcm_scale": 0}, "network.prcm_scale: Input should be greater than 0, given 0"),
        ({"backbone": None}, "network.backbone: Input should be a text, given null"),
        ({"weight": "imagenet"}, "network.weight: unknown key; did you mean 'network.weights'?"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], words: str) -> None:
    assert refusal("network", values).startswith(words)


@pytest.mark.parametrize("section", ["network", "irn"])
def test_a_backbone_is_ours_or_code(section: str) -> None:
    for name in ("scene", "resnet50", "mine.nets:Net"):
        assert to_dotted(config_from({section: {"backbone": name}}, "x"))[f"{section}.backbone"] == name
    said = refusal(section, {"backbone": "resnet99"})
    assert said.startswith(
        f"{section}.backbone: 'resnet99' is unknown; use {', '.join(sorted(OURS))}, timm:NAME, or your own as"
    )
