"""A sweep across three hosts with addresses of their own: code by working_dir, data and results by S3, a host cut off.

The hosts are network namespaces. From the workers' the checkout's code and the driver's folder are hidden: they have
Ray and the packages, and nothing of ours but what the sweep sends them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.services.hosts import Host, hosts, missing
from benchmarks.services.processes import MARK, Mark, Service, marked, with_mark
from benchmarks.services.ray_nodes import is_raylet
from benchmarks.small_base import BASE
from tests.conftest import CHECKOUT

TOKEN = "0123456789abcdef" * 4
RAY_PORT, DASHBOARD, S3_PORT = 6379, 8265, 9000
SPEC = (
    """
name: hosts
"""
    + BASE.replace("epochs: 2,", "epochs: 30,")
    + """\
search:
  loss.w_tcp: {float: [0.1, 10], log: true}
budget: {trials: 2}
pruning: {kind: none}
confirm: {top_k: 0, seeds: 1}
resources: {gpus_per_worker: 0, workers: 1, concurrent: 2, ship_code: true, storage: s3://cpn/sweeps}
"""
)
HIDE = 'for folder in "$1" "$2" "$3"; do mount -t tmpfs none "$folder"; done; shift 3; exec "$@"'
PYTHON = [sys.executable, "-c"]


def python_on(host: Host, code: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """A few lines of Python on a host."""
    return subprocess.run(
        host.command([*PYTHON, code]), env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def listens(host: Host, port: int) -> bool:
    """Whether something answers there, asked on the host itself."""
    code = f"import socket; socket.create_connection(({host.address!r}, {port}), timeout=2)"
    return python_on(host, code, dict(os.environ)).returncode == 0


@contextmanager
def bucket(head: Host, mark: Mark) -> Iterator[dict[str, str]]:
    """An S3 endpoint on the head; what its clients need in their environment."""
    command = head.command([sys.executable, "-m", "moto.server", "-H", head.address, "-p", str(S3_PORT)])
    server = Service(command, mark.folder / "s3.log", mark.environment, lambda: listens(head, S3_PORT), 300)
    server.start()
    endpoint = f"http://{head.address}:{S3_PORT}"
    settings = {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL_S3": endpoint, "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    make = "import boto3; boto3.client('s3').create_bucket(Bucket='cpn')"
    try:
        made = python_on(head, make, {**os.environ, **settings})
        assert made.returncode == 0, made.stderr
        yield settings
    finally:
        server.kill()


def ray_on(host: Host, head: Host, mark: Mark, environment: dict[str, str], driver: Path) -> Service:
    """A Ray node on a host; on all but the head the code and the driver's folder are hidden."""
    name = f"{mark.name}.{host.name}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", host.address, "--object-store-memory", str(200 * 2**20)]
    own = {**mark.environment, **environment, MARK: name, "CPN_SCRATCH": str(mark.folder / host.name)}
    if host is head:
        command += ["--head", "--port", str(RAY_PORT), "--num-cpus", "0", "--temp-dir", str(mark.folder / "ray")]
        command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(DASHBOARD)]

        def ready() -> bool:
            return listens(head, RAY_PORT) and alive(head, environment) >= 1

    else:
        command += ["--address", f"{head.address}:{RAY_PORT}", "--num-cpus", "1"]
        hidden = [str(CHECKOUT / "cpn"), str(CHECKOUT / "platform"), str(driver)]
        command = ["unshare", "--mount", "sh", "-ec", HIDE, "sh", *hidden, *command]
        own.pop("PYTHONPATH", None)

        def ready() -> bool:
            return any(map(is_raylet, with_mark(name)))

    log = mark.folder / f"{host.name}.log"
    node = Service(host.command(command), log, own, ready, 300)
    node.start()
    return node


def alive(head: Host, environment: dict[str, str]) -> int:
    """Nodes that the cluster counts as alive."""
    code = (
        "import json, urllib.request as u; "
        f"r = u.Request('http://127.0.0.1:{DASHBOARD}/api/v0/nodes', headers={{'Authorization': 'Bearer {TOKEN}'}}); "
        "found = json.load(u.urlopen(r, timeout=20))['data']['result']['result']; "
        "print(sum(row['state'] == 'ALIVE' for row in found))"
    )
    said = python_on(head, code, {**os.environ, **environment}).stdout
    return int(said or 0)


def until(holds: Callable[[], Any], what: str, process: "subprocess.Popen[str]", seconds: float = 600) -> None:
    """Wait; fails with what the sweep said."""
    end = time.monotonic() + seconds
    while not holds():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise AssertionError(f"{what} was not seen:\n{process.communicate()[0]}")
        time.sleep(1)


def kept(head: Host, settings: dict[str, str]) -> list[str]:
    """Names in the bucket."""
    code = (
        "import boto3; found = boto3.client('s3').list_objects_v2(Bucket='cpn', MaxKeys=1000).get('Contents', []); "
        "print('\\n'.join(item['Key'] for item in found))"
    )
    return python_on(head, code, {**os.environ, **settings}).stdout.split()


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_sweep_across_hosts_outlives_a_cut(tmp_path: Path) -> None:
    driver = tmp_path / "driver"
    driver.mkdir()
    (driver / "hosts.yaml").write_text(SPEC)
    with (
        hosts(3) as (head, first, second),
        marked("hosts") as mark,
        bucket(head, mark) as settings,
        ExitStack() as nodes,
    ):
        environment = {**settings, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        for host in (head, first, second):
            nodes.callback(ray_on(host, head, mark, environment, driver).kill)
        own = {
            "RAY_ADDRESS": f"{head.address}:{RAY_PORT}", "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200",
            "CPN_STUDY_URL": f"sqlite:///{driver}/study.db", "CPN_SCRATCH": str(tmp_path / "scratch"),
        }  # fmt: skip
        command = head.command([sys.executable, "-m", "platform.sweep", "hosts.yaml"])
        with subprocess.Popen(
            command, cwd=driver, env={**os.environ, **environment, **own}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        ) as sweep:  # fmt: skip
            until(lambda: [k for k in kept(head, settings) if "/checkpoints/" in k], "a checkpoint", sweep)
            second.cut()
            until(lambda: alive(head, environment) == 2, "the host that is gone", sweep)
            second.connect()
            again = ray_on(second, head, mark, environment, driver)  # what the host's service manager does
            nodes.callback(again.kill)
            until(lambda: alive(head, environment) == 3, "the host that is back", sweep)
            said, _ = sweep.communicate(timeout=1200)
        assert sweep.returncode == 0, said
        names = kept(head, settings)
    summary = json.loads(next(driver.glob("sweeps/hosts/summary.json")).read_text())
    assert summary["trials"]["complete"] == 2 and summary["metrics"]["deeplab/miou_val"] is not None
    assert len([name for name in names if name.startswith("sweeps/stages/") and name.endswith("/manifest.json")]) == 5
