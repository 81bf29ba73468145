"""The MLflow server of deploy/compose.yaml without Docker, and requests in the name of its users."""

import base64
import json
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from benchmarks.services.mlflow import healthy
from benchmarks.services.postgres import Postgres
from benchmarks.services.processes import Service, free_port, marked
from tests.conftest import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


class Mlflow(Service):
    """The server as compose starts it."""

    url: str
    admin: tuple[str, str]

    def ask(self, who: tuple[str, str] | None, path: str, **body: object) -> tuple[int, dict[str, object]]:
        """(status, answer) of a request in the name of `who`."""
        request = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        if who is not None:
            request.add_header("Authorization", "Basic " + base64.b64encode(":".join(who).encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, {}


def database_environment(database: Postgres) -> dict[str, str]:
    """What libpq reads, and so the URLs need not say."""
    return {
        "PGHOST": "127.0.0.1", "PGPORT": str(database.port), "PGUSER": "cpn", "PGPASSWORD": database.password,
    }  # fmt: skip


@contextmanager
def mlflow_with_users(database: Postgres, store: Mapping[str, str], makers: str) -> Iterator[Mlflow]:
    """Compose's service `mlflow`: its command with another host and port, its settings with this test's secrets.
    `makers` start sweeps in their own name.
    """
    service = COMPOSE["mlflow"]
    with marked("mlflow") as mark:
        port, password = free_port(), secrets.token_hex(16)
        own = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}"}
        command = [own.get(word, word.replace(":5000", f":{port}")) for word in service["command"]]
        assert command[0] == "mlflow" and set(own) <= set(service["command"])
        settings = {
            "MLFLOW_AUTH_CONFIG_PATH": str(DEPLOY / Path(service["environment"]["MLFLOW_AUTH_CONFIG_PATH"]).name),
            "MLFLOW_AUTH_ADMIN_USERNAME": service["environment"]["MLFLOW_AUTH_ADMIN_USERNAME"],
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "CPN_MLFLOW_MAKERS": makers,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        assert set(settings) - {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION"} <= set(service["environment"])
        environment = {**mark.environment, **database_environment(database), **store, **settings}
        environment.pop("PYTHONPATH", None)  # of tests; the image has none
        server = Mlflow([sys.executable, "-m", *command], mark.folder / "log", environment, lambda: healthy(port), 400)
        server.url, server.admin = f"http://127.0.0.1:{port}", ("admin", password)
        server.start()
        try:
            yield server
        finally:
            server.stop()
