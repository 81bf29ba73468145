"""Real services on loopback: they answer, die, come back on their port, and leave nothing."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from benchmarks.services import processes
from benchmarks.services.mlflow import mlflow_server
from benchmarks.services.postgres import missing, postgres
from benchmarks.services.processes import CHECKOUT, Service, command_lines, marked, with_mark
from benchmarks.services.ray_nodes import ray_nodes
from benchmarks.services.s3 import BUCKET, client, s3

SLEEPS = [sys.executable, "-c", "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"]
needs_postgres = pytest.mark.skipif(missing() is not None, reason=missing() or "")


def until(true: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return true()


def test_command_lines_are_of_what_still_runs() -> None:
    """What ended while it was looked at is left out: a zombie, and one that is gone."""
    with subprocess.Popen(["sleep", "600"]) as runs, subprocess.Popen(["sleep", "601"]) as ends:
        both = [psutil.Process(runs.pid), psutil.Process(ends.pid)]
        ends.kill()
        os.waitid(os.P_PID, ends.pid, os.WEXITED | os.WNOWAIT)
        assert both[1].status() == psutil.STATUS_ZOMBIE
        assert command_lines(both) == ["sleep 600"]
        ends.wait()
        assert command_lines(both) == ["sleep 600"]
        runs.kill()


def test_the_end_of_the_block_ends_children_of_killed_ones_too() -> None:
    with marked("test") as mark:
        service = Service(SLEEPS, mark.folder / "log", mark.environment, lambda: len(mark.processes()) == 2)
        service.start()
        parent, child = service.processes()
        parent.kill()
        assert until(lambda: mark.processes() == [child]) and mark.folder.is_dir()
    service.stop()  # nothing is left to stop
    assert with_mark(mark.name) == [] and not child.is_running() and not mark.folder.exists()


def test_a_killed_test_leaves_nothing() -> None:
    program = f"""
import time
from benchmarks.services.processes import Service, marked
with marked("test") as mark:
    Service({SLEEPS!r}, mark.folder / "log", mark.environment, lambda: len(mark.processes()) == 2).start()
    print(mark.name, mark.folder, flush=True)
    time.sleep(600)
"""
    test = subprocess.Popen([sys.executable, "-c", program], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert test.stdout is not None
    name, folder = test.stdout.readline().split()
    assert len(with_mark(name)) == 2
    test.kill()
    test.wait()
    test.stdout.close()
    assert until(lambda: not with_mark(name) and not Path(folder).exists())


def test_one_that_does_not_start_says_why() -> None:
    with marked("test") as mark, pytest.raises(RuntimeError, match=r"exit code 3\):\nno port"):
        command = ["sh", "-c", "echo no port; exit 3"]
        Service(command, mark.folder / "log", mark.environment, lambda: False).start()


def test_a_stop_waits_and_then_kills() -> None:
    with marked("test") as mark:
        command = ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
        service = Service(command, mark.folder / "log", mark.environment, lambda: True)
        service.start()
        time.sleep(0.5)
        service.stop(patience_s=0.5)
        # A `sleep` that the shell began as it was killed ends by itself.
        assert service.processes() == [] and until(lambda: mark.processes() == [])


def test_a_free_port_is_given_to_nobody_else() -> None:
    assert all(20_000 <= processes.free_port() < 32_768 for _ in range(20)), "neither Ray nor the system"


@pytest.mark.cluster
@needs_postgres
def test_a_database_comes_back_with_what_was_committed() -> None:
    import sqlalchemy

    with postgres() as server:
        url = server.database("studies")
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE kept (x int)"))
            connection.execute(sqlalchemy.text("INSERT INTO kept VALUES (7)"))
        engine.dispose()
        if os.getuid() == 0:
            assert server.processes()[0].uids().real != 0
        server.kill()
        assert server.processes() == []
        with pytest.raises(sqlalchemy.exc.OperationalError):
            engine.connect()
        server.start()
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT x FROM kept")).scalar() == 7
        engine.dispose()
        wrong = url.replace(server.password, "wrong")
        with pytest.raises(sqlalchemy.exc.OperationalError, match="password"):
            sqlalchemy.create_engine(wrong).connect()
        listening = {c.laddr.ip for c in server.processes()[0].net_connections() if c.status == "LISTEN"}
        assert listening == {"127.0.0.1"}


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_an_mlflow_server_comes_back_with_its_runs(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    with mlflow_server(tmp_path / "mlflow") as server:
        mlflow = MlflowClient(server.url, registry_uri=server.url)
        run = mlflow.create_run(mlflow.create_experiment("kept")).info.run_id
        mlflow.log_text(run, "text", "kept.txt")
        assert mlflow.create_registered_model("kept").name == "kept"
        server.kill()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(server.url, timeout=5)
        server.start()
        assert [file.path for file in mlflow.list_artifacts(run)] == ["kept.txt"]
        gone = server.processes()
    assert [process for process in gone if process.is_running()] == []


@pytest.mark.cluster
def test_an_s3_endpoint_serves_boto3_and_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import fs

    with s3() as server:
        with client(server) as objects:
            objects.put_object(Bucket=BUCKET, Key="a/b.txt", Body=b"kept")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        found, path = fs.FileSystem.from_uri(f"{server.url}/a/b.txt")
        with found.open_input_stream(path) as file:
            assert file.read() == b"kept"


DRIVER = """
import json, ray, sys, time
ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=1)
def where():
    time.sleep(1)
    return ray.get_runtime_context().get_node_id()

print(json.dumps(ray.get([where.remote() for _ in range(4)])), flush=True)
"""


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_ray_nodes_die_and_join() -> None:
    """Work spreads over two nodes, goes on over one, and over a new one; a wrong token is refused."""

    def nodes_used(**more: str) -> set[str]:
        environment = {**os.environ, **cluster.environment, **more}
        ran = subprocess.run([sys.executable, "-c", DRIVER], env=environment, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(ran.stderr)
        return set(json.loads(ran.stdout.splitlines()[-1]))

    with ray_nodes(2, cpus_each=1, resources={"disk": 1}) as cluster:
        both = nodes_used()
        assert len(both) == 2
        cluster.nodes[1].raylet.send_signal(signal.SIGKILL)
        assert until(lambda: not cluster.nodes[1].processes(), 60), "the node's other processes follow its raylet"
        assert until(lambda: [n["state"] for n in cluster.state("nodes")].count("ALIVE") == 1, 60)
        assert nodes_used() < both
        cluster.add(cpus=1)
        assert len(nodes_used() - both) == 1
        with pytest.raises(RuntimeError, match="(?i)token"):
            nodes_used(RAY_AUTH_TOKEN="0" * 64)
        everything = [process for node in cluster.nodes for process in node.processes()]
    assert command_lines(everything) == []
