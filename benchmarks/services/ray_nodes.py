"""Several Ray nodes on this machine, token authentication on, every port a free one:

    with ray_nodes(2, cpus_each=1) as cluster:
        os.environ.update(cluster.environment)     # RAY_ADDRESS and the token
        cluster.nodes[1].kill()                    # the machine dies; nodes[0] is the head
        cluster.add(cpus=1)                        # another one joins

The dashboard is on 127.0.0.1; Ray opens its other ports to the network whatever it is told, and the token guards them.
A node is one `ray start --block`: it starts the node's other processes and ends them with itself. `ray stop` is never
used; it would end everybody's Ray on this machine.
"""

import json
import secrets
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from benchmarks.services.processes import MARK, Mark, Service, free_port, marked, with_mark

MEMORY = 200 * 2**20
"""Bytes of a node's object store; trials send next to nothing through it."""


class Node(Service):
    """One node: raylet, agents and workers; the head has the cluster's own servers too."""

    name: str

    def start(self) -> None:
        """Start, and return when the cluster has it. Ray gives a node 30 s for that, which a busy machine may not have:
        then again.
        """
        for attempts_left in (4, 3, 2, 1, 0):
            try:
                return super().start()
            except RuntimeError:
                self.kill()
                if not attempts_left:
                    raise

    def processes(self) -> list[psutil.Process]:
        """Everything of this node, workers that outlived their raylet too."""
        return with_mark(self.name)

    @property
    def raylet(self) -> psutil.Process:
        """The process that makes this a node. ProcessLookupError when it has none."""
        for process in self.processes():
            if is_raylet(process):
                return process
        raise ProcessLookupError(f"{self.name} has no raylet")


class Cluster:
    """Nodes that run. A killed one stays in `nodes`, where `start` brings it back as a new node."""

    def __init__(self, mark: Mark, token: str, environment: Mapping[str, str]) -> None:
        self._mark, self._token, self._more = mark, token, dict(environment)
        self.port, self.dashboard = free_port(), free_port()
        self.nodes: list[Node] = []

    @property
    def address(self) -> str:
        """RAY_ADDRESS."""
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of a driver."""
        return {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token}

    def add(
        self,
        cpus: float,
        resources: Mapping[str, float] | None = None,
        gpus: int = 0,
        more: Mapping[str, str] | None = None,
    ) -> Node:
        """Start another node, the head first, and return when the cluster has it. GPUs are logical: a count. `more` is
        environment of this node alone.
        """
        head, name = not self.nodes, f"{self._mark.name}.{len(self.nodes)}"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address", "127.0.0.1", "--num-cpus", f"{cpus:g}", "--num-gpus", str(gpus)]
        command += ["--resources", json.dumps(dict(resources or {})), "--object-store-memory", str(MEMORY)]
        command += ["--min-worker-port", "0", "--max-worker-port", "0"]  # the system chooses
        # Where one of these is left out, the raylet waits until its agent has chosen a port.
        for agent in ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export"):
            command += [f"--{agent}-port", str(free_port())]
        if head:
            # Without the dashboard a stopped trial's placement group is never freed.
            command += ["--head", "--port", str(self.port), "--include-dashboard", "true"]
            command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(self.dashboard)]
            command += ["--ray-client-server-port", str(free_port()), "--temp-dir", str(self._mark.folder / "ray")]
        else:
            command += ["--address", self.address]
        environment = {**self._mark.environment, **self.environment, **self._more, **(more or {}), MARK: name}
        environment["RAY_USAGE_STATS_ENABLED"] = "0"
        environment["RAY_worker_maximum_startup_concurrency"] = "8"  # a trial is four processes, and Ray would warn
        if head:
            del environment["RAY_ADDRESS"]  # it would join that cluster
        node = Node(command, self._mark.folder / f"node{len(self.nodes)}.log", environment, lambda: self._has(name))
        node.name = name
        self.nodes.append(node)
        node.start()
        return node

    def _has(self, name: str) -> bool:
        """Whether the node's raylet runs and the cluster counts as many live nodes as it should."""
        alive = [row for row in self.state("nodes") if row["state"] == "ALIVE"]
        running = [node for node in self.nodes if any(map(is_raylet, node.processes()))]
        return name in [node.name for node in running] and len(alive) >= len(running)

    def state(self, kind: str) -> list[dict[str, str]]:
        """Query the dashboard's state API for `nodes`, `actors` or `placement_groups`."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.dashboard}/api/v0/{kind}?limit=10000&detail=true",
            headers={"Authorization": f"Bearer {self._token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            rows: list[dict[str, str]] = json.load(answer)["data"]["result"]["result"]
        return rows


def is_raylet(process: psutil.Process) -> bool:
    """Whether this is one; a process that has ended meanwhile is none."""
    try:
        return bool(process.name() == "raylet")
    except psutil.NoSuchProcess:
        return False


@contextmanager
def ray_nodes(
    count: int = 2,
    cpus_each: float = 1,
    resources: Mapping[str, float] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """`count` nodes with `cpus_each` CPUs and `resources`, and the cluster made of them; `environment` is theirs."""
    with marked("ray") as mark:
        cluster = Cluster(mark, secrets.token_hex(32), environment or {})
        try:
            for _ in range(count):
                cluster.add(cpus_each, resources)
            yield cluster
        finally:
            for node in reversed(cluster.nodes):
                node.stop()
