"""The price of a sweep, from its specification alone."""

from pathlib import Path
from platform.files import dump_yaml
from platform.plan import confirm_runs, estimate, list_length, trial_hours
from platform.spec import load_spec

import pytest

from cpn.config import config_from, with_values

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"


def test_the_voc_sweep_costs_what_its_header_says() -> None:
    """64 trials; the reference, the three best and cam_baseline with three seeds each; about 5 hours a run."""
    spec = load_spec(SPACES / "patch.yaml")
    price = estimate(spec)
    assert (price.trials, price.confirm_runs) == (64, 3 * (1 + 3 + 1))
    plain = trial_hours(config_from({"preset": "cam_baseline"}, "-"))
    assert price.gpu_hours == pytest.approx((64 + 12) * price.gpu_hours_per_trial + 3 * plain)
    assert plain < price.gpu_hours_per_trial / 2
    assert 5 <= price.gpu_hours_per_trial <= 7
    # A network of 105 million floats for every run and for two stages, in its folder and in MLflow's, and checkpoints
    # with momentum of the run that trains.
    assert price.disk_gb == pytest.approx(105.4e6 * 4 * (2 * (79 + 2) + 4) / 1e9)
    assert price.money is None
    priced = estimate(load_spec(SPACES / "patch.yaml", ["budget.price_per_gpu_hour=0.5"]))
    assert priced.money == pytest.approx(price.gpu_hours / 2)


def test_training_is_what_the_formula_says() -> None:
    """8 epochs x 10582 images x 3 branches x 3 x 0.8 TFLOP at 30 TFLOP/s; the rest is scoring 1464 images."""
    config = config_from({"cam": {"scales": [1.0], "flip": False}}, "-")
    seconds = (8 * 10582 * 3 * 3 * 0.8e12 + 1464 * 0.8e12 * (1 + 8)) / 30e12
    assert trial_hours(config) == pytest.approx(seconds / 3600)


@pytest.mark.parametrize(
    ("name", "value"),
    [("train.objective", "classification"), ("train.epochs", 4), ("data.crop", 224), ("cam.flip", False),
     ("network.backbone", "scene")],
)  # fmt: skip
def test_less_work_costs_less(name: str, value: object) -> None:
    config = config_from({}, "-")
    assert trial_hours(with_values(config, {name: value}, "-")) < trial_hours(config)


def test_scenes_cost_next_to_nothing() -> None:
    spec = load_spec(SPACES / "quickstart.yaml")
    price = estimate(spec)
    assert (price.trials, price.confirm_runs) == (8, 3 * (1 + 1 + 1))
    assert price.gpu_hours is not None and price.gpu_hours < 0.01 and price.disk_gb < 0.01


def test_lists_of_scenes_have_the_lengths_that_are_asked_for() -> None:
    scenes = {"train": 30, "extra": 5, "val": 7}
    config = config_from({"preset": ["official", "scenes"], "data": {"scenes": scenes}}, "-")
    assert [list_length(config, name) for name in ("train", "trainaug", "val")] == [30, 35, 7]
    named = with_values(config, {"data.root": "/data/VOC2012"}, "-")
    assert [list_length(named, name) for name in ("train", "trainaug", "val")] == [1464, 10582, 1449]


def test_no_fixed_number_of_trials_has_no_total(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    search = {"patches.p_h": {"float": [0.1, 0.5]}}
    dump_yaml(path, {"name": "s", "base": {"preset": "official"}, "search": search, "budget": {"wall_hours": 3}})
    price = estimate(load_spec(path))
    assert (price.trials, price.gpu_hours, price.confirm_runs) == (None, None, 15) and price.gpu_hours_per_trial > 5
    assert estimate(load_spec(path, ["budget.price_per_gpu_hour=2"])).money is None


def test_no_more_is_confirmed_than_was_tried(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    search = {"patches.p_h": {"float": [0.1, 0.5]}}
    dump_yaml(path, {"name": "s", "base": {"preset": "official"}, "search": search, "budget": {"trials": 2}})
    assert confirm_runs(load_spec(path)) == 3 * (1 + 1 + 1)
    assert confirm_runs(load_spec(path, ["confirm.top_k=0"])) == 1  # cam_baseline, for the table
    assert confirm_runs(load_spec(path, ["budget.trials=1"])) == 3 * (1 + 0 + 1)
    more = load_spec(path, ["budget.trials=9", "confirm.seeds=5", "confirm.reference_seeds=10"])
    assert confirm_runs(more) == 10 + 5 * (3 + 1)
