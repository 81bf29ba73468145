"""A sweep with pruning beside another Ray on this machine: what a pruned trial held is free again, nothing hangs."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from platform.base.paths import storage
from platform.cluster.inputs import prepare_data
from platform.config.spec import load_spec
from platform.search.study import State, open_study, read_study, study_url

import pytest

from benchmarks.small_base import BASE
from tests.conftest import CHECKOUT

SPEC = f"""
name: beside
{BASE}\
search: {{loss.w_tcp: {{float: [0.1, 10], log: true}}}}
budget: {{trials: 7}}
pruning: {{grace: 0.5, reduction: 10, audit: 0, min_audited: 0, min_rank_correlation: null}}
resources: {{gpus_per_worker: 0, cpus_per_worker: {os.cpu_count()}, concurrent: 1}}
confirm: {{top_k: 0}}
promote: {{when: better}}
"""
"""One trial fills the machine: the next one can only start when all that the last one held is free."""

ANOTHER = """
import ray
for left in reversed(range(9)):  # a busy machine may be too slow for Ray
    try:
        ray.init(address="local", include_dashboard=False, num_cpus=1, log_to_driver=False)
        break
    except Exception:
        ray.shutdown()
        if not left:
            raise
print("up", flush=True)
input()
"""


@pytest.fixture
def another_ray(tmp_path: Path) -> Iterator[None]:
    """Somebody else's Ray, which has nothing to do with the sweep."""
    environment = {**os.environ, "RAY_AUTH_TOKEN": secrets.token_hex(32), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", ANOTHER]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        yield
        other.communicate("\n")


def four_better_ones() -> str:
    """The sweep's study with its reference to be run, and four trials that were better after their first epoch than any
    that comes: so many have to be there before one is pruned. Returns its URL.
    """
    spec = load_spec(Path("s.yaml"))
    pack = prepare_data(spec.base_config, storage(spec.resources.storage), lambda _: None)
    study = open_study(spec, study_url(spec), pack.fingerprint)
    study.ask()
    for _ in range(4):
        row = study.ask()
        assert row is not None
        study.report(row.uid, 1, 100.0)
        study.tell(row.uid, State.PRUNED, reason="written by the test")
    study.close()
    return study.url


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.usefixtures("another_ray")
def test_a_pruned_trial_s_cpus_are_free_beside_another_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    url = four_better_ones()
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "platform.sweep", "s.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads((tmp_path / "sweeps/beside/summary.json").read_text())["trials"]
    assert trials == {"complete": 1, "pruned": 6, "fail": 0}
    first, second = read_study("beside", url).rows()[5:]
    for row in (first, second):  # on Ray, one after the other
        assert row.epochs == 1 and str(row.reason).startswith("after epoch 1: ")
