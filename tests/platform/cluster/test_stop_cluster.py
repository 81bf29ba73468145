"""A sweep on a cluster that is not its own leaves nothing there, however its driver ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from platform.base.lock import read_driver
from platform.base.paths import SweepPaths

import pytest

from benchmarks.chaos.books import RAYS_OWN
from benchmarks.services.processes import command_lines, with_mark
from benchmarks.services.ray_nodes import Cluster, ray_nodes
from tests.conftest import CHECKOUT
from tests.platform.test_stop import ours, wait_for_an_epoch
from tests.test_smoke import SPEC, read_until, start

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(900)]

OURS = ("ray::ImplicitFunc", "ray::RayTrainWorker", "ray::PlacementGroupCleaner")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_nodes(1, cpus_each=2) as made:
        yield made


def held(cluster: Cluster) -> list[str]:
    """What the cluster holds for anybody: actors, placement groups, processes that run an actor."""
    actors = [row["class_name"] for row in cluster.state("actors") if row["state"] != "DEAD"]
    actors = [name for name in actors if name not in RAYS_OWN]
    groups = [row["placement_group_id"] for row in cluster.state("placement_groups") if row["state"] != "REMOVED"]
    titles = command_lines(process for node in cluster.nodes for process in node.processes())
    return [*actors, *groups, *(title for title in titles if title.startswith(OURS))]


def gone(look: Callable[[], list[str]], seconds: float) -> list[str]:
    """What is left when nothing is, or the time is over."""
    end = time.monotonic() + seconds
    while (left := look()) and time.monotonic() < end:
        time.sleep(1)
    return left


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        pytest.param([signal.SIGINT], 130, marks=pytest.mark.extra),
        pytest.param([signal.SIGTERM, signal.SIGTERM], 143, marks=pytest.mark.extra),
        pytest.param(["platform.stop"], 143, marks=pytest.mark.extra),
        ([signal.SIGKILL], -signal.SIGKILL),
    ],
    ids=["Ctrl-C", "SIGTERM twice", "platform.stop", "kill -9"],
)
def test_nothing_stays_on_the_cluster(
    cluster: Cluster, tmp_path: Path, signals: list[signal.Signals | str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = f"{os.getpid()}-{time.time_ns()}"
    for name, value in {**cluster.environment, "CPN_TEST_MARKER": marker}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "smoke.yaml").write_text(SPEC.replace("epochs: 2, batch_size: 4", "epochs: 5000, batch_size: 4"))
    before = {process.pid for process in with_mark(cluster.nodes[0].name)}
    sweep = start(tmp_path)
    try:
        read_until(sweep, "smoke-0000  started", 600)
        wait_for_an_epoch(tmp_path, sweep)
        assert len(held(cluster)) >= 5
        for what in signals:
            if what == "platform.stop":
                command = [sys.executable, "-m", "platform.stop", "smoke"]
                environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "CPN_TEST_MARKER": ""}
                subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
            else:
                sweep.send_signal(what)
                time.sleep(0.5)
        output, _ = sweep.communicate(timeout=300)
        assert sweep.returncode == code, output
        assert gone(lambda: command_lines(ours(marker)), 30) == []
        assert gone(lambda: held(cluster), 60) == []
        assert before <= {process.pid for process in with_mark(cluster.nodes[0].name)}, "the cluster itself runs on"
        driver = read_driver(SweepPaths(tmp_path / "sweeps" / "smoke"))
        assert driver is not None and driver.stands == "stopped"
    finally:
        sweep.kill()
        sweep.communicate()
