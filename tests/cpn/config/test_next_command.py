"""What is printed as the next command does the same work on the same data when it is pasted into a shell."""

import shlex
from pathlib import Path
from platform.base.yaml_files import parse_scalar
from platform.config.spec import load_spec
from typing import Any

import pytest

from cpn.config import config_from, with_values
from cpn.config.next_command import search_command, yaml_value


def test_a_search_keeps_data_network_and_sizes() -> None:
    own = {"backbone": "mine.net:Net", "weights": "/w/my weights.safetensors"}
    config = config_from(
        {"data": {"root": "/my data/set#1", "train": "train", "crop": 257, "long_side": [300, 500]}, "network": own},
        "x",
    )
    words = shlex.split(search_command(config, {"objective": "mask_free"}))
    assert words[:4] == ["python", "-m", "platform.sweep", "search_spaces/patch.yaml"]
    spec = load_spec(Path(words[3]), [word for word in words[4:] if word != "--set"])
    found = spec.base_config
    assert (found.data.root, found.data.train, found.data.crop) == ("/my data/set#1", "train", 257)
    assert found.data.long_side == (300, 500) and spec.objective == "mask_free"
    assert (found.network.backbone, found.network.weights) == (own["backbone"], own["weights"])


def test_scenes_stay_scenes() -> None:
    config = config_from({"preset": "scenes"}, "x")
    assert search_command(config, {}) == "python -m platform.sweep search_spaces/quickstart.yaml"
    own = with_values(config, {"network.backbone": "mine:Net", "network.weights": None}, "x")
    assert search_command(own, {}).endswith(".yaml --set network.backbone=mine:Net --set network.weights=null")


@pytest.mark.parametrize(
    "value", ["/data/VOC2012", "2012", "null", "no", "a: b", "#x", "mine.net:Net", "it's", "~/x", 257, [300, 500], True]
)
def test_values_come_back(value: Any) -> None:
    assert parse_scalar(yaml_value(value), "x") == value
