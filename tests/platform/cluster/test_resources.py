"""Sweeps on logical resources: shares of a card, unlike cards, machines that come late and machines that go."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from platform.cluster.capacity import LOGICAL_GPUS

import pytest

from benchmarks.services.ray_nodes import Cluster, ray_nodes
from tests.conftest import CHECKOUT

SPEC = """
name: {name}
base:
  preset: [official, scenes]
  data: {{scenes: {{train: 16, val: 6, seed: 3}}}}
  network: {{weights: null}}
  train: {{epochs: {epochs}, batch_size: 4}}
  cam: {{scales: [1.0]}}
  affinity: {{epochs: 1, batch_size: 4}}
  random_walk: {{radius: 3}}
  deeplab: {{iterations: 4, batch_size: 4, width: 8, scales: [1.0]}}
budget: {{trials: 1}}
confirm: {{top_k: 0, seeds: 1}}
resources: {resources}
"""


def start(folder: Path, cluster: Cluster, resources: str, epochs: int = 1) -> "subprocess.Popen[str]":
    """A sweep of one trial on the cluster, and then all stages."""
    (folder / "s.yaml").write_text(SPEC.format(name="s", resources=resources, epochs=epochs))
    environment = {**os.environ, **cluster.environment, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "platform.sweep", "s.yaml"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(what: str, cluster: Cluster, holds) -> None:  # type: ignore[no-untyped-def]
    """Until the cluster's state is as asked; fails after four minutes."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.5)
    raise AssertionError(f"{what} was not seen: {cluster.state('placement_groups')}")


def waiting(cluster: Cluster) -> list[str]:
    """Placement groups that no machine has room for."""
    return [row["state"] for row in cluster.state("placement_groups") if row["state"] == "PENDING"]


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.extra
@pytest.mark.timeout(600)
def test_two_workers_wait_for_and_share_the_wanted_card(tmp_path: Path) -> None:
    """The head has nothing, the card that is there is of another kind; the wanted one joins, as if scaled up."""
    resources = "{workers: 2, gpus_per_worker: 0.5, accelerator: A100, autoscaled: true, concurrent: 1}"
    with ray_nodes(1, cpus_each=0, environment={LOGICAL_GPUS: "1"}) as cluster:
        cluster.add(cpus=2, gpus=1, resources={"accelerator_type:T4": 1})
        with start(tmp_path, cluster, resources) as sweep:
            wait_for("a trial that waits for its card", cluster, lambda: waiting(cluster))
            cluster.add(cpus=2, gpus=1, resources={"accelerator_type:A100": 1})
            said, _ = sweep.communicate(timeout=400)
    assert sweep.returncode == 0, said
    results = list(tmp_path.glob("sweeps/runs/*/result.json"))
    assert results and all("miou" in json.loads(result.read_text())["metrics"] for result in results)
    assert len(list(tmp_path.glob("sweeps/stages/*/manifest.json"))) == 5


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.extra
@pytest.mark.timeout(600)
def test_a_trial_goes_on_with_fewer_workers_when_a_machine_goes(tmp_path: Path) -> None:
    resources = "{workers: 2, min_workers: 1, gpus_per_worker: 0, concurrent: 1}"
    with ray_nodes(2, cpus_each=1) as cluster:
        with start(tmp_path, cluster, resources, epochs=40) as sweep:
            wait_for("a checkpoint", cluster, lambda: list(tmp_path.glob("sweeps/runs/*/checkpoints/*")))
            cluster.nodes[1].kill()
            said, _ = sweep.communicate(timeout=400)
    assert sweep.returncode == 0, said
    histories = [json.loads(path.read_text())["history"] for path in tmp_path.glob("sweeps/runs/*/result.json")]
    assert histories and all([entry["epoch"] for entry in each] == list(range(1, 41)) for each in histories)
