"""The walk's numbers, chosen on scenes behind an untrained AffinityNet and maps that are blurred masks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cpn.config import config_from, with_values
from cpn.config.data import ScenesConfig
from cpn.config.random_walk import RandomWalkConfig
from cpn.core.errors import InputError
from cpn.data.map_files import load_label, load_maps, save_maps
from cpn.models.checkpoint import save_model
from cpn.plots.run_pictures import pseudo_mask
from cpn.propagation.random_walk import pseudo_label
from cpn.propagation.walk_rule import WalkChoice, alpha_of, follows_run
from cpn.scoring.metrics import hard_counts, miou
from cpn.scoring.selection import select_and_confirm
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.stages import pipeline
from cpn.stages.affinity_stages import affinity_network
from cpn.stages.inputs import Inputs
from cpn.stages.irn_stages import irn_network
from cpn.stages.walk_choice import chosen, count_settings, grid_of

CONFIG: dict[str, Any] = {
    "data": {"train": "trainaug", "crop": 32, "workers": 0},
    "network": {"backbone": "scene"},
    "affinity": {"radius": 3, "widths": [4, 5, 6]},
    "random_walk": {"alpha": "auto", "logt": "auto", "radius": "auto", "keep_if": "better"},
    "irn": {"crop": 32, "radius": 3, "walk_radius": 3, "walk_logt": 3},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("choice"))


def make_inputs(base: Path) -> Inputs:
    """Nine scenes in `base`, with maps and an AffinityNet."""
    write_scenes(base / "scenes", ScenesConfig(train=9, extra=2, val=2, size=32))
    pack = prepare(base / "scenes")
    config = config_from(CONFIG, "test")
    folders = {stage: base / stage for stage in ("cam", "affinity")}
    inputs = Inputs(base / "none", config, pack, base / "cache", torch.device("cpu"), folders, beta=0.3)
    rng = np.random.default_rng(0)
    for index, name in enumerate(inputs.split.ids):
        present = np.flatnonzero(inputs.split.labels[index]) + 1
        mask = inputs.split.mask(index)
        known = np.zeros((32, 32), np.uint8) if mask is None else mask
        maps = np.stack([np.where(known == c, 0.6, 0.2) * rng.uniform(0.3, 1.2, (32, 32)) for c in present])
        save_maps(folders["cam"] / f"{name}.npz", maps, present)
    torch.manual_seed(0)
    save_model(folders["affinity"] / "model.safetensors", affinity_network(config), {"kind": "affinity"})
    return inputs


@pytest.fixture(scope="module")
def counts(made: Inputs) -> np.ndarray:
    return count_settings(made, grid_of(made), range(9))


def test_the_grid_is_the_rules(made: Inputs) -> None:
    grid = grid_of(made)
    assert grid.rule == WalkChoice(alpha_of(0.3), 3, 2), "8 x 8 cells of stride 4: (.735 x 8 / 2)^2 = 8.6 steps"
    assert grid.logts == (0, 1, 2, 3, 4) and len(grid.alphas) == 13 and grid.rule.alpha in grid.alphas


def test_the_choice_is_that_of_each_setting_by_itself(made: Inputs, counts: np.ndarray) -> None:
    scored, grid, network = made.pack.split("train"), grid_of(made), affinity_network(made.config, made)
    sets = select_and_confirm(scored.ids, made.config.cam)
    expected: list[list[float]] = []
    for alpha, logt in [(None, 0), *grid.pairs]:
        rows = []
        for index, name in enumerate(scored.ids):
            maps, present = load_maps(made.folders["cam"] / f"{name}.npz")
            if alpha is None:
                label = pseudo_mask(maps, present, 0.3)
            else:
                config = RandomWalkConfig(alpha=alpha, logt=logt, radius=2)
                label = pseudo_label(scored.image(index), maps, present, network, config)
            rows.append(hard_counts(label, scored.mask(index), 7))  # type: ignore[arg-type]
        expected.append([100 * float(miou(np.stack(rows)[part].sum(0))) for part in sets])
    found = chosen(made, grid, counts)
    assert [[row.miou_select, row.miou_confirm] for row in found.grid] == expected[1:]
    best = max(range(len(grid.pairs)), key=lambda at: expected[1 + at][0])
    alpha, logt = grid.pairs[best]
    assert (found.choice.alpha, found.choice.logt, found.choice.radius) == (alpha, logt, 2)
    metrics = found.metrics
    assert [metrics["miou_walk_select"], metrics["miou_walk_confirm"]] == expected[1 + best]
    assert [metrics["miou_cam_select"], metrics["miou_cam_confirm"]] == expected[0]
    at_rule = 1 + grid.pairs.index((grid.rule.alpha, grid.rule.logt))
    assert [metrics["miou_rule_select"], metrics["miou_rule_confirm"]] == expected[at_rule]
    assert metrics["steps"] == 2**logt and metrics["beta"] == 0.3
    assert all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())
    assert len({tuple(pair) for pair in expected}) > 5, "settings differ"


def test_shares_give_what_the_whole_gives(made: Inputs, counts: np.ndarray) -> None:
    grid = grid_of(made)
    parts = [count_settings(made, grid, share) for share in (range(4), range(4, 9))]
    assert np.array_equal(np.concatenate(parts), counts)


def of(counts: np.ndarray, cam: bool) -> np.ndarray:
    """The same where the CAM is perfect, or of no use."""
    changed = counts.copy()
    true = changed[:, 0, 2]
    changed[:, 0, 0], changed[:, 0, 1] = (true, true) if cam else (0, true)
    return changed


def test_a_walk_that_lowers_its_cam_is_not_used(made: Inputs, counts: np.ndarray, tmp_path: Path) -> None:
    found = chosen(made, grid_of(made), of(counts, cam=True))
    assert found.choice.used is False and found.metrics["used"] == 0.0
    assert found.words.startswith("random walk: a miss, it lowers its CAM and is not used, the pseudo labels are the ")
    assert "CAM's masks at beta 0.30" in found.words and "\n" not in found.words
    pipeline.make_pseudo_labels(replace(made, walk=found.choice), [2, 5], tmp_path)
    for name in (made.split.ids[2], made.split.ids[5]):
        maps, present = load_maps(made.folders["cam"] / f"{name}.npz")
        assert np.array_equal(load_label(tmp_path / f"{name}.png"), pseudo_mask(maps, present, 0.3))


def test_a_walk_that_raises_its_cam_is_used_with_its_numbers(made: Inputs, counts: np.ndarray, tmp_path: Path) -> None:
    found = chosen(made, grid_of(made), of(counts, cam=False))
    choice = found.choice
    assert choice.used and found.metrics["used"] == 1.0 and "miss" not in found.words
    pipeline.make_pseudo_labels(replace(made, walk=choice), [2], tmp_path)
    maps, present = load_maps(made.folders["cam"] / f"{made.split.ids[2]}.npz")
    config = RandomWalkConfig(alpha=choice.alpha, logt=choice.logt, radius=choice.radius)  # type: ignore[arg-type]
    expected = pseudo_label(made.split.image(2), maps, present, affinity_network(made.config, made), config)
    assert np.array_equal(load_label(tmp_path / f"{made.split.ids[2]}.png"), expected)


def test_always_keeps_a_walk_that_lowers_its_cam(made: Inputs, counts: np.ndarray) -> None:
    always = replace(made, config=with_values(made.config, {"random_walk.keep_if": "always"}, "test"))
    assert chosen(always, grid_of(made), of(counts, cam=True)).choice.used is True


def test_without_masks_the_rule_stands_alone(made: Inputs, tmp_path: Path) -> None:
    found = chosen(made, grid_of(made), None)
    assert found.choice == grid_of(made).rule and found.grid == ()
    assert "by rule alone" in found.words and not any(name.startswith("miou") for name in found.metrics)
    pipeline.make_pseudo_labels(made, [0], tmp_path / "rule")
    pipeline.make_pseudo_labels(replace(made, walk=grid_of(made).rule), [0], tmp_path / "given")
    name = f"{made.split.ids[0]}.png"
    assert (tmp_path / "rule" / name).read_bytes() == (tmp_path / "given" / name).read_bytes()


def test_what_follows_the_run() -> None:
    assert not follows_run(RandomWalkConfig())
    for name, value in {"alpha": "auto", "logt": "auto", "radius": "auto", "keep_if": "better"}.items():
        assert follows_run(RandomWalkConfig.model_validate({name: value})), name
    assert not follows_run(RandomWalkConfig(kind="irn", alpha="auto"))
    assert follows_run(RandomWalkConfig(kind="irn", keep_if="better"))


def test_irn_walks_at_its_own_setting(made: Inputs) -> None:
    config = with_values(made.config, {"random_walk.kind": "irn"}, "test")
    folders = {**made.folders, "affinity": made.folders["affinity"].with_name("irn")}
    inputs = replace(made, config=config, folders=folders)
    save_model(folders["affinity"] / "model.safetensors", irn_network(config), {"kind": "irn"})
    grid = grid_of(inputs)
    assert grid.pairs == [(None, 3)]
    counts = count_settings(inputs, grid, range(9))
    assert counts.shape == (9, 2, 3, 7)
    found = chosen(inputs, grid, counts)
    assert "alpha" not in found.metrics and "IRN's, 8 steps of radius 3" in found.words


def test_a_scored_image_without_maps_is_named(made: Inputs) -> None:
    lonely = replace(made, config=with_values(made.config, {"data.score": "val"}, "test"))
    with pytest.raises(InputError, match=r"it has no maps; data\.train must hold data\.score"):
        count_settings(lonely, grid_of(lonely), [0])


def test_what_was_not_given_is_missed(made: Inputs) -> None:
    with pytest.raises(ValueError, match="beta"):
        count_settings(replace(made, beta=None), grid_of(made), [0])
