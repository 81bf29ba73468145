"""Corners of a search: what costs, its high end, and conditions."""

from pathlib import Path
from platform.base.yaml_files import dump_yaml
from platform.config.cost_extremes import extreme_config, extreme_values
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from typing import Any

import pytest

from cpn.core.errors import InputError


def spec_of(tmp_path: Path, search: dict[str, Any]) -> SweepSpec:
    path = tmp_path / "s.yaml"
    dump_yaml(path, {"name": "s", "base": {"preset": "official"}, "search": search, "budget": {"trials": 4}})
    return load_spec(path)


def test_what_costs_nothing_has_no_corners(tmp_path: Path) -> None:
    search = {"loss.w_cls": {"float": [0.1, 1]}, "patches.kind": {"choice": ["grid", "superpixel"]}}
    assert extreme_values(spec_of(tmp_path, search)) == [{}]


def test_the_high_end_of_numbers_and_every_choice(tmp_path: Path) -> None:
    search = {
        "data.crop": {"int": [224, 448]},
        "train.objective": {"choice": ["cpn", "classification"]},
        "loss.w_cls": {"float": [0.1, 1]},
    }
    found = extreme_values(spec_of(tmp_path, search))
    assert found == [{"data.crop": 448, "train.objective": kind} for kind in ("cpn", "classification")]


def test_a_conditional_name_is_there_only_beside_what_it_needs(tmp_path: Path) -> None:
    """The decider costs nothing itself and is followed all the same; and an int that decides takes what is wanted."""
    search = {
        "train.batch_size": {"int": [2, 16], "when": {"patches.kind": "grid"}},
        "patches.kind": {"choice": ["grid", "superpixel"]},
        "data.crop": {"int": [224, 448], "when": {"train.epochs": 4}},
        "train.epochs": {"int": [2, 8]},
    }
    found = extreme_values(spec_of(tmp_path, search))
    assert {"patches.kind": "superpixel", "train.epochs": 8} in found
    assert {"patches.kind": "grid", "train.batch_size": 16, "train.epochs": 4, "data.crop": 448} in found
    assert all(("train.batch_size" in c) == (c["patches.kind"] == "grid") for c in found)
    assert all(("data.crop" in c) == (c["train.epochs"] == 4) for c in found)
    assert len(found) == 2 * 3  # epochs 2, 4 and 8


def test_values_that_do_not_go_together_are_said(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"data.crop": {"int": [224, 448]}})
    assert extreme_config(spec, {"data.crop": 448}).data.crop == 448
    with pytest.raises(InputError, match="corner of the search: data.crop"):
        extreme_config(spec, {"data.crop": 1})
