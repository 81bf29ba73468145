"""MLflow's first page as `platform.ui` serves it: it opens among runs, and charts and comparisons begin with the score.

MLflow keeps in the browser which of its pages it opens, and opens those about language models in a new one. The page
sets what is not set yet: `mlflow.workflowType_v1`, and that its assistant has been shown once. The charts of a run's
page are kept there too, for each run; a run without any is given ours (charts.py). A comparison begins with the metric
that the server names first.

MLflow's server imports this, as the plugin in mlflow_app.dist-info or through ui_users.py; nothing of ours does.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from mlflow.server import app as flask_app

from .charts import run_charts

FIRST = ("miou", "mask_free", "miou_epoch", "mask_free_epoch")
"""Metrics that a run's list begins with."""
PAGE, RUNS = "serve", "_search_runs"
"""What MLflow calls its first page, and the request for runs."""
NARROW = 700
"""Pixels of a window below which the menu begins folded."""
PAGES = "/ajax-api/"
"""Begins the path of a request that a page of MLflow's makes; programs are answered as ever."""
SCRIPT = """
(function () {
  function first(name, value) {
    if (localStorage.getItem(name) === null) localStorage.setItem(name, JSON.stringify(value));
  }
  try {
    if (!location.hash) location.hash = "#/experiments";  // its home page is about language models
    first("mlflow.workflowType_v1", "machine_learning");
    first("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", true);
    var own = Storage.prototype.getItem, run = /^MLflowLocalStorage-1\\.1-RunPage-[0-9a-f]+-model-chartUIState$/;
    Storage.prototype.getItem = function (name) {
      var found = own.call(this, name);
      return found === null && run.test(name) ? CHARTS : found;
    };
  } catch (error) {}  // a browser that keeps nothing: MLflow as it is
  if (innerWidth < NARROW) new MutationObserver(function (changes, seen) {
    var menu = document.querySelector("[data-component-id='mlflow_header.toggle_sidebar_button']");
    if (menu) { seen.disconnect(); menu.click(); }
  }).observe(document, { childList: true, subtree: true });
})();
"""


STYLE = ".note-editor-preview-content img { max-width: 100%; }"
"""Pictures of a description are as wide as its column: a wider one pushes what stands beside it out of the window."""


def script() -> str:
    """Return what the page runs before MLflow does, and how it shows pictures of descriptions."""
    told = SCRIPT.replace("CHARTS", json.dumps(json.dumps(run_charts()))).replace("NARROW", str(NARROW))
    return f"<style>{STYLE}</style><script>{told}</script>"


def with_script(page: str) -> str:
    """Return a page of MLflow's with our script before its own."""
    return page.replace("<head>", f"<head>{script()}", 1)


def score_first(answer: Any) -> Any:
    """Return the answer about runs, of each its score before its other metrics."""
    for run in [answer.get("run", {}), *answer.get("runs", ())] if isinstance(answer, dict) else ():
        metrics = run.get("data", {}).get("metrics", [])
        metrics.sort(key=lambda metric: FIRST.index(metric["key"]) if metric["key"] in FIRST else len(FIRST))
    return answer


def with_score_first(view: Callable[..., Any]) -> Callable[..., Any]:
    """Return a view of the server whose answer names scores first."""

    def answer(**arguments: Any) -> Any:
        response = view(**arguments)
        asked = request.path.startswith(PAGES) and isinstance(response, Response) and response.status_code == 200
        if asked and response.is_json:
            response.set_data(json.dumps(score_first(response.get_json())))
        return response

    return answer


def install(app: Flask) -> None:
    """Replace two answers of MLflow's server by ours; a server that calls them by other names stays as it is."""
    views = app.view_functions
    if RUNS in views:
        views[RUNS] = with_score_first(views[RUNS])
    index = Path(app.static_folder or "") / "index.html"
    if PAGE in views and index.is_file():
        page = with_script(index.read_text(encoding="utf-8"))
        # Without a date or tag to ask by: a browser that has MLflow's own page would keep it.
        views[PAGE] = lambda: Response(page, mimetype="text/html", headers={"Cache-Control": "no-store"})


install(flask_app)


def create_app() -> Any:
    """Return the server, for `mlflow ui --app-name`."""
    from mlflow.server.fastapi_app import app

    return app
