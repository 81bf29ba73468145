"""What the remaining time of a sweep starts from is the price that a dry run prints."""

from pathlib import Path
from platform.base.remaining_time import CONFIRM, SEARCH
from platform.config.spec import load_spec
from platform.plan import priced_work as module
from platform.plan.estimate import estimate
from platform.plan.priced_work import priced_work, run_price, stage_seconds

import pytest

from tests.conftest import CHECKOUT

QUICKSTART = CHECKOUT / "search_spaces/quickstart.yaml"


def test_all_runs_cost_what_a_dry_run_says() -> None:
    spec = load_spec(QUICKSTART, [])
    price, found = estimate(spec), priced_work(spec, 2)
    search, again = found.phases[SEARCH], found.phases[CONFIRM]
    assert price.hours is not None and price.hours_per_trial is not None
    assert (search.runs, again.runs) == (price.trials, price.confirm_runs)
    assert search.each == pytest.approx(3600 * price.hours_per_trial)
    reference = run_price(spec, spec.base_config)
    assert (search.runs - 1) * search.each + reference.seconds + again.runs * again.each == pytest.approx(
        3600 * price.hours
    )
    assert reference.epochs * reference.epoch + reference.start + reference.end == pytest.approx(reference.seconds)
    assert found.at_once == 2 and found.known


def test_a_gpu_run_is_priced_by_the_clock() -> None:
    one = load_spec(CHECKOUT / "search_spaces/patch.yaml", [])
    two = load_spec(CHECKOUT / "search_spaces/patch.yaml", ["resources.workers=2"])
    first, second = (run_price(spec, spec.base_config) for spec in (one, two))
    assert first.epoch == pytest.approx(2 * second.epoch) and first.start == second.start
    assert 4 < first.seconds / 3600 < 8, "docs/price.md: 5.9 hours"


def test_stages_that_train_are_priced_and_a_table_has_none() -> None:
    spec = load_spec(QUICKSTART, [])
    assert set(stage_seconds(spec, 1)) == {"cam", "affinity", "deeplab"}
    assert min(stage_seconds(spec, 1).values()) > 0
    assert stage_seconds(spec, 2)["deeplab"] == pytest.approx(stage_seconds(spec, 1)["deeplab"] / 2)


def test_irn_is_priced_by_its_own_backbone_and_crop() -> None:
    given = ["irn.weights=imagenet", "random_walk.kind=irn", "irn.backbone=efficientnet_lite0"]
    small, large, affinity = (
        stage_seconds(load_spec(QUICKSTART, [*given, *more]), 1)["affinity"]
        for more in (["irn.crop=64"], ["irn.crop=128"], ["random_walk.kind=affinity"])
    )
    other = stage_seconds(load_spec(QUICKSTART, [*given, "irn.crop=64", "irn.backbone=scene"]), 1)["affinity"]
    assert large == pytest.approx(4 * small, rel=0.01) and small not in (other, affinity)


def test_own_code_is_not_run_for_its_price(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = load_spec(QUICKSTART, [])
    monkeypatch.setattr(module, "trains_own_code", lambda spec: True)
    monkeypatch.setattr(module, "operations", None)
    found = priced_work(spec, 1)
    assert not found.known and found.phases[SEARCH].runs == spec.trial_limit and found.stages == {}
