"""optuna-dashboard on the study of a running sweep; for this test: `pip install optuna-dashboard`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from platform.search.study import State
from typing import Any

import pytest

from tests.platform.search.test_study import ask, make_study

pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")


def answer(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as found:
        return json.loads(found.read())


@contextmanager
def dashboard(url: str, folder: Path) -> Iterator[str]:
    """The command of docs/usage.md over a study's database; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run = "import sys; from optuna_dashboard._cli import main; sys.exit(main())"
    command = [sys.executable, "-c", run, url, "--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref"]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + 240
    try:
        while True:
            try:
                answer(f"{address}/api/studies")
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None and time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_it_shows_a_running_sweep_and_hinders_it_nowhere(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    first, second = ask(study), ask(study)
    study.report(first.uid, 1, 40.0)
    study.tell(first.uid, State.COMPLETE, 41.5)
    with dashboard(study.url, tmp_path) as address:
        (summary,) = [each for each in answer(f"{address}/api/studies")["study_summaries"]
                      if each["study_name"] == "small"]  # fmt: skip

        def shown() -> dict[str, Any]:
            found: dict[str, Any] = answer(f"{address}/api/studies/{summary['study_id']}")
            return found

        found = shown()
        assert found["objective_names"] == ["miou"] and found["directions"] == ["maximize"]
        states = [trial["state"] for trial in found["trials"]]
        assert states == ["Complete", "Running"] and found["trials"][0]["values"] == [41.5]
        assert found["trials"][0]["intermediate_values"] == [{"step": 1, "value": 40.0}]
        study.report(second.uid, 1, 39.0)
        study.tell(second.uid, State.PRUNED, reason="others were better")
        third = ask(study)
        assert study.row(third.uid).state is State.RUNNING
        until = time.monotonic() + 60
        while (states := [trial["state"] for trial in shown()["trials"]]) != ["Complete", "Pruned", "Running"]:
            assert time.monotonic() < until, states
            time.sleep(1)
    study.close()
