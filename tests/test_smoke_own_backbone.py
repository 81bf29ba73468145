"""A sweep with weights by a relative path and a backbone module of the user's, really run; then from elsewhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.small_base import BASE
from cpn.models.checkpoint import save_model
from cpn.models.scene_backbone import SceneBackbone
from tests.conftest import CHECKOUT

SPEC = f"""
name: own
{BASE}\
budget: {{trials: 1}}
resources: {{gpus_per_worker: 0}}
confirm: {{top_k: 0}}
"""


def sweep(folder: Path, *words: str, python_path: str = "") -> str:
    """The command in `folder`, which has to succeed; what it said."""
    path = os.pathsep.join(filter(None, [str(CHECKOUT), python_path]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "HOME": str(folder)}
    command = [sys.executable, "-m", "platform.sweep", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(3600)  # against a hang; a busy machine takes what it takes
def test_workers_find_weights_and_code_after_a_move(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "my_kinds").mkdir(parents=True)
    there.mkdir()
    (here / "own.yaml").write_text(SPEC)
    (here / "my_kinds" / "net.py").write_text(
        "from cpn.models.scene_backbone import SceneBackbone\nfrom my_sizes import STRIDE\n\n\n"
        "class Net(SceneBackbone):\n    stride = STRIDE\n"
    )
    (here / "my_sizes.py").write_text("STRIDE = 4\n")
    save_model(here / "w.safetensors", SceneBackbone(), {"kind": "standin"})
    own = ["--set", "network.backbone=my_kinds.net:Net"]
    said = sweep(here, "own.yaml", *own, "--set", "network.weights=w.safetensors")
    summary = json.loads((here / "sweeps/own/summary.json").read_text())
    assert summary["trials"] == {"complete": 1, "pruned": 0, "fail": 0} and summary["confirm_failed"] is None
    assert all(summary["metrics"][name] is not None for name in ("miou", "miou_confirm_cam_baseline")), said
    assert summary["metrics"]["deeplab/miou_val"] is not None and "failed:" not in said

    runs = {path.name: path.stat().st_mtime_ns for path in (here / "sweeps").glob("*/*/*.safetensors")}
    shutil.copy(here / "w.safetensors", there / "copy.safetensors")
    own += ["--set", f"resources.storage={here}/sweeps", "--set", "name=moved"]
    sweep(there, str(here / "own.yaml"), *own, "--set", "network.weights=~/copy.safetensors", python_path=str(here))
    assert {path.name: path.stat().st_mtime_ns for path in (here / "sweeps").glob("*/*/*.safetensors")} == runs
    moved = json.loads((here / "sweeps/moved/summary.json").read_text())
    assert moved["metrics"] | {"hours": 0} == summary["metrics"] | {"hours": 0}
