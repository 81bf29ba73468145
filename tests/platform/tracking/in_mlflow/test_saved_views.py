"""Views that MLflow's UI opens by an address. That it does: tests/browser/test_mlflow_ui.py."""

import base64
import hashlib
import json
import zlib
from platform.config.spec import load_spec
from platform.tracking.in_mlflow.image_grid import image_key
from platform.tracking.in_mlflow.saved_views import ALWAYS, PACKED, TAG, address_of, saved_views
from typing import Any

from cpn.plots.epoch_pictures import LONGEST_NAME, MOST
from tests.conftest import CHECKOUT


def unpacked(state: str) -> Any:
    """What MLflow reads."""
    return json.loads(zlib.decompress(base64.b64decode(state.removeprefix(PACKED))))


def test_the_leaderboard_ranks_by_the_objective() -> None:
    made = saved_views(load_spec(CHECKOUT / "search_spaces/quickstart.yaml", []))
    assert list(made) == [f"{TAG}{name}" for name in ("leaderboard", "confirm", "stages")]
    told = json.loads(made[f"{TAG}leaderboard"])
    state = unpacked(told["state"])
    assert (told["name"], state["orderByKey"], state["orderByAsc"]) == ("Leaderboard", "metrics.`miou`", False)
    assert state["searchFilter"] == "tags.kind = 'trial'"
    columns = state["selectedColumns"]
    assert columns[:3] == ["metrics.`miou`", "metrics.`miou_confirm_mean`", "tags.`state`"]
    assert {"params.`patches.S_N`", "params.`loss.w_tcp`"} <= set(columns)
    assert all(name.startswith("params.") for name in columns[3:])
    assert "params.`cam.beta`" not in columns, "read off the curve: the same in every trial"


def test_the_state_stands_where_a_small_window_has_it() -> None:
    made = saved_views(load_spec(CHECKOUT / "search_spaces/quickstart.yaml", []))
    for name in ("leaderboard", "confirm", "stages"):
        state = unpacked(json.loads(made[f"{TAG}{name}"])["state"])
        order, columns = state["columnOrder"], state["selectedColumns"]
        assert order == [*ALWAYS, *columns, "duration"] and set(state["columnWidths"]) == {*ALWAYS, *columns}
        assert all(state["columnWidths"][name] > 7 * len(name.partition(".")[2]) for name in columns), "a head is cut"
        if (last := "tags.`state`") in columns:
            shown = order[: order.index(last) + 1]
            assert sum(state["columnWidths"][name] for name in shown) < 700, "of 1280, the menu and margins off"


def test_every_view_opens_on_the_same_charts() -> None:
    made = saved_views(load_spec(CHECKOUT / "search_spaces/quickstart.yaml", []))
    states = [unpacked(json.loads(view)["state"]) for view in made.values()]
    assert states[0]["compareRunCharts"][0]["metricKey"] == "miou_epoch"
    assert all(state["compareRunCharts"] == states[0]["compareRunCharts"] for state in states)
    searched = next(card for card in states[0]["compareRunCharts"] if card["type"] == "PARALLEL")["selectedParams"]
    assert "patches.S_N" in searched and "cam.beta" not in searched, "read off the curve: no parameter of a run"


def test_views_are_the_same_each_time() -> None:
    for name in ("quickstart", "patch", "photos"):
        spec = load_spec(CHECKOUT / f"search_spaces/{name}.yaml", [])
        drawn = [image_key(hashlib.sha512(str(number).encode()).hexdigest()[:LONGEST_NAME]) for number in range(MOST)]
        assert saved_views(spec, drawn) == saved_views(spec, drawn)
        assert max(map(len, saved_views(spec, drawn).values())) < 5000


def test_a_view_has_an_address() -> None:
    assert address_of("7").startswith("/#/experiments/7/runs?viewStateShareKey=leaderboard&workflowType=")
    assert "viewStateShareKey=leaderboard&compareRunsMode=CHART&" in address_of("7", charts=True)
