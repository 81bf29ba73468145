"""The price of a sweep, from its specification alone."""

from pathlib import Path
from platform.base.yaml_files import dump_yaml
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from platform.plan.estimate import (
    CORE_FLOPS,
    GPU_FLOPS,
    START_SECONDS,
    confirm_runs,
    disk,
    estimate,
    largest_step,
    operations,
    run_hours,
    superpixel_levels,
)
from typing import Any

import pytest

from cpn.config import config_from, with_values
from cpn.cost.operations import forward_operations, stored_bytes
from cpn.data.superpixels import levels_of

SPACES = Path(__file__).resolve().parents[3] / "search_spaces"
SCENES = {"preset": ["official", "scenes"], "data": {"scenes": {"train": 30, "extra": 5, "val": 7}}}


def spec_of(tmp_path: Path, search: dict[str, Any], *sets: str, base: dict[str, Any] = SCENES) -> SweepSpec:
    path = tmp_path / "s.yaml"
    dump_yaml(path, {"name": "s", "base": base, "search": search, "budget": {"trials": 4}})
    return load_spec(path, sets)


def test_the_voc_sweep_costs_what_its_header_says() -> None:
    """64 trials; a race of 12 runs, cam_baseline with three seeds; about 6 hours a run."""
    spec = load_spec(SPACES / "patch.yaml")
    price = estimate(spec)
    assert (price.trials, price.confirm_runs) == (64, 12 + 3)
    plain = run_hours(spec, with_values(spec.base_config, {"train.objective": "classification"}, "-"), GPU_FLOPS)
    assert price.hours is not None
    assert price.hours == pytest.approx((64 + 12) * price.hours_per_trial + 3 * plain, rel=1e-3)
    header = (SPACES / "patch.yaml").read_text()
    assert f"{price.hours_per_trial:.2f} GPU-hours a run" in header and f"{price.hours:.0f} for 64 trials" in header
    assert price.money is None
    priced = estimate(load_spec(SPACES / "patch.yaml", ["budget.price_per_gpu_hour=0.5"]))
    assert priced.money == pytest.approx(price.hours / 2)


def test_training_is_what_the_formula_says() -> None:
    """8 epochs x 10582 images x 3 branches x 3 passes; 1464 images of 375 x 500 scored: 4 times half of them after
    epochs, once at the end, 3 times with their pair. About 0.8 TFLOP a pass."""
    config = config_from({"cam": {"scales": [1.0], "flip": False}, "train": {"epochs": 8}}, "-")
    crop = forward_operations(config.network, 21, 448, 448)
    photo = forward_operations(config.network, 21, 375, 500)
    assert 0.79e12 < crop < 0.82e12
    expected = 8 * 10582 * 3 * 3 * crop + 1464 * photo * (8 * 0.5 + 1 + 3)
    assert operations(config) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [("train.objective", "classification"), ("train.epochs", 4), ("data.crop", 224), ("cam.flip", False),
     ("network.backbone", "scene"), ("network.backbone", "resnet50")],
)  # fmt: skip
def test_less_work_costs_less(name: str, value: object) -> None:
    config = config_from({}, "-")
    assert operations(with_values(config, {name: value}, "-")) < operations(config)


def test_hours_on_gpus_and_on_the_cpu(tmp_path: Path) -> None:
    """Workers share a batch: GPU-hours stay but for Ray's start, which all wait for; on the CPU the run is shorter."""
    config = config_from(SCENES, "-")
    seconds = operations(config) / 1e9

    def hours(*sets: str) -> float:
        return 3600 * run_hours(spec_of(tmp_path, {}, *sets), config, 1e9)

    gpu, cpu = "resources.gpus_per_worker=1", "resources.gpus_per_worker=0"
    assert START_SECONDS == 12
    assert hours(gpu) == pytest.approx(seconds + 12)
    assert hours(gpu, "resources.workers=4") == pytest.approx(seconds + 4 * 12)
    assert hours("resources.gpus_per_worker=0.5") == pytest.approx(seconds + 6)
    assert hours(cpu) == pytest.approx(seconds + 12)
    assert hours(cpu, "resources.workers=4") == pytest.approx(seconds / 4 + 12)


