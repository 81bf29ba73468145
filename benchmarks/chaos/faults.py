"""Each fault of a campaign: how it is brought about, and what an operator does about it afterwards."""

import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.chaos.plan import Fault
from benchmarks.chaos.sweep import Sweep
from benchmarks.services.mlflow import MLflow
from benchmarks.services.postgres import Postgres
from benchmarks.services.processes import kill_all
from benchmarks.services.ray_nodes import Cluster, Node

TRAINS = ("ray::RayTrainWorker", "ray::image_task", "ray::training_task", "ray::finishing_task")
TRIAL = ("ray::ImplicitFunc", "ray::trial")
SMALL = 4096
"""Bytes that a file may have while there is no space."""
CUT_OFF_S = 40.0
"""At least so long does a raylet stand still: the cluster takes about 15 s to count it as dead."""

Repair = Callable[[], None]


class Absent(Exception):
    """The target of the fault does not exist at the moment."""


class World:
    """The services of a campaign, and the sweep that runs on them."""

    def __init__(self, cluster: Cluster, mlflow: MLflow, postgres: Postgres | None) -> None:
        self.cluster, self.mlflow, self.postgres = cluster, mlflow, postgres

    def inject(self, fault: Fault, sweep: Sweep) -> Repair:
        """Bring the fault about; returns what ends it. Absent when there is no victim now."""
        repair: Repair | None = getattr(self, f"_{fault.kind}")(fault, sweep)
        return repair or (lambda: None)

    def actors(self, titles: Sequence[str]) -> list[psutil.Process]:
        """List Ray's processes that run one of these now, oldest first."""
        processes = []
        for node in self.cluster.nodes:
            for process in node.processes():
                with suppress(psutil.NoSuchProcess):
                    if " ".join(process.cmdline()).startswith(tuple(titles)):
                        processes.append(process)
        return sorted(processes, key=lambda process: process.pid)

    def _one(self, titles: Sequence[str], fault: Fault) -> psutil.Process:
        actors = self.actors(titles)
        if not actors:
            raise Absent(titles[0])
        return actors[int(fault.choice * len(actors))]

    def _worker(self, fault: Fault, sweep: Sweep) -> None:
        kill_all([self._one(TRAINS, fault)])

    def _trial(self, fault: Fault, sweep: Sweep) -> None:
        kill_all([self._one(TRIAL, fault)])

    def _other_node(self) -> Node:
        """The node that is not the head."""
        return self.cluster.nodes[1]

    def _node(self, fault: Fault, sweep: Sweep) -> Repair:
        node = self._other_node()
        node.raylet.send_signal(signal.SIGKILL)
        return lambda: again(node)

    def _head(self, fault: Fault, sweep: Sweep) -> Repair:
        self.cluster.nodes[0].kill()

        def anew() -> None:
            for node in self.cluster.nodes:
                node.kill()  # all first: a raylet of the old cluster would make Ray say that the head is running
            for node in self.cluster.nodes:
                node.start()

        return anew

    def _driver(self, fault: Fault, sweep: Sweep) -> None:
        sweep.kill()

    def _stop(self, fault: Fault, sweep: Sweep) -> None:
        os.kill(sweep.pid, signal.SIGINT if fault.choice < 1 / 3 else signal.SIGTERM)
        if fault.choice > 2 / 3:
            time.sleep(0.5)
            with suppress(ProcessLookupError):
                os.kill(sweep.pid, signal.SIGTERM)

    def _mlflow(self, fault: Fault, sweep: Sweep) -> Repair:
        self.mlflow.kill()
        return self.mlflow.start

    def _postgres(self, fault: Fault, sweep: Sweep) -> Repair:
        assert self.postgres is not None
        self.postgres.kill()
        return self.postgres.start

    def _no_space(self, fault: Fault, sweep: Sweep) -> Repair:
        victims = [psutil.Process(sweep.pid), *self.actors(TRAINS)]
        if len(victims) == 1:
            raise Absent(TRAINS[0])
        return limited(victims)

    def _no_space_artifacts(self, fault: Fault, sweep: Sweep) -> Repair:
        return limited(self.mlflow.processes())

    def _checkpoint(self, fault: Fault, sweep: Sweep) -> None:
        checkpoints = list(sweep.storage.glob("runs/*/checkpoints/epoch_*/model.safetensors"))
        if not checkpoints or not self.actors(TRAINS):
            raise Absent("checkpoint")
        try:
            spoil(max(checkpoints, key=lambda path: path.stat().st_mtime), fault.choice)
        except FileNotFoundError:
            raise Absent("checkpoint") from None  # the next one took its place meanwhile
        kill_all(self.actors(TRAINS))

    def _cut_off(self, fault: Fault, sweep: Sweep) -> Repair:
        node = self._other_node()
        raylet, began = node.raylet, time.monotonic()
        raylet.suspend()

        def connect() -> None:
            time.sleep(max(0.0, began + CUT_OFF_S - time.monotonic()))
            raylet.resume()
            with suppress(psutil.TimeoutExpired):
                raylet.wait(30)  # it hears that the cluster has given it up, and ends
            again(node)

        return connect


def again(node: Node) -> None:
    """Start a node that died; what is left of it goes first."""
    node.kill()
    node.start()


def limited(victims: list[psutil.Process]) -> Repair:
    """Let no file of these processes grow beyond SMALL; Python's ignore the signal that would end them."""
    before: list[tuple[psutil.Process, tuple[int, int]]] = []
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            soft, hard = process.rlimit(resource.RLIMIT_FSIZE)
            process.rlimit(resource.RLIMIT_FSIZE, (SMALL, hard))
            before.append((process, (soft, hard)))

    def free() -> None:
        for process, limits in before:
            with suppress(psutil.NoSuchProcess):
                process.rlimit(resource.RLIMIT_FSIZE, limits)

    return free


def spoil(path: Path, choice: float) -> None:
    """Cut the last third off a file, or change bytes in its middle."""
    size = path.stat().st_size
    if choice < 0.5:
        os.truncate(path, size * 2 // 3)
        return
    with open(path, "r+b") as file:
        file.seek(size // 2)
        old = file.read(8)
        file.seek(size // 2)
        file.write(bytes(byte ^ 0xFF for byte in old))
