"""Stopping a sweep from another process: its driver is asked, by its handle, and never anybody else."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from platform import stop as stop_module
from platform.base.lock import Driver, driving, read_driver
from platform.base.paths import SweepPaths
from platform.stop import main, stop

import psutil
import pytest

from benchmarks.services.processes import command_lines
from cpn.core.errors import InputError, WorkError
from cpn.core.files import write_json
from tests.conftest import CHECKOUT
from tests.test_smoke import SPEC, read_until, start

DRIVER = """
import signal, sys, time
from pathlib import Path
from platform.base.lock import driving
from platform.base.paths import SweepPaths

# The first signal asks, the second raises; `reports` says whether a report ever ends.
seen, reports = [], sys.argv[2] == "reports"

def handle(number, frame):
    seen.append(number)
    print("asked", flush=True)
    if len(seen) == 2:
        raise KeyboardInterrupt

signal.signal(signal.SIGTERM, handle)
code = 143
try:
    with driving(SweepPaths(Path(sys.argv[1])), "small", "python -m platform.sweep s.yaml") as held:
        print("drives", flush=True)
        while not (seen and reports):
            time.sleep(0.05)
        held.code = code
except KeyboardInterrupt:
    pass
sys.exit(code)
"""


@pytest.fixture
def paths(tmp_path: Path) -> SweepPaths:
    return SweepPaths(tmp_path / "sweeps" / "small")


@pytest.fixture
def drive(paths: SweepPaths) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process that drives the sweep and takes signals as the real one does."""
    started: list[subprocess.Popen[str]] = []

    def begin(kind: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(paths.root), kind], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "drives\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def options(paths: SweepPaths, *more: str) -> list[str]:
    return ["small", "--storage", str(paths.root.parent), *more]


Drive = Callable[[str], "subprocess.Popen[str]"]


def test_it_is_asked_once_and_ends(paths: SweepPaths, drive: Drive, capsys: pytest.CaptureFixture[str]) -> None:
    process = drive("reports")
    assert main(options(paths)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"small: asked process {process.pid} to stop; it finishes the current reports")
    assert said[-1].startswith("small: stopped after") and said[-1].endswith("python -m platform.sweep s.yaml")
    assert process.wait(5) == 143 and process.stdout is not None and process.stdout.read() == "asked\n"
    assert main(options(paths)) == 0
    assert capsys.readouterr().out == "small does not run: it is stopped\n"


def test_one_that_goes_on_is_said_to_go_on(paths: SweepPaths, drive: Drive, capsys: pytest.CaptureFixture[str]) -> None:
    process = drive("never")
    assert main(options(paths, "--wait", "0", "--json")) == 1
    seen = json.loads(capsys.readouterr().out)
    assert (seen["state"], seen["pid"], seen["signals"]) == ("running", process.pid, 1)
    assert "still runs" in seen["said"][-1]
    assert process.poll() is None


def test_now_asks_twice(paths: SweepPaths, drive: Drive, capsys: pytest.CaptureFixture[str]) -> None:
    process = drive("never")
    assert main(options(paths, "--now", "--json")) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["state"], seen["signals"], seen["sweep"]) == ("stopped", 2, "small")
    assert process.wait(5) == 143 and process.stdout is not None and process.stdout.read() == "asked\nasked\n"


def test_now_asks_once_where_once_suffices(paths: SweepPaths, drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_module, "BETWEEN_S", 60.0)
    drive("reports")
    assert stop(paths, "small", True, None, lambda line: None).signals == 1


