"""Who listens while a sweep runs on this machine: the addresses that SECURITY.md lists, and nobody elsewhere."""

import ipaddress
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from benchmarks.small_base import BASE
from tests.conftest import CHECKOUT

SPEC = f"""
name: heard
{BASE}\
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
def test_a_sweep_listens_where_the_page_says(tmp_path: Path) -> None:
    """Two workers a trial, which talk to each other; watched until its first trial is complete."""
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "home").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path / "home")}
    for name in ("RAY_AUTH_TOKEN", "RAY_TMPDIR", "TMPDIR"):
        environment.pop(name, None)
    found: set[tuple[str, str]] = set()
    log, folder = tmp_path / "said", Path(f"/tmp/cpn-{os.geteuid()}")
    with log.open("w") as said:
        command = [sys.executable, "-m", "platform.sweep", "s.yaml"]
        with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=said, stderr=said) as running:
            driver = psutil.Process(running.pid)
            while running.poll() is None and "  complete  " not in log.read_text():
                found |= listening(driver)
                time.sleep(0.5)
            running.terminate()
    assert "  complete  " in log.read_text(), log.read_text()
    assert found <= listed(), found - listed()
    assert listed() - found <= FIXED, "the page lists what does not listen"
    assert folder.stat().st_mode & 0o777 == 0o700
    token = tmp_path / "home" / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600 and token.parent.stat().st_mode & 0o777 == 0o700
