"""Views that MLflow's UI opens by an address. That it does: tests/browser/test_mlflow_ui.py."""

import json
from collections.abc import Callable
from pathlib import Path
from platform.config.spec import load_spec
from platform.tracking.client import connect
from platform.tracking.in_mlflow import saved_views as module
from platform.tracking.in_mlflow.saved_views import TAG, address_of, newest_sweep, saved_views
from typing import Any

import pytest

from tests.conftest import CHECKOUT


def test_the_leaderboard_shows_scores_searched_values_and_state_best_first() -> None:
    made = saved_views(load_spec(CHECKOUT / "search_spaces/quickstart.yaml", []))
    assert list(made) == [f"{TAG}{name}" for name in ("leaderboard", "confirm", "stages")]
    told = json.loads(made[f"{TAG}leaderboard"])
    state = json.loads(told["state"])
    assert (told["name"], state["orderByKey"], state["orderByAsc"]) == ("Leaderboard", "metrics.`miou`", False)
    assert state["searchFilter"] == "tags.kind = 'trial'"
    columns = state["selectedColumns"]
    assert columns[:2] == ["metrics.`miou`", "metrics.`miou_confirm_mean`"] and columns[-1] == "tags.`state`"
    assert {"params.`patches.S_N`", "params.`loss.w_tcp`"} <= set(columns)


def test_views_are_the_same_each_time_and_short_enough_for_a_tag() -> None:
    for name in ("quickstart", "patch", "photos"):
        spec = load_spec(CHECKOUT / f"search_spaces/{name}.yaml", [])
        assert saved_views(spec) == saved_views(spec) and max(map(len, saved_views(spec).values())) < 5000


def test_the_newest_sweep_is_found_without_mlflow(
    new_store: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = new_store("views")
    client = connect(uri)
    assert newest_sweep(uri) is None
    for name in ("first", "second"):
        client.create_experiment(name, tags={f"{TAG}leaderboard": "{}"})
    client.create_experiment("somebody else's")

    def refused(*_: Any) -> None:
        raise AssertionError("MLflow takes seconds to import")

    monkeypatch.setattr(module, "mlflow_module", refused)
    found = newest_sweep(uri)
    assert found is not None and found[0] == "second"
    monkeypatch.undo()
    assert module.newest_in_file(tmp_path / "none.db") is None
    assert address_of("7").startswith("/#/experiments/7/runs?viewStateShareKey=leaderboard&workflowType=")
