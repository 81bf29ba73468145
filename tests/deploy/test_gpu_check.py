"""deploy/gpu_check.sh: each part in its small form, what it says where something is missing, and the page."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from benchmarks.method import single_gpu
from tests.conftest import CHECKOUT

PARTS = ("torch", "loader", "sweep")


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", CHECKOUT / "deploy" / "gpu_check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_parts_take_nine_minutes_at_most(check: ModuleType) -> None:
    assert tuple(check.PARTS) == PARTS == tuple(check.ANSWERS)
    assert sum(part.seconds for part in check.PARTS.values()) <= 540


@pytest.mark.slow
def test_the_small_form_runs_on_the_cpu(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_gpu, "WARM_UP", 0)
    for part in ("torch", "loader"):
        assert check.inside(part, True, tmp_path) == 0
    found = {part: json.loads((tmp_path / f"{part}.json").read_text()) for part in ("torch", "loader")}
    assert all(one["done"] and not one["measured"] for one in found.values())
    losses = found["torch"]["losses"]
    assert losses["steps"] == 5 and losses["most_apart"] == 0 and losses["cpu"][0] > losses["cpu"][-1]
    rows = [(row["network"], row["precision"], row["step_s"] > 0) for row in found["torch"]["rows"]]
    assert rows == [(name, kind, True) for name in single_gpu.JOBS for kind in single_gpu.PRECISIONS]
    assert found["torch"]["train_step"]["equal"] and found["loader"]["rows"][0]["workers"] == 0
    assert check.page(found) == check.page({}), "the CPU measures nothing"


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_small_sweep_is_killed_and_resumed(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(check.PARTS, "sweep", check.PARTS["sweep"]._replace(seconds=500))
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    assert check.inside("sweep", True, tmp_path) == 0
    found = json.loads((tmp_path / "sweep.json").read_text())["killed_and_resumed"]
    assert found["trials"]["complete"] == 2 and found["kept_runs"] > 0 and found["made_again"] == 0


def test_what_is_missing_is_one_line(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("ray", "mlflow") else real(name))
    assert check.main(["--out", str(tmp_path)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "torch: not measured: lacks a CUDA device; --small runs a small form on the CPU",
        "loader: not measured: lacks a CUDA device; --small runs a small form on the CPU",
        "sweep: not measured: lacks ray, mlflow; docs/install.md says how to install them",
    ]
    assert check.main(["all", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: all: no such part; take torch, loader, sweep\n"


@pytest.mark.parametrize(
    ("script", "seconds", "said"),
    [
        ("import time; time.sleep(60)", 0, "took more than 0 s"),
        ("raise SystemExit('out of luck')", 60, "out of luck"),
    ],
    ids=["too slow", "broken"],
)
def test_a_part_that_fails_is_one_line(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    script: str, seconds: int, said: str,
) -> None:  # fmt: skip
    (tmp_path / "part.py").write_text(script)
    monkeypatch.setattr(check, "__file__", str(tmp_path / "part.py"))
    monkeypatch.setitem(check.PARTS, "loader", check.PARTS["loader"]._replace(seconds=seconds))
    assert check.main(["loader", "--small", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"loader: failed: {said} ({tmp_path / 'loader'}.log)\n"


def test_a_killed_command_has_said_its_words(check: ModuleType, tmp_path: Path) -> None:
    asked = check.Asked(True, tmp_path, float("inf"))
    speaks = [sys.executable, "-c", "import time; print('one complete', flush=True); time.sleep(60)"]
    check.run_until("complete", speaks, tmp_path, asked)
    with pytest.raises(RuntimeError, match="never said 'complete': other"):
        check.run_until("complete", [sys.executable, "-c", "print('other')"], tmp_path, asked)


def test_the_page_says_what_was_measured_and_what_not(check: ModuleType) -> None:
    text = (CHECKOUT / check.PAGE).read_text(encoding="utf-8")
    assert text == check.page({}) and text.count("| not measured |") == 3, "write it anew: deploy/gpu_check.sh --write"
    row = {"network": "CPN", "precision": "bf16", "peak_gib": 12.34, "images_per_s": 8.0}
    card: dict[str, Any] = {"measured": True, "device": "a card", "torch": "2"}
    results = {
        "torch": {**card, "rows": [row], "losses": {"most_apart": 1e-4}, "train_step": {"ratio": 0.3}},
        "loader": {**card, "rows": [{"workers": 4, "images_per_s": 9.0, "data_wait_share": 0.02}], "enough_workers": 4},
        "sweep": {**card, "killed_and_resumed": {"seconds": 80.0, "trials": {"complete": 2}}},
    }
    made = check.page(results)
    assert "CPN bf16 12.3 GiB, 8.0 images/s; train_step 0.30; losses at most 1.0e-04 apart" in made
    assert "4: 9.0 images/s, waits 2%; enough: 4" in made and "killed and resumed: 80 s, {'complete': 2}" in made
    assert "Device: a card, torch 2." in made and "not measured" not in made
