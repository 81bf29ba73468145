"""The SLURM scripts under a small stand-in for SLURM: its variables, `srun` and `scontrol`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

SCRIPTS = sorted((CHECKOUT / "deploy" / "slurm").glob("*.sbatch"))
SHELL = [*SCRIPTS, CHECKOUT / "deploy" / "slurm" / "run.sh", CHECKOUT / "deploy" / "up.sh", CHECKOUT / ".ci" / "run"]

SRUN = """#!/usr/bin/env bash
# Runs a command once for every node that is asked for, here, with the variables that SLURM would set.
echo "srun $*" >> "$LOG"
nodes=1
while [[ $1 == --* ]]; do
    case $1 in --nodes=*) nodes=${1#*=} ;; esac
    shift
done
for i in $(seq "$nodes"); do SLURM_PROCID=$((i - 1)) "$@" & done
trap 'kill $(jobs -p) 2>/dev/null' TERM
wait
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >> "$LOG"
case $1 in show) tr , '\\n' <<< "$3" ;; esac
"""
HOSTNAME = """#!/usr/bin/env bash
echo 127.0.0.1
"""
RAY = """#!/usr/bin/env bash
echo "ray $* token ${#RAY_AUTH_TOKEN}" >> "$LOG"
exec sleep 60
"""
# Stands for the interpreter: the sweep that ends as it is told to, and the script that waits for the nodes.
PYTHON = """#!/usr/bin/env bash
if [ "$1" = - ]; then
    cat > /dev/null
    for i in $(seq 300); do [ "$(grep -c '^ray start' "$LOG")" -ge "$2" ] && break; sleep 0.1; done
    echo "wait for $2" >> "$LOG"
    exit 0
fi
trap 'sleep 0.5; echo "reports finished" >> "$LOG"; exit 143' TERM
echo "sweep $* address ${RAY_ADDRESS:-none}" >> "$LOG"
for i in $(seq "$SECONDS_OF_SWEEP"); do sleep 0.1; done
exit "$CODE"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on three nodes."""
    (tmp_path / "bin").mkdir()
    tools = {"srun": SRUN, "scontrol": SCONTROL, "hostname": HOSTNAME, "ray": RAY, "python": PYTHON}
    for name, text in tools.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "CPN_PYTHON": str(tmp_path / "bin" / "python"),
        "SLURM_SUBMIT_DIR": str(CHECKOUT),
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NODELIST": "one,two,three",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_GPUS_ON_NODE": "4",
        "SECONDS_OF_SWEEP": "2",
        "CODE": "0",
    }


def log(environment: dict[str, str]) -> str:
    """What the stand-ins were asked to do."""
    path = Path(environment["LOG"])
    return path.read_text() if path.exists() else ""


def start(script: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    """The job, as sbatch starts it."""
    command = ["bash", str(script), "search_spaces/patch.yaml", "--set", "budget.trials=4"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_linter_has_nothing_to_say() -> None:
    tool = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([str(tool), "-x", *map(str, SHELL)], cwd=CHECKOUT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_sweeps_code_is_the_jobs(script: Path, code: int, slurm: dict[str, str]) -> None:
    with start(script, slurm | {"CODE": str(code)}) as job:
        said, _ = job.communicate(timeout=60)
    assert job.returncode == code, said
    assert "sweep -m platform.sweep search_spaces/patch.yaml --set budget.trials=4" in log(slurm)
    assert "requeue" not in log(slurm)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_on_sigterm_the_job_goes_back_into_the_queue(script: Path, slurm: dict[str, str]) -> None:
    with start(script, slurm | {"SECONDS_OF_SWEEP": "400"}) as job:
        for _ in range(300):
            if "sweep -m" in log(slurm):
                break
            time.sleep(0.1)
        time.sleep(0.3)
        job.send_signal(signal.SIGTERM)
        said, _ = job.communicate(timeout=60)
    assert job.returncode == 143, said
    lines = log(slurm).splitlines()
    assert lines[-2:] == ["reports finished", "scontrol requeue 12345"]


def test_several_nodes_are_one_cluster(slurm: dict[str, str]) -> None:
    (script,) = [path for path in SCRIPTS if path.name == "several_nodes.sbatch"]
    with start(script, slurm) as job:
        said, _ = job.communicate(timeout=60)
    assert job.returncode == 0, said
    lines = log(slurm).splitlines()
    heads = [line for line in lines if line.startswith("ray start --head")]
    others = [line for line in lines if line.startswith("ray start --block --address=127.0.0.1:22345")]
    assert len(heads) == 1 and "--port=22345" in heads[0] and len(others) == 2
    assert all(line.endswith("token 64") and "--num-gpus=4" in line for line in heads + others)
    order = [lines.index(heads[0]), lines.index("wait for 1"), lines.index(others[0]), lines.index("wait for 3")]
    assert order == sorted(order)
    assert any(line.startswith("sweep") and line.endswith("address 127.0.0.1:22345") for line in lines[order[-1] :])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_forgotten_search_space_is_one_line(script: Path, slurm: dict[str, str]) -> None:
    done = subprocess.run(["bash", str(script)], env=slurm, capture_output=True, text=True)
    assert done.returncode != 0 and "give a search space" in done.stderr and log(slurm) == ""
