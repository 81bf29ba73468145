"""The UI command: on 127.0.0.1 unless told otherwise, no stranger gets in, one line when it fails, no secret shown."""

import base64
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from platform.tracking import read
from platform.tracking.client import connect
from platform.ui import PASSWORD, check_port, hosts, in_address, main, names_of
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from cpn.core.errors import InputError, run_command


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture(autouse=True)
def no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whoever runs the tests."""
    monkeypatch.delenv(PASSWORD, raising=False)


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
    said = capsys.readouterr().out
    assert f"all experiments: http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning" in said


def test_a_store_that_does_not_answer_is_shown_all_the_same(
    executed: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(uri: str) -> None:
        raise OSError("http://me:secret@tracking does not answer")

    monkeypatch.setattr(read, "newest_sweep", away)
    assert main(["--uri", "http://me:secret@tracking:5000"]) == 0
    said = capsys.readouterr().out
    assert "which sweep is the newest is not known" in said and "secret" not in said


def test_a_password_stays_out_of_the_command_line(executed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "newest_sweep", lambda uri: None)
    uri = "postgresql://me:secret@db/mlflow"
    main(["--port", str(free_port()), "--uri", uri])
    _, command, environment = executed[0]
    assert "secret" not in " ".join(command) and environment["MLFLOW_BACKEND_STORE_URI"].endswith(
        "://me:secret@db/mlflow"
    )


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgresql://", "names no host; write postgresql://HOST:PORT"),
        ("postgresql://127.0.0.1:many/x", "no port stands behind the host"),
        ("ftp://host/x", "is no store; write sqlite:///FILE"),
    ],
)
def test_a_store_that_cannot_be_is_refused(executed: list[Any], uri: str, said: str) -> None:
    """MLflow's server would start and wait for it."""
    with pytest.raises(InputError, match=said):
        main(["--port", str(free_port()), "--uri", uri])
    assert not executed


