"""MLflow's first page as we serve it, over a server that stands in for MLflow's; the real one: tests/browser."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from platform.tracking.in_mlflow.charts import run_charts
from types import ModuleType
from typing import Any

import flask
import pytest

from tests.conftest import CHECKOUT

MODULE = "platform.tracking.in_mlflow.first_page"
SEARCH = "/ajax-api/2.0/mlflow/runs/search"
METRICS = [{"key": "lr", "value": 1.0}, {"key": "miou_epoch", "value": 2.0}, {"key": "miou", "value": 3.0}]


def served(app: flask.Flask) -> None:
    """What MLflow's server answers."""

    @app.route("/")
    def serve() -> Any:
        return flask.send_from_directory(str(app.static_folder), "index.html")

    @app.route("/api/2.0/mlflow/runs/search", methods=["POST"])
    @app.route(SEARCH, methods=["POST"])
    def _search_runs() -> Any:
        if flask.request.get_json()["experiment_ids"] != ["1"]:
            return flask.Response("no such experiment", status=404)
        answer = {"runs": [{"info": {"run_id": "a"}, "data": {"metrics": METRICS}}, {"info": {"run_id": "b"}}]}
        return flask.Response(json.dumps(answer), mimetype="application/json")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], Any]]:
    """Import the module over such a server, or over one that calls its answers by other names; returns its client."""
    (tmp_path / "index.html").write_text("<!doctype html><html><head><script src=main.js></script></head></html>")

    def make(known: bool) -> Any:
        server: Any = ModuleType("mlflow.server")
        server.app = flask.Flask("made", static_folder=str(tmp_path))
        if known:
            served(server.app)
        monkeypatch.setitem(sys.modules, "mlflow.server", server)
        monkeypatch.delitem(sys.modules, MODULE, raising=False)
        importlib.import_module(MODULE)
        return server.app.test_client()

    yield make
    sys.modules.pop(MODULE, None)


def test_the_page_opens_among_runs_and_is_asked_for_anew(install: Callable[[bool], Any]) -> None:
    answer = install(True).get("/")
    page = answer.get_data(as_text=True)
    assert page.index('first("mlflow.workflowType_v1", "machine_learning")') < page.index("main.js")
    assert 'first("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", true)' in page
    assert answer.headers["Cache-Control"] == "no-store" and "ETag" not in answer.headers
    assert "img { max-width: 100%; }" in page.partition("main.js")[0], "no picture pushes a page wide"
    assert "innerWidth < 700" in page.partition("main.js")[0], "on a phone the menu begins folded"


def test_a_run_without_charts_of_its_own_gets_ours(install: Callable[[bool], Any]) -> None:
    page = install(True).get("/").get_data(as_text=True)
    literal = page.partition("run.test(name) ? ")[2].partition(" : found;")[0]
    assert json.loads(json.loads(literal)) == run_charts() and "</script>" not in literal


def test_runs_name_their_score_first(install: Callable[[bool], Any]) -> None:
    client = install(True)

    def keys(path: str) -> list[str]:
        found = client.post(path, json={"experiment_ids": ["1"]}).get_json()["runs"]
        assert [run["info"]["run_id"] for run in found] == ["a", "b"]
        return [metric["key"] for metric in found[0]["data"]["metrics"]]

    assert keys(SEARCH) == ["miou", "miou_epoch", "lr"]
    assert keys("/api/2.0/mlflow/runs/search") == ["lr", "miou_epoch", "miou"], "a program"
    refused = client.post(SEARCH, json={"experiment_ids": ["2"]})
    assert (refused.status_code, refused.get_data()) == (404, b"no such experiment")


def test_a_server_with_other_names_stays_as_it_is(install: Callable[[bool], Any]) -> None:
    assert install(False).get("/").status_code == 404


def test_mlflow_finds_the_server_by_its_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT / "platform/tracking/in_mlflow/plugin"))
    (found,) = [each for each in entry_points(group="mlflow.app") if each.name == "cpn"]
    assert found.value == f"{MODULE}:create_app"
