"""Sweeps over several Ray nodes on this machine, with token authentication: trials spread, a node lost, another joined.

Files go through a folder that all nodes see, or through a bucket; then each node has a scratch folder of its own, as
machines have, and nothing else in common.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest

from benchmarks.services.postgres import Postgres
from benchmarks.services.ray_nodes import Cluster, ray_nodes
from benchmarks.services.s3 import client, s3
from tests.conftest import CHECKOUT
from tests.test_smoke import read_until

SPEC = """
name: {name}
base:
  preset: [official, scenes]
  data: {{scenes: {{train: 16, val: 6, seed: 3}}}}
  patches: {{draw: bernoulli}}
  network: {{weights: null}}
  train: {{epochs: {epochs}, batch_size: 4}}
  cam: {{scales: [1.0]}}
  affinity: {{epochs: 1, batch_size: 4}}
  random_walk: {{radius: 3}}
  deeplab: {{iterations: 4, batch_size: 4, width: 8, scales: [1.0]}}
search:
  patches.p_h: {{float: [0.1, 0.5]}}
budget: {{trials: {trials}}}
resources: {{gpus_per_worker: 0, workers: 1}}
pruning: {{kind: none}}
confirm: {{top_k: 0, seeds: 1}}
"""


def start(folder: Path, name: str, environment: dict[str, str], *sets: str, **values: Any) -> "subprocess.Popen[str]":
    """A sweep in the working folder `folder`."""
    said = {"epochs": 3, "trials": 3, **values}
    (folder / f"{name}.yaml").write_text(SPEC.format(name=name, **said))
    command = [sys.executable, "-m", "platform.sweep", f"{name}.yaml", *(word for s in sets for word in ("--set", s))]
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def until(holds: Callable[[], Any], what: str, process: "subprocess.Popen[str]", seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise AssertionError(f"{what} was not seen:\n{process.communicate()[0]}")
        time.sleep(0.5)


def states(url: str, name: str) -> list[str]:
    return [trial.state.name for trial in optuna.load_study(study_name=name, storage=url).trials]


def nobody_without_token(cluster: Cluster) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{cluster.dashboard}/api/v0/nodes", timeout=30)
    with refused.value as answer:
        assert answer.code in (401, 403)


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_three_nodes_and_a_bucket(tmp_path: Path, postgres_server: Postgres) -> None:
    """Study in PostgreSQL, records in PostgreSQL by URL, everything else in the bucket; another node joins those of two
    workers, one of which is lost when it has kept a checkpoint, and a second machine sees how the sweep stands.
    """
    study, records = postgres_server.database("studies"), postgres_server.database("records")
    with ExitStack() as held:
        bucket = held.enter_context(s3())
        os_environment = dict(os.environ)
        held.callback(lambda: (os.environ.clear(), os.environ.update(os_environment)))
        os.environ.update(bucket.environment)  # a node has its credentials from its own environment
        cluster = held.enter_context(ray_nodes(1, cpus_each=0))
        for name in ("one", "two"):
            cluster.add(cpus=1, more={"CPN_SCRATCH": str(tmp_path / name)})
        nobody_without_token(cluster)
        environment = {**cluster.environment, "CPN_STUDY_URL": study, "CPN_SCRATCH": str(tmp_path / "driver")}
        objects = held.enter_context(client(bucket))

        def kept(prefix: str) -> list[str]:
            found = objects.list_objects_v2(Bucket="cpn", Prefix=f"sweeps/{prefix}", MaxKeys=1000).get("Contents", [])
            return [entry["Key"] for entry in found]

        (tmp_path / "cwd").mkdir()
        sets = f"tracking.uri={records}", f"resources.storage={bucket.url}/sweeps"
        sweep = start(tmp_path / "cwd", "far", environment, *sets, epochs=6)
        until(lambda: [key for key in kept("runs/") if "/checkpoints/" in key], "a checkpoint in the bucket", sweep)
        # First: beside other tests the rest could be done before a new node is up.
        cluster.add(cpus=1, more={"CPN_SCRATCH": str(tmp_path / "three")})
        cluster.nodes[1].kill()
        said, _ = sweep.communicate(timeout=700)
        assert sweep.returncode == 0, said
        assert states(study, "far") == ["COMPLETE"] * 3
        worked = [name for name in ("one", "two", "three") if list((tmp_path / name).glob("data-*/packed"))]
        assert {"two", "three"} <= set(worked), f"only {worked} had anything to do"
        runs = {key.split("/")[2] for key in kept("runs/")}
        assert len(runs) == 4 and not [key for key in kept("runs/") if "/checkpoints/" in key]
        assert len([key for key in kept("stages/") if key.endswith("/manifest.json")]) == 5
        assert json.loads((tmp_path / "cwd/sweeps/far/summary.json").read_text())["trials"]["complete"] == 3
        seen = subprocess.run(
            [sys.executable, "-m", "platform.status", "--json", "--storage", f"{bucket.url}/sweeps"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment,
                               "CPN_SCRATCH": str(tmp_path / "laptop")},
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert seen.returncode == 0, seen.stderr
        (row,) = json.loads(seen.stdout)
        assert (row["sweep"], row["state"], row["complete"]) == ("far", "finished", 3), seen.stderr


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.extra
@pytest.mark.timeout(900)
def test_two_nodes_and_a_shared_folder(tmp_path: Path) -> None:
    """The node that trains is lost after a checkpoint, another joins; every epoch stands once in the books."""
    with ray_nodes(1, cpus_each=0) as cluster:
        cluster.add(cpus=1)
        sweep = start(tmp_path, "near", cluster.environment, epochs=6, trials=2)
        until(lambda: list(tmp_path.glob("sweeps/runs/*/checkpoints/epoch_*")), "a checkpoint", sweep)
        cluster.nodes[1].kill()
        cluster.add(cpus=1)
        said, _ = sweep.communicate(timeout=700)
        assert sweep.returncode == 0, said
    study = f"sqlite:///{tmp_path}/sweeps/study.db"
    assert states(study, "near") == ["COMPLETE"] * 2
    for trial in optuna.load_study(study_name="near", storage=study).trials:
        assert sorted(trial.intermediate_values) == list(range(1, 7))
    assert not list(tmp_path.glob("sweeps/runs/*/checkpoints")) and not list(
        tmp_path.glob("sweeps/stages/*/checkpoints")
    )


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_drained_node_saves_within_the_epoch(tmp_path: Path) -> None:
    """A node with a trial is drained within its second epoch: the training saves at once, and once the node is gone it
    goes on from that step on another, which joined meanwhile.
    """
    with ray_nodes(1, cpus_each=0) as cluster:
        leaving = cluster.add(cpus=1)
        long = "train.epochs=2", "train.checkpoint_minutes=null", "data.scenes.train=600"
        sweep = start(tmp_path, "leaves", cluster.environment, *long, trials=1)
        first = until_one(tmp_path, "epoch_0001", sweep)
        ended = time.time()
        drain(cluster, deadline_s=40)
        part = until_one(tmp_path, "epoch_0001_step_*", sweep)
        assert part.parent == first.parent and not list(part.parent.glob("epoch_0002*"))
        shutil.rmtree(first)  # so that a training which did not take the step's checkpoint would begin anew
        cluster.add(cpus=1)
        leaving.kill()
        read_until(sweep, "leaves-0000  complete", 700)
        sweep.terminate()  # what comes after its one trial takes longer than that, and others show it
        said, _ = sweep.communicate(timeout=200)
        assert sweep.returncode == 143, said
    history = json.loads((part.parents[1] / "result.json").read_text())["history"]
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert history[0]["time"] <= ended, "the first epoch was trained once"
    assert states(f"sqlite:///{tmp_path}/sweeps/study.db", "leaves") == ["COMPLETE"]


def until_one(folder: Path, name: str, sweep: "subprocess.Popen[str]") -> Path:
    """The first checkpoint of that name that a run under the sweep's storage has."""
    until(lambda: list(folder.glob(f"sweeps/runs/*/checkpoints/{name}")), name, sweep)
    return next(folder.glob(f"sweeps/runs/*/checkpoints/{name}"))


