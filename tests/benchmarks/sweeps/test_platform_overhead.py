"""What is read off the lines of a sweep and of the bare script, and what is made of it."""

import argparse
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sweeps.command_tree import Line
from benchmarks.sweeps.platform_overhead import Side, base_of, heavy_imports, imported, run, side, summary


def line(at: float, cpu: float, **event: Any) -> Line:
    return Line(at, cpu, event)


def test_a_trial_costs_what_passes_from_first_end_to_last() -> None:
    lines = [
        line(103.0, 4.0, said="10:00 starting Ray"),
        line(110.0, 9.0, event="trial_started", uid="a-0000"),
        line(125.0, 30.0, event="trial_reported", uid="a-0000", time=124.0, images_per_s=16.0),
        line(126.0, 31.0, event="trial_reported", uid="a-0000", time=125.5, images_per_s=32.0),
        line(130.0, 40.0, event="trial_ended", uid="a-0000", value=20.0),
        line(150.0, 75.0, event="trial_ended", uid="a-0001", value=21.5),
        line(154.0, 80.0, event="trial_ended", uid="a-0002", value=None),
    ]
    found = side(100.0, lines, 48)
    assert (found.cpu, found.wall) == (20.0, 12.0)  # 40 CPU seconds and 24 seconds over two trials
    # The first epoch took 48 / 16 = 3 s and was over at 124: the first step began at 121, 11 s after its trial.
    assert found.until == {"ray": 3.0, "trial": 7.0, "step": 11.0}
    assert found.mious[:2] == (20.0, 21.5) and math.isnan(found.mious[2])


def test_the_ratio_is_of_cpu_and_the_seconds_are_added() -> None:
    def made(cpu: float, wall: float, *mious: float) -> Side:
        return Side(cpu, wall, {"ray": wall / 4, "trial": 1.0, "step": 2.0}, mious)

    ours = [made(12.0, 20.0, 1.0, 2.0), made(14.0, 24.0, 1.0, 2.0)]
    other = [made(10.0, 18.0, 1.0, 2.0), made(10.0, 16.0, 1.0, 2.0)]
    found = summary(ours, other)
    assert (found["ratio"], found["target"], found["equal"]) == (1.3, 1.3, True)
    assert (found["ours_s"], found["other_s"], found["added_s"]) == (22.0, 17.0, 5.0)
    assert (found["ours_until_ray"], found["other_until_ray"], found["ours_until_step"]) == (5.5, 4.25, 2.0)
    assert summary(ours, [other[0], made(10.0, 16.0, 1.0, 2.5)])["equal"] is False
    failed = [made(10.0, 16.0, 1.0, math.nan)]
    assert summary(failed, failed)["equal"] is False


def test_imports_are_read_off_the_interpreters_trace() -> None:
    trace = """import time: self [us] | cumulative | imported package
import time:       100 |        100 |   torch._C
import time:       100 |        200 | xray
a warning | that mentions ray
"""
    assert imported(trace) == {"imported package", "torch", "xray"}


def test_what_a_command_imports_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.py").write_text("")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("")
    assert heavy_imports(["-c", "import mlflow, json"], tmp_path) == "mlflow"
    assert heavy_imports(["-c", "import ray, mlflow"], tmp_path) == "ray mlflow"
    assert heavy_imports(["-c", "pass"], tmp_path) == "none"


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    assert heavy_imports(["-m", "platform.sweep", "--help"], tmp_path) == "none"


@pytest.mark.slow
def test_a_dry_run_imports_no_ray(tmp_path: Path) -> None:
    import yaml

    from benchmarks.sweeps.platform_overhead import SEARCH

    spec = {"name": "dry", "base": base_of(tmp_path / "data", 32, 1), "search": SEARCH, "budget": {"trials": 2},
            "resources": {"gpus_per_worker": 0}}  # fmt: skip
    (tmp_path / "dry.yaml").write_text(yaml.safe_dump(spec))
    assert "ray" not in heavy_imports(["-m", "platform.sweep", "dry.yaml", "--dry-run"], tmp_path).split()


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.unproven
@pytest.mark.timeout(1200)
def test_both_sides_run_and_reach_the_same_miou() -> None:
    found = run(argparse.Namespace(quick=True))
    assert found["equal"] is True and found["ours"] > 0 and found["other"] > 0
    assert found["help_imports"] == "none" and "ray" not in found["dry_run_imports"].split()