def test_a_measured_rate_takes_the_place_of_the_assumed_one(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {}, "resources.gpus_per_worker=0")
    work = operations(spec.base_config) / 3600
    assumed, faster = estimate(spec), estimate(spec, 4 * CORE_FLOPS)
    assert assumed.hours_per_trial == pytest.approx(work / CORE_FLOPS + 12 / 3600)
    assert faster.hours_per_trial == pytest.approx(work / CORE_FLOPS / 4 + 12 / 3600)
    assert estimate(spec_of(tmp_path, {}, "budget.price_per_gpu_hour=2", "resources.gpus_per_worker=0")).money is None


def test_trials_cost_the_dearest_corner_the_reference_itself(tmp_path: Path) -> None:
    """4 trials, one the reference; 3 seeds of the reference, of 3 others, of cam_baseline."""
    search = {"data.crop": {"int": [32, 128]}, "train.epochs": {"choice": [2, 12]}, "loss.w_cls": {"float": [0.1, 1]}}
    spec = spec_of(tmp_path, search)
    dear = with_values(spec.base_config, {"data.crop": 128, "train.epochs": 12}, "-")
    price = estimate(spec)
    assert price.hours_per_trial == pytest.approx(run_hours(spec, dear, GPU_FLOPS))
    plain = with_values(spec.base_config, {"train.objective": "classification", "network.pcm": False}, "-")
    base, plain_hours = (run_hours(spec, config, GPU_FLOPS) for config in (spec.base_config, plain))
    assert price.hours == pytest.approx((3 + 9) * price.hours_per_trial + (1 + 3) * base + 3 * plain_hours)


def test_the_largest_step_is_by_operations_first(tmp_path: Path) -> None:
    search = {
        "train.batch_size": {"choice": [4, 16]}, "train.objective": {"choice": ["seam", "pair_classification"]},
        "train.precision": {"choice": ["bf16", "fp32"]}, "train.optimizer": {"choice": ["sgd", "adamw"]},
    }  # fmt: skip
    corner, config = largest_step(spec_of(tmp_path, search))
    assert corner == {
        "train.batch_size": 16, "train.objective": "pair_classification", "train.precision": "fp32",
        "train.optimizer": "adamw",
    }  # fmt: skip
    assert config.train.batch_size == 16
    # A search below the reference: that one is the largest.
    assert largest_step(spec_of(tmp_path, {"data.crop": {"int": [32, 48]}})) == ({}, config_from(SCENES, "-"))


def test_scenes_are_mostly_rays_start(tmp_path: Path) -> None:
    spec = load_spec(SPACES / "quickstart.yaml")
    price = estimate(spec)
    assert (price.trials, price.confirm_runs) == (8, 3 * (1 + 1 + 1))
    assert 12 < 3600 * price.hours_per_trial < 3 * 12 and price.disk_gb < 0.1


