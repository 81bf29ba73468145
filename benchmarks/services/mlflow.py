"""An MLflow tracking server with registry and artifacts on a free port of 127.0.0.1:

with mlflow_server(folder) as server:
    server.url                            # http://127.0.0.1:PORT
    server.kill()                         # kill -9; server.start() brings it back on the same port
"""

import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.services.processes import Service, free_port, marked


class MLflow(Service):
    """A tracking server that runs."""

    url: str


@contextmanager
def mlflow_server(folder: Path, backend_uri: str | None = None) -> Iterator[MLflow]:
    """A server that keeps artifacts, and unless `backend_uri` names a database its records, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    backend = backend_uri or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    with marked("mlflow") as mark:
        port = free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--artifacts-destination", str(folder.resolve() / "artifacts")]
        # The URI may hold a password: the environment is not in the list of processes.
        environment = {**mark.environment, "MLFLOW_BACKEND_STORE_URI": backend, "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # a queue with processes of its own, for nobody
        server = MLflow(command, mark.folder / "log", environment, lambda: healthy(port), patience_s=180)
        server.url = f"http://127.0.0.1:{port}"
        server.start()
        try:
            yield server
        finally:
            server.stop()


def healthy(port: int) -> bool:
    """Whether the server answers, as compose asks it too. OSError while it does not."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        return bool(answer.status == 200)
