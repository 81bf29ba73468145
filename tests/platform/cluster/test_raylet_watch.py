"""A Ray node that dies is noticed: by its socket, and on a real cluster whose head goes in the middle of a sweep."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from platform.base.lock import read_driver
from platform.base.paths import SweepPaths
from platform.cluster.ray_environment import worker_environment
from platform.cluster.raylet_watch import listens, watched
from subprocess import PIPE
from types import SimpleNamespace

import pytest

from benchmarks.services.ray_nodes import ray_nodes
from tests.platform.cluster.test_several_nodes import until
from tests.test_smoke import SPEC, start


def test_who_listens(tmp_path: Path) -> None:
    name = str(tmp_path / "raylet")
    assert not listens(name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        assert not listens(name)
        server.listen(0)
        assert listens(name)
        assert listens(name) and listens(name), "one that is late to accept is there all the same"
    assert Path(name).exists() and not listens(name)


def test_a_node_is_lost_at_the_moment_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not while it is slow: here it never takes a connection."""
    import ray

    name, lost = str(tmp_path / "raylet"), threading.Event()
    rows = [{"NodeID": "other", "RayletSocketName": "/nowhere"}, {"NodeID": "mine", "RayletSocketName": name}]
    monkeypatch.setattr(ray, "nodes", lambda: rows)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "mine"))
    monkeypatch.setattr("platform.cluster.raylet_watch.LOOK_S", 0.1)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen(100)
        with watched(lost.set):
            assert not lost.wait(0.5)
            server.close()
            assert lost.wait(30)


def test_a_connection_that_ends_is_not_a_node_that_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    name, lost = str(tmp_path / "raylet"), threading.Event()
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "mine", "RayletSocketName": name}])
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "mine"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen(100)
        server.settimeout(30)
        with watched(lost.set):
            for _ in range(5):
                server.accept()[0].close()
            assert not lost.is_set()


def test_a_node_that_is_on_another_machine_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "mine", "RayletSocketName": str(tmp_path / "elsewhere")}])
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "mine"))
    monkeypatch.setattr("platform.cluster.raylet_watch.LOOK_S", 0.01)
    lost: list[str] = []
    with watched(lambda: lost.append("lost")):
        time.sleep(0.3)
    assert lost == []


DRIVER = """
import ray
from platform.cluster.interruption import Interruption
from platform.cluster.ray_driver import ray_cluster
from platform.config.sections import Resources
interruption = Interruption()
with interruption.watch(print), ray_cluster(Resources(gpus_per_worker=0), interruption.lose):
    print("joined", flush=True)
    while True:
        ray.cluster_resources()
"""


@pytest.mark.ray
@pytest.mark.cluster
def test_a_driver_is_gone_before_another_cluster_answers() -> None:
    """That call waits for the head whatever happens, and aborts the process when another one answers."""
    with ray_nodes(1, cpus_each=1) as cluster:
        environment = {**os.environ, **cluster.environment, "PYTHONPATH": worker_environment()["PYTHONPATH"]}
        command = [sys.executable, "-c", DRIVER]
        with subprocess.Popen(command, env=environment, stdout=PIPE, stderr=PIPE, text=True) as driver:
            assert driver.stdout is not None and driver.stdout.readline() == "joined\n"
            cluster.nodes[0].kill()
            cluster.nodes[0].start()
            _, said = driver.communicate(timeout=120)
        reason = f"RAY_ADDRESS: this machine's Ray node at {cluster.address} has died; start Ray again"
        assert driver.returncode == 1 and said.startswith(f"failed: {reason}") and said.count("\n") == 1, said


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.extra
@pytest.mark.timeout(900)
def test_after_a_heads_death_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a trial trains, and while a stage runs; another cluster is started at the same address each time."""
    spec = SPEC.replace("top_k: 1", "top_k: 0").replace("trials: 2", "trials: 1")
    (tmp_path / "smoke.yaml").write_text(spec.replace("epochs: 2, batch_size: 4", "epochs: 20, batch_size: 4"))
    runs, stages = tmp_path / "sweeps/runs", tmp_path / "sweeps/stages"
    with ray_nodes(1, cpus_each=2) as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        for at in (lambda: bool(list(runs.glob("*/checkpoints/epoch_*"))), lambda: bool(list(stages.glob("*")))):
            sweep = start(tmp_path)
            until(at, "a checkpoint, and then a stage", sweep, 400)
            cluster.nodes[0].kill()
            time.sleep(1)
            cluster.nodes[0].start()
            said, _ = sweep.communicate(timeout=120)
            assert sweep.returncode == 1, said
            assert f"this machine's Ray node at {os.environ['RAY_ADDRESS']} has died; start Ray again" in said, said
            assert "Traceback" not in said and "StackTrace" not in said, said
            driver = read_driver(SweepPaths(tmp_path / "sweeps" / "smoke"))
            assert driver is not None and driver.stands == "failed" and "has died" in str(driver.reason)
        sweep = start(tmp_path)
        said, _ = sweep.communicate(timeout=400)
        assert sweep.returncode == 0, said
        assert "smoke-0000  started" not in said and len(list(stages.glob("*/manifest.json"))) == 5