def test_a_dead_driver_or_a_reused_number_gets_no_signal(
    paths: SweepPaths, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = drive("never")
    process.kill()
    process.wait()

    def never(*_: object) -> None:
        raise AssertionError("a signal was sent")

    monkeypatch.setattr(signal, "pidfd_send_signal", never)
    said: list[str] = []
    assert stop(paths, "small", True, None, said.append).state == "stopped"
    assert said == ["small does not run: it was running and its process is gone"]
    driver = read_driver(paths)
    assert driver is not None
    write_json(paths.driver, asdict(replace(driver, pid=os.getpid())))
    assert stop(paths, "small", True, None, said.append).signals == 0


def test_on_another_machine_it_says_where(paths: SweepPaths) -> None:
    with driving(paths, "small", "again"):
        me = read_driver(paths)
        assert me is not None
        write_json(paths.driver, asdict(replace(me, host="elsewhere")))
        with pytest.raises(WorkError) as refused:
            main(options(paths))
    words = f"process {os.getpid()} on elsewhere drives it"
    assert words in str(refused.value) and f"python -m platform.stop small --storage {paths.root.parent}" in str(
        refused.value
    )


def test_another_users_process_is_left_alone(paths: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    with driving(paths, "small", "again"), pytest.raises(WorkError, match="belongs to another user"):
        stop(paths, "small", False, None, lambda line: None)


def test_a_sweep_that_was_never_started(paths: SweepPaths) -> None:
    with pytest.raises(InputError, match=r"^small: no such sweep in .*sweeps \(there are: none\); --storage names"):
        main(options(paths))
    with driving(SweepPaths(paths.root.with_name("other")), "other", "again"):
        pass
    with pytest.raises(InputError, match=r"there are: other\)"):
        main(options(paths))
    with pytest.raises(InputError, match="--wait -1.0: no number of seconds"):
        main(["other", "--storage", str(paths.root.parent), "--wait", "-1"])


def test_an_earlier_version_says_nothing_of_its_driver(paths: SweepPaths) -> None:
    paths.root.mkdir(parents=True)
    paths.lock.write_text("4711")
    said: list[str] = []
    assert stop(paths, "small", False, None, said.append).pid == 0
    assert "does not run: nothing in" in said[0]


def ours(marker: str) -> list[psutil.Process]:
    """All processes that carry the marker in their environment: whatever a sweep has started, adopted ones too."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CPN_TEST_MARKER") == marker:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "how",
    [
        pytest.param("stop", marks=pytest.mark.extra),  # in .ci/run: tests/platform/cluster/test_listening.py
        "Ctrl-C in the terminal",
        pytest.param("stop --now", marks=pytest.mark.extra),
        pytest.param("kill -9", marks=pytest.mark.extra),
    ],
)
def test_nothing_of_a_stopped_sweep_remains(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole thing on Ray: no process after the stop, every trial resumable, the exit code that of the signal."""
    marker = f"{os.getpid()}-{time.time_ns()}"
    monkeypatch.setenv("CPN_TEST_MARKER", marker)
    (tmp_path / "smoke.yaml").write_text(SPEC.replace("epochs: 2, batch_size: 4", "epochs: 5000, batch_size: 4"))
    sweep = start(tmp_path)
    try:
        read_until(sweep, "smoke-0000  started", 300)
        wait_for_an_epoch(tmp_path, sweep)
        assert len(ours(marker)) > 5
        if how.startswith("stop"):
            command = [sys.executable, "-m", "platform.stop", "smoke", *how.split()[1:]]
            environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "CPN_TEST_MARKER": ""}
            asked = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
            assert asked.returncode == 0 and "smoke: stopped after" in asked.stdout, asked.stdout + asked.stderr
        elif how == "kill -9":
            sweep.kill()
        else:
            for process in ours(marker):  # the terminal sends it to all of them
                process.send_signal(signal.SIGINT)
        output, _ = sweep.communicate(timeout=120)
        if how == "kill -9":
            seconds = 120.0  # nobody is left to end Ray: its processes see that one after the other, the agents last
        else:
            seconds = 60.0
            assert sweep.returncode == (143 if how.startswith("stop") else 130), output
            assert "stopped; every trial can go on: python -m platform.sweep smoke.yaml" in output
        assert "Traceback" not in output
        left = psutil.wait_procs(ours(marker), timeout=seconds)[1]
        assert command_lines(left) == []
        driver: Driver | None = read_driver(SweepPaths(tmp_path / "sweeps" / "smoke"))
        assert driver is not None and driver.stands == "stopped"
        checkpoints = list(tmp_path.glob("sweeps/runs/*/checkpoints/epoch_*/checkpoint.json"))
        assert checkpoints, "nothing to go on from"
    finally:
        for process in ours(marker):
            process.kill()
        sweep.communicate()


def wait_for_an_epoch(folder: Path, sweep: subprocess.Popen[str]) -> None:
    """Until the first checkpoint lies there."""
    while sweep.poll() is None and not list(folder.glob("sweeps/runs/*/checkpoints/epoch_*")):
        time.sleep(0.2)