def test_a_database_that_is_away_is_said(
    executed: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(read, "newest_sweep", lambda uri: None)
    main(["--port", str(free_port()), "--uri", f"postgresql://me:secret@127.0.0.1:{free_port()}/x"])
    said = capsys.readouterr().err
    assert executed and "does not answer" in said and said.endswith("; MLflow waits for it\n") and "secret" not in said


def test_without_a_store_nothing_is_made(executed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no records here yet; run a sweep first"):
        main(["--port", str(free_port())])
    assert not executed and not list(tmp_path.iterdir())


def test_a_server_has_its_own_ui(
    executed: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "newest_sweep", lambda uri: ("made", "7"))
    assert main(["--uri", "http://me:secret@tracking:5000"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "the MLflow UI is at http://me:***@tracking:5000" and not executed
    leaderboard = "http://me:***@tracking:5000/#/experiments/7/runs?viewStateShareKey=leaderboard"
    assert f"the newest sweep, made, its trials ranked: {leaderboard}" in said


SECRET = "correct-horse-battery"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0"])
def test_other_machines_are_not_served_without_a_password(
    host: str, executed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(InputError, match=f"--host {host}: other machines could read .* {PASSWORD}, or leave --host"):
        main(["--port", str(free_port()), "--host", host])
    monkeypatch.setenv(PASSWORD, "short")
    with pytest.raises(InputError, match=f"{PASSWORD}: 5 characters are too few; give at least 12"):
        main(["--port", str(free_port()), "--host", host])
    assert not executed and [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "127.1"])
def test_this_machine_needs_no_password(
    host: str, executed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").touch()
    main(["--port", str(free_port()), "--host", host])
    _, command, environment = executed[0]
    assert command[command.index("--app-name") + 1] == "cpn" and "MLFLOW_AUTH_CONFIG_PATH" not in environment
    plugin = next(Path(place) for place in environment["PYTHONPATH"].split(os.pathsep) if place.endswith("/plugin"))
    assert "cpn = platform.tracking" in (plugin / "mlflow_app.dist-info/entry_points.txt").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_other_machines_are_served_with_mlflows_authentication(
    executed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "100 %"
    home.mkdir()
    monkeypatch.chdir(home)
    (home / "mlflow.db").touch()
    monkeypatch.setenv(PASSWORD, SECRET)
    main(["--port", str(free_port()), "--host", "0.0.0.0"])
    _, command, environment = executed[0]
    assert command[command.index("--app-name") + 1] == "basic-auth"
    assert command[command.index("--host") + 1] == "0.0.0.0"
    assert environment["MLFLOW_AUTH_CONFIG_PATH"] == str(home / "mlflow_auth/basic_auth.ini")
    assert stat.S_IMODE((home / "mlflow_auth").stat().st_mode) == 0o700
    assert SECRET not in " ".join(command) + capsys.readouterr().out
    assert SECRET not in (home / "mlflow_auth/basic_auth.ini").read_text()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "8.8.8.8", "x" * 300])
def test_an_address_that_is_not_ours_is_refused(host: str, executed: list[Any], tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(InputError, match="no such address|cannot listen on 8.8.8.8"):
        main(["--uri", f"sqlite:///{tmp_path}/mlflow.db", "--port", str(free_port()), "--host", host])
    assert not executed


def asked(url: str, user: str | None = None, content: Any = None) -> tuple[int, Any]:
    """A real request; status and what came."""
    request = urllib.request.Request(url, None if content is None else json.dumps(content).encode())
    request.add_header("Content-Type", "application/json")
    if user is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
            return answer.status, json.loads(content) if content[:1] == b"{" else content
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_guarded_server_shows_only_what_the_admin_gave(tmp_path: Path) -> None:
    """Real requests, on this machine: with a password set they are guarded here as they are beyond it."""
    made = connect(f"sqlite:///{tmp_path}/mlflow.db").create_experiment("patch")
    port = free_port()
    url = f"http://127.0.0.1:{port}/api/2.0/mlflow"
    command = [sys.executable, "-m", "platform.ui", "--port", str(port)]
    environment = {**os.environ, PASSWORD: SECRET, "PYTHONPATH": str(Path(__file__).parents[2])}
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until = time.monotonic() + 200
        while time.monotonic() < until and server.poll() is None:
            try:
                if asked(f"http://127.0.0.1:{port}/health")[0]:
                    break
            except OSError:
                time.sleep(0.5)
        get, search = f"{url}/experiments/get?experiment_id={made}", f"{url}/experiments/search"
        admin, guest = f"admin:{SECRET}", "guest:another-password"
        assert asked(get)[0] == 401 and asked(search, None, {"max_results": 9})[0] == 401, "a stranger"
        assert asked(get, "admin:password1234")[0] == 401 and asked(get, "admin:")[0] == 401, "a guess"
        assert asked(get, admin)[1]["experiment"]["name"] == "patch"
        assert asked(f"{url}/users/create", guest, {"username": "guest", "password": "another-password"})[0] == 401
        assert asked(f"{url}/users/create", admin, {"username": "guest", "password": "another-password"})[0] == 200
        assert asked(get, guest)[0] == 403, "a user to whom nothing was given"
        assert asked(search, guest, {"max_results": 9}) == (200, {})
        changed = {"experiment_id": made, "key": "x", "value": "y"}
        assert asked(f"{url}/experiments/set-experiment-tag", guest, changed)[0] == 403
        prompt = {"name": "p", "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}
        for kind, body in (("experiments", {"name": "new"}), ("registered-models", {"name": "new"}),
                           ("registered-models", prompt)):  # fmt: skip
            assert asked(f"{url}/{kind}/create", guest, body)[0] == 403, "who may see nothing creates nothing"
        given = {"username": "guest", "resource_type": "experiment", "resource_id": made, "permission": "READ"}
        grant = f"{url.replace('2.0', '3.0')}/users/permissions/grant"
        assert asked(grant, guest, given)[0] == 403
        assert asked(grant, admin, given)[0] == 200
        assert asked(get, guest)[1]["experiment"]["name"] == "patch"
        assert asked(f"{url}/experiments/set-experiment-tag", guest, changed)[0] == 403
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_on_this_machine_alone_mlflows_own_list_of_hosts_stays(host: str) -> None:
    assert hosts(host, 5000) == {}


@pytest.mark.parametrize(
    ("host", "mine"),
    [
        ("0.0.0.0", ["box", "box.lab.example", "192.0.2.7", "2001:db8::7", "localhost"]),
        ("::", ["box", "box.lab.example", "192.0.2.7", "2001:db8::7"]),
        ("192.0.2.7", ["192.0.2.7"]),
        ("2001:db8::7", ["2001:db8::7"]),
    ],
)
def test_a_server_answers_at_the_names_that_it_prints(
    host: str, mine: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By MLflow's own judges: of the header, and of a page that asks for a change."""
    from mlflow.server.security_utils import is_allowed_host_header, should_block_cors_request

    found = {"eth0": [SimpleNamespace(family=socket.AF_INET, address="192.0.2.7"),
                      SimpleNamespace(family=socket.AF_INET6, address="2001:db8::7%eth0")]}  # fmt: skip
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    monkeypatch.setattr(socket, "getfqdn", lambda: "box.lab.example")
    for name in ("MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"):
        monkeypatch.delenv(name, raising=False)
    told = hosts(host, 5000)
    allowed = told["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    origins = told["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    for name in [names_of(host)[0], *mine]:
        for header in (in_address(name), f"{in_address(name)}:5000"):
            assert is_allowed_host_header(allowed, header), header
            assert not should_block_cors_request(f"http://{header}", "POST", origins)
    for stranger in ("evil.example", "evil.example:5000", "192.0.2.8:5000"):
        assert not is_allowed_host_header(allowed, stranger)
        assert should_block_cors_request(f"http://{stranger}", "POST", origins)


def test_the_user_s_own_list_of_hosts_goes_before_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "records.example")
    assert hosts("0.0.0.0", 5000)["MLFLOW_SERVER_ALLOWED_HOSTS"] == "records.example"