def test_disk_by_hand(tmp_path: Path) -> None:
    """4 trials and 12 confirm runs on 35 scenes of 64 x 64, 30 of them scored, 7 classes; adamw keeps two numbers."""
    spec = spec_of(tmp_path, {"loss.w_cls": {"float": [0.1, 1]}})
    weights = stored_bytes(spec.base_config.network, 7)
    found = disk(spec, [spec.base_config])
    assert confirm_runs(spec) == 15  # a race of 12 among three, three of cam_baseline
    pixels = 35 * 64 * 64
    levels = range(levels_of(spec.base_config.patches, spec.base_config.data)[-1] + 1)
    superpixels = 35 * sum(64 * 64 * 3.6 * (round(1.5**level) / 64**2) ** 0.5 for level in levels)  # none reaches 2
    expected = {
        "networks": weights * 2 * (4 + 15 + 2),
        # Two of each of three trials that may be pruned and of the running one, which writes a third; weights and two
        # numbers each. AffinityNet with adamw and DeepLab with adamw: two each.
        "checkpoints": weights * 3 * (2 * 3 + 3) + weights * 2 * (3 + 3),
        "counts": 4 * (4 + 15) * 30 * 61 * 3 * 7,
        "maps": 2 * 2 * pixels,  # two classes, float16
        "crf": 2 * 3 * pixels,  # both exponents; background and two classes, one byte
        "labels": pixels,
        "superpixels": superpixels,
    }
    assert {name: size * 1e9 for name, size in found.items()} == pytest.approx(expected)
    unpruned = disk(spec_of(tmp_path, {"loss.w_cls": {"float": [0.1, 1]}}, "pruning.kind=none"), [spec.base_config])
    assert unpruned["checkpoints"] * 1e9 == pytest.approx(weights * 3 * 3 + weights * 2 * (3 + 3))
    irn = disk(spec_of(tmp_path, {"loss.w_cls": {"float": [0.1, 1]}}, "random_walk.kind=irn"), [spec.base_config])
    assert irn["crf"] * 1e9 == pytest.approx(pixels)


def test_superpixels_are_priced_to_the_highest_level(tmp_path: Path) -> None:
    def highest(S_N: int) -> int:
        base = with_values(config_from(SCENES, "-"), {"patches.S_N": S_N}, "-")
        return levels_of(base.patches, base.data)[-1]

    S_N = {"int": [5, 600], "log": True}
    searched = spec_of(tmp_path, {"patches.S_N": S_N})
    assert superpixel_levels(searched) == range(highest(600) + 1)
    kind = {"choice": ["grid", "superpixel"]}
    either = {"patches.kind": kind, "patches.S_N": {**S_N, "when": {"patches.kind": "superpixel"}}}
    assert superpixel_levels(spec_of(tmp_path, either, "patches.kind=grid")) == range(highest(600) + 1)
    grid = spec_of(tmp_path, {"loss.w_cls": {"float": [0.1, 1]}}, "patches.kind=grid")
    assert superpixel_levels(grid) == range(0) and disk(grid, [grid.base_config])["superpixels"] == 0


def test_no_fixed_number_of_trials_has_no_total(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    search = {"patches.p_h": {"float": [0.1, 0.5]}}
    dump_yaml(path, {"name": "s", "base": {"preset": "official"}, "search": search, "budget": {"wall_hours": 3}})
    price = estimate(load_spec(path))
    assert (price.trials, price.hours, price.confirm_runs) == (None, None, 15) and price.hours_per_trial > 5
    assert estimate(load_spec(path, ["budget.price_per_gpu_hour=2"])).money is None


def test_no_more_is_confirmed_than_was_tried(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    search = {"patches.p_h": {"float": [0.1, 0.5]}}
    dump_yaml(path, {"name": "s", "base": {"preset": "official"}, "search": search, "budget": {"trials": 2}})
    assert confirm_runs(load_spec(path)) == 3 * (1 + 1 + 1)
    assert confirm_runs(load_spec(path, ["confirm.top_k=0"])) == 1  # cam_baseline, for the table
    assert confirm_runs(load_spec(path, ["budget.trials=1"])) == 3 * (1 + 0 + 1)
    more = load_spec(path, ["budget.trials=5", "confirm.seeds=5", "confirm.reference_seeds=10"])
    assert confirm_runs(more) == 10 + 5 * (4 + 1)
    assert confirm_runs(load_spec(path, ["budget.trials=9"])) == 12 + 3  # a race of five
    assert confirm_runs(load_spec(path, ["budget.trials=9", "confirm.runs=20"])) == 20 + 3