def drain(cluster: Cluster, deadline_s: int) -> None:
    """Tell Ray that the one node beside the head is taken away in so many seconds, as an autoscaler does."""
    (name,) = [row["node_id"] for row in cluster.state("nodes") if row["state"] == "ALIVE" and not row["is_head_node"]]
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", cluster.address]
    command += ["--node-id", name, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
    command += ["--deadline-remaining-seconds", str(deadline_s)]
    subprocess.run(command, env={**os.environ, **cluster.environment}, check=True, timeout=60)


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.extra
@pytest.mark.timeout(900)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_two_sweeps_at_once_on_one_store(tmp_path: Path, store: str, request: pytest.FixtureRequest) -> None:
    """One study database, one MLflow store, one storage folder, one base: the second takes over what the first made."""
    environment = {}
    if store == "postgres":
        environment["CPN_STUDY_URL"] = request.getfixturevalue("postgres_server").database("shared")
    url = environment.get("CPN_STUDY_URL", f"sqlite:///{tmp_path}/sweeps/study.db")
    with ray_nodes(1, cpus_each=2) as cluster:
        sweeps = [start(tmp_path, name, cluster.environment | environment, trials=2) for name in ("left", "right")]
        said = [sweep.communicate(timeout=800)[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], "\n".join(said)
    assert states(url, "left") == states(url, "right") == ["COMPLETE"] * 2
    from mlflow import MlflowClient

    records = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("left", "right"):
        experiment = records.get_experiment_by_name(name)
        runs = records.search_runs([experiment.experiment_id])
        uids = [run.data.tags["uid"] for run in runs]
        assert len(uids) == len(set(uids)) == 1 + 2 + 1 + 5 and all(uid.startswith(name) for uid in uids)
        assert {run.info.status for run in runs} == {"FINISHED"}
    made = list(tmp_path.glob("sweeps/runs/*/result.json"))
    assert len(made) == 2 + 1, "the reference, the drawn trial (equal seeds draw alike) and cam_baseline, once each"
