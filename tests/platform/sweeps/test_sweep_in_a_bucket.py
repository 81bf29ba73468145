"""A whole sweep over S3 (moto), every trial and task on a machine of its own; Ray's part is in this process."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from platform import status
from platform.base.yaml_files import yaml_text
from platform.config.spec import load_spec
from platform.run import sweep_context, trial_loop
from platform.sweeps import run_sweep
from typing import Any

import pytest

from cpn.core import object_storage
from tests.platform.machines import Machines
from tests.s3_server import s3_server

SPEC: dict[str, Any] = {
    "name": "far",
    "base": {
        "preset": ["official", "scenes"],
        "data": {"scenes": {"train": 8, "val": 3, "seed": 3}},
        "patches": {"draw": "bernoulli"},
        "network": {"weights": None},
        "train": {"epochs": 2, "batch_size": 4},
        "cam": {"scales": [1.0]},
        "affinity": {"epochs": 1, "batch_size": 4},
        "random_walk": {"radius": 3},
        "deeplab": {"iterations": 2, "batch_size": 4, "width": 8, "scales": [1.0]},
    },
    "search": {"patches.p_h": {"float": [0.1, 0.5]}},
    "budget": {"trials": 3},
    "resources": {"gpus_per_worker": 0, "keep_top": 0},
    "pruning": {"kind": "none"},
    "confirm": {"top_k": 0, "seeds": 1},
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server("cpn") as url:
        yield url


@pytest.mark.long
@pytest.mark.usefixtures("endpoint")
@pytest.mark.timeout(900)
def test_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    place = "s3://cpn/sweeps"
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("CPN_STUDY_URL", f"sqlite:///{tmp_path}/study.db")
    monkeypatch.setenv(object_storage.SCRATCH, str(tmp_path / "driver"))
    machines = Machines(monkeypatch, tmp_path)
    monkeypatch.setattr(sweep_context, "ray_cluster", lambda *_: nullcontext([{"CPU": 1.0}]))
    monkeypatch.setattr(trial_loop, "run_trials", machines.run_trials)
    Path("far.yaml").write_text(yaml_text({**SPEC, "resources": {**SPEC["resources"], "storage": place}}))
    spec = load_spec(Path("far.yaml"))
    assert run_sweep.run_sweep(spec, "again") == 0
    said = capsys.readouterr().out
    assert machines.said[:4] == ["far-0000", "far-0001", "far-0002", "far.confirm-0000"]
    summary = json.loads(Path("sweeps/far/summary.json").read_text())
    assert summary["trials"] == {"complete": 3, "pruned": 0, "fail": 0}
    assert summary["metrics"]["deeplab/miou_val"] is not None
    held = object_storage.sizes(place)
    runs = {name.split("/")[1] for name in held if name.startswith("runs/") and not name.startswith("runs/.")}
    networks = [name for name in held if name.startswith("runs/") and name.endswith("model.safetensors")]
    other = next(entry["uid"] for entry in summary["leaderboard"] if entry["role"] != "reference")
    best = {summary["winner"], "far-0000", other}
    assert len(runs) == 4 and len(networks) == len(best) + 1, "kept: reference, best other, confirm run"
    assert f"let go of {3 - len(best)} networks beyond the best" in said
    assert not [name for name in held if "/checkpoints/" in name]
    assert len([name for name in held if name.startswith("stages/") and name.endswith("/manifest.json")]) == 5
    machines.said.clear()
    shutil.rmtree(tmp_path / "driver")
    assert run_sweep.run_sweep(spec, "again") == 0
    assert machines.said == [], "done is done, also for a driver whose scratch folder is gone"
    capsys.readouterr()
    os.chdir(tmp_path)
    monkeypatch.setenv(object_storage.SCRATCH, str(tmp_path / "laptop"))
    assert status.main(["--storage", place, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["sweep"], row["state"], row["complete"]) == ("far", "finished", 3)
