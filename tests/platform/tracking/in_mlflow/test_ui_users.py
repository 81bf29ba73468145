"""Who may make what in the guarded UI, with MLflow's server replaced; tests/platform/test_ui.py starts the real one."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import flask
import pytest
from werkzeug.datastructures import Authorization

MODULE, PAGE = "platform.tracking.in_mlflow.ui_users", "platform.tracking.in_mlflow.first_page"


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, over users `admin` and `guest` as MLflow's authentication knows them."""

    def known() -> Any:
        found = flask.request.authorization
        return found if found is not None and found.username in ("admin", "guest") else flask.Response(status=401)

    auth = SimpleNamespace(
        authenticate_request_basic_auth=known,
        make_forbidden_response=lambda: flask.Response(status=403),
        store=SimpleNamespace(get_user=lambda name: SimpleNamespace(is_admin=name == "admin")),
    )
    server: Any = ModuleType("mlflow.server")
    server.auth, server.app = auth, flask.Flask("made")
    monkeypatch.setitem(sys.modules, "mlflow.server", server)
    for name in (MODULE, PAGE):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(MODULE)
    for name in (MODULE, PAGE):
        sys.modules.pop(name, None)


def status(users: Any, user: str, method: str, path: str) -> int:
    """What the request comes to: 200 where it goes on to MLflow's own permissions."""
    with flask.Flask(__name__).test_request_context(path, method=method, auth=(user, "x")):
        found = users.authenticate()
    return 200 if isinstance(found, Authorization) else int(found.status_code)


MAKING = [
    "/api/2.0/mlflow/experiments/create",
    "/ajax-api/2.0/mlflow/registered-models/create",
    "/ajax-api/2.0/mlflow/gateway/endpoints",
    "/ajax-api/3.0/mlflow/mcp-servers",
]


@pytest.mark.parametrize("path", MAKING)
def test_the_admin_alone_makes_what_nobody_gave(users: Any, path: str) -> None:
    assert (status(users, "admin", "POST", path), status(users, "guest", "POST", path)) == (200, 403)
    assert status(users, "guest", "GET", path) == 200, "reading is MLflow's to decide"
    assert status(users, "stranger", "POST", path) == 401


@pytest.mark.parametrize("path", ["/api/2.0/mlflow/runs/create", "/api/2.0/mlflow/experiments/search"])
def test_everything_else_is_left_to_mlflows_permissions(users: Any, path: str) -> None:
    assert status(users, "guest", "POST", path) == 200 and status(users, "stranger", "POST", path) == 401
