"""The UI command: it listens on 127.0.0.1 only, says in one line when it cannot, and shows no password."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from platform.tracking_uri import ui_command
from platform.ui import check_port, main
from typing import Any

import pytest

from cpn.errors import InputError, run_command


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would replace this process."""
    calls: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    return calls


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_taken_port_is_refused_in_one_line(
    taken: int,
    executed: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(SystemExit) as left:
        run_command(lambda: main(["--port", str(taken)]))
    said = capsys.readouterr().err
    assert left.value.code == 2 and not executed
    assert said.startswith(f"error: --port {taken}: the MLflow UI cannot listen on 127.0.0.1:{taken} (Address already")
    assert said.count("\n") == 1 and f"--port {taken + 1}" in said


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(InputError, match=f"--port {port}: no such port"):
        check_port(port)


def test_a_free_port_is_served_on_this_machine_only(
    executed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").touch()
    port = free_port()
    main(["--port", str(port)])
    program, command, environment = executed[0]
    assert program == sys.executable and command[1:4] == ["-m", "mlflow", "ui"]
    assert command[command.index("--host") + 1] == "127.0.0.1" and command[command.index("--port") + 1] == str(port)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert f"http://127.0.0.1:{port}" in capsys.readouterr().out


def test_a_password_stays_out_of_the_command_line(executed: list[Any]) -> None:
    uri = "postgresql://me:secret@db/mlflow"
    main(["--port", str(free_port()), "--uri", uri])
    _, command, environment = executed[0]
    assert "secret" not in " ".join(command) and environment["MLFLOW_BACKEND_STORE_URI"] == uri


def test_without_a_store_nothing_is_made(executed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no records here yet; run a sweep first"):
        main(["--port", str(free_port())])
    assert not executed and not list(tmp_path.iterdir())


def test_a_server_has_its_own_ui(executed: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--uri", "http://me:secret@tracking:5000"]) == 0
    assert capsys.readouterr().out == "the MLflow UI is at http://me:***@tracking:5000\n" and not executed


def test_the_printed_command_names_the_store() -> None:
    assert ui_command("sqlite:////data/my runs/mlflow.db").endswith(
        "-m platform.ui --uri 'sqlite:////data/my runs/mlflow.db'"
    )
