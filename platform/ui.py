"""The records in a browser: `python -m platform.ui`. Checks that the port is free, then becomes `mlflow ui`."""

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from cpn.errors import InputError, run_command

from .tracking_links import VIEW
from .tracking_uri import check_store, mask, sqlite_path, store_uri

EXAMPLE = "python -m platform.ui"
HOST = "127.0.0.1"
"""Nobody but this machine; for another one, tunnel the port with ssh -L."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m platform.ui",
        usage=f"{EXAMPLE} [--port PORT] [--uri URI]",
        description=f"Show the runs, pictures and models of the sweeps in a browser, on {HOST} only.",
    )
    made.add_argument("--port", type=int, default=5000, metavar="PORT", help="port to listen on (default: 5000)")
    made.add_argument("--uri", metavar="URI", help="tracking.uri of the sweeps (default: mlflow.db in this folder)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Comes back only when the UI runs elsewhere; exit code 2 when there is no store or no free port."""
    given = parser().parse_args(arguments)
    uri = store_uri(given.uri)
    if uri.startswith(("http://", "https://")):
        print(f"the MLflow UI is at {mask(uri)}")
        return 0
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise InputError(f"--uri: {path}: no records here yet; run a sweep first (make sweep), or name its store")
    if path is not None or "://" not in uri:
        check_store(uri, "--uri")
    check_port(given.port)
    print(f"the MLflow UI opens at http://{HOST}:{given.port}/#/experiments?{VIEW} (Ctrl-C ends it)", flush=True)
    # The environment, not the command line, carries the URI: other users of the machine can list command lines.
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes for scoring language models
    }
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(given.port), "--workers", "1"]
    os.execve(sys.executable, command, environment)


def check_port(port: int) -> None:
    """Raise InputError unless a server can listen on `port` here."""
    if not 1 <= port <= 65535:
        raise InputError(f"--port {port}: no such port; give one from 1024 to 65535")
    with socket.socket() as probe:
        # As servers do: the remains of a server that has just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            cure = port + 1 if 1024 <= port < 65535 else 5000
            raise InputError(
                f"--port {port}: the MLflow UI cannot listen on {HOST}:{port} ({error.strerror}); "
                f"end what runs there, or --port {cure}"
            ) from None


if __name__ == "__main__":
    run_command(main)
