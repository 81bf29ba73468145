"""The scan of the walk's rule, on a CAM run that was never trained."""

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks.photos import walk_rule
from cpn.config import Config, config_from
from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.models.checkpoint import save_model
from cpn.models.network import build_network
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from tests.cpn.stages.test_pipeline import CONFIG


def untrained_run(folder: Path, config: Config) -> list[str]:
    """Write a CAM run that was never trained and its eight scenes below `folder`; returns the scans' arguments."""
    write_scenes(folder / "scenes", ScenesConfig(train=8, val=2, size=32))
    pack = prepare(folder / "scenes", scored=["train"])
    torch.manual_seed(0)
    network, model = build_network(config.network, len(pack.classes) + 1), folder / "model.safetensors"
    dump = config.model_dump(mode="json")
    save_model(model, network, {"kind": "cam", "config": dump, "classes": list(pack.classes), "beta": 0.5})
    return ["--model", str(model), "--root", pack.root, "--out", str(folder / "out")]


def test_the_scan_holds_the_rule_the_choice_and_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    walk_rule.add_arguments(parser)
    parser.add_argument("--quick", action="store_true")
    words = [*untrained_run(tmp_path, config_from(CONFIG, "test")), "--set", "random_walk.crf=false"]
    found = walk_rule.run(parser.parse_args(words))
    assert (found["images"], found["beta"], found["rule_alpha"]) == (8, 0.5, pytest.approx(1.0))
    assert found["given"] == {"alpha_low": pytest.approx(2 / 3), "alpha_high": pytest.approx(4)}
    grid = {(row["alpha"], 2 ** row["logt"]): row["miou_select"] for row in found["grid"]}
    assert len(grid) == len(found["grid"]) == 23 * 6, "alphas of the scan and of the choice by steps, rule 2^3"
    assert found["miou_walk_select"] == grid[found["alpha"], found["steps"]]
    assert found["miou_rule_select"] == grid[found["rule_alpha"], found["rule_steps"]]
    at_steps = [value for (_, steps), value in grid.items() if steps == found["steps"]]
    assert found["best_select"] == max(at_steps) and found["best_of_all_select"] == max(grid.values())
    assert (
        found["gap_select"] == pytest.approx(found["best_select"] - found["miou_walk_select"])
        and found["gap_select"] >= 0
    )
    assert "| alpha (its beta) | 1 steps |" in capsys.readouterr().out
    official = walk_rule.run(parser.parse_args([*words, "--official"]))
    assert (official["alpha"], official["steps"], official["given"]) == (6, 4, {"alpha_low": 4, "alpha_high": 24})
    assert 17 * 5 == len(official["grid"])


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(InputError, match="--set affinity"):
        walk_rule.values(["affinity"])
    assert walk_rule.values(["affinity.epochs=3", "random_walk.kind=irn"]) == {
        "affinity.epochs": 3,
        "random_walk.kind": "irn",
    }
