"""A running sweep listens where SECURITY.md says and nowhere else, and a stopped one leaves no process."""

import ipaddress
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from platform.base.lock import read_driver
from platform.base.paths import SweepPaths

import psutil
import pytest

from benchmarks.services.processes import command_lines
from benchmarks.small_base import BASE
from tests.conftest import CHECKOUT
from tests.platform.test_stop import ours

SPEC = f"""
name: heard
{BASE.replace("epochs: 2, batch_size: 4", "epochs: 5000, batch_size: 4")}\
budget: {{trials: 1}}
resources: {{gpus_per_worker: 0, workers: 2}}
confirm: {{top_k: 0}}
"""
KINDS = {
    "driver": r"platform\.sweep",
    "GCS": r"gcs_server",
    "raylet": r"raylet/raylet",
    "autoscaler": r"autoscaler/_private/monitor\.py",
    "dashboard": r"dashboard/dashboard\.py|ray-dashboard-|ray\.dashboard\.subprocesses",
    "dashboard agent": r"^ray::DashboardAgent|dashboard/agent\.py",
    "runtime environment agent": r"^ray::RuntimeEnvAgent|runtime_env/agent/main\.py",
    "worker": r"^ray::|workers/default_worker\.py",
}
"""The names of SECURITY.md's table, and by what words of a process it is known."""
FIXED = {("autoscaler", "127.0.0.1")}
"""Has one port and listens nowhere when another Ray on the machine has it."""


def kind_of(words: str) -> str:
    return next((name for name, known in KINDS.items() if re.search(known, words)), words[:80])


def listening(driver: psutil.Process) -> set[tuple[str, str]]:
    """Kind of process and address of every socket that listens, of the driver and of what it has started."""
    kinds = {}
    with suppress(psutil.NoSuchProcess):
        for process in (driver, *driver.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                if words := process.cmdline():  # none between fork and exec: the next look sees what it became
                    kinds[process.pid] = kind_of(" ".join(words))
    there = [each for each in psutil.net_connections("inet") if each.pid in kinds and each.laddr]
    waits = (psutil.CONN_LISTEN, psutil.CONN_NONE)  # TCP that listens, and UDP
    return {(kinds[each.pid], plain(each.laddr.ip)) for each in there if each.status in waits}


def plain(address: str) -> str:
    """An address as the page has it: all interfaces in one word, IPv4 in IPv6 as IPv4."""
    read = ipaddress.ip_address(address)
    read = getattr(read, "ipv4_mapped", None) or read
    return "all" if read.is_unspecified else str(read)


def listed() -> set[tuple[str, str]]:
    """The rows of SECURITY.md's table."""
    text = (CHECKOUT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {(row[0], row[1]) for row in rows if row[0] in KINDS}


def test_the_page_names_every_kind() -> None:
    assert {kind for kind, _ in listed()} == set(KINDS)


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_sweep_listens_where_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers a trial, which talk to each other; watched until they have an epoch behind them. Then `platform.stop`
    ends it, with the exit code of the signal: no process is left, and the trial can go on.
    """
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "home").mkdir()
    marker = f"{os.getpid()}-{time.time_ns()}"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path / "home")}
    for name in ("RAY_AUTH_TOKEN", "RAY_TMPDIR", "TMPDIR"):
        environment.pop(name, None)
    found: set[tuple[str, str]] = set()
    log, folder = tmp_path / "said", Path(f"/tmp/cpn-{os.geteuid()}")
    with log.open("w") as said:
        command = [sys.executable, "-m", "platform.sweep", "s.yaml"]
        own = {**environment, "CPN_TEST_MARKER": marker}
        with subprocess.Popen(command, cwd=tmp_path, env=own, stdout=said, stderr=said) as running:
            try:
                driver, looks_after = psutil.Process(running.pid), 0
                while running.poll() is None and looks_after < 3:
                    found |= listening(driver)
                    looks_after += bool(list(tmp_path.glob("sweeps/runs/*/checkpoints/epoch_*/checkpoint.json")))
                    time.sleep(0.5)
                stop = [sys.executable, "-m", "platform.stop", "heard"]
                asked = subprocess.run(stop, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
                assert asked.returncode == 0 and "heard: stopped after" in asked.stdout, asked.stdout + asked.stderr
                assert running.wait(120) == 143, log.read_text()
                left = psutil.wait_procs(ours(marker), timeout=60)[1]
                assert command_lines(left) == []
            finally:
                for process in ours(marker):
                    process.kill()
    output = log.read_text()
    assert "stopped; every trial can go on: python -m platform.sweep s.yaml" in output and "Traceback" not in output
    state = read_driver(SweepPaths(tmp_path / "sweeps/heard"))
    assert state is not None and state.stands == "stopped"
    assert list(tmp_path.glob("sweeps/runs/*/checkpoints/epoch_*/checkpoint.json")), "nothing to go on from"
    not_listed, not_there = found - listed(), listed() - found - FIXED
    assert (not_listed, not_there) == (set(), set()), "the page and the sockets differ"
    assert folder.stat().st_mode & 0o777 == 0o700
    token = tmp_path / "home" / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600 and token.parent.stat().st_mode & 0o777 == 0o700
