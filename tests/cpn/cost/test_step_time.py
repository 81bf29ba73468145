"""Timed steps: the clock around each, the median of the timed ones, and that the step is the objective's."""

from typing import Any

import pytest
import torch

from cpn.config import config_from
from cpn.cost import step_time
from cpn.cost.step_time import cam_job, repeated, time_steps

CPU = torch.device("cpu")
TINY = {"preset": ["official", "scenes"], "data": {"crop": 32}, "train": {"batch_size": 2}}


def test_a_batch_is_timed_as_often_as_asked() -> None:
    stamps: list[float] = []
    assert list(repeated("batch", 3, CPU, stamps)) == ["batch"] * 3
    assert len(stamps) == 4 and stamps == sorted(stamps)


def test_the_median_of_the_timed_steps_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock ticks 100 s for a warm-up step and 1, 2, 9 s for the timed ones: the median is 2."""
    ticks = iter([0.0, 100.0, 101.0, 103.0, 112.0])
    real = step_time.repeated

    def given(batch: Any, steps: int, device: Any, stamps: list[float]) -> Any:
        for each in real(batch, steps, device, []):
            stamps.append(next(ticks))
            yield each
        stamps.append(next(ticks))

    monkeypatch.setattr(step_time, "repeated", given)
    found = time_steps(cam_job(config_from(TINY, "-"), 4, CPU), CPU, 3, warm_up=1, bf16=False)
    assert found.seconds == 2.0
    assert 0.05 < found.peak_gib < 100  # a process with torch in it


@pytest.mark.parametrize(("objective", "terms"), [("cpn", {"cls", "tcp", "cpcr"}), ("classification", {"cls"})])
def test_the_job_is_the_objectives_at_the_asked_size(objective: str, terms: set[str]) -> None:
    torch.manual_seed(0)
    config = config_from({**TINY, "train": {"batch_size": 3, "objective": objective}}, "-")
    job = cam_job(config, 4, CPU)
    assert job.batch_size == 3 and job.batch.images.shape == (3, 32, 32, 3) and job.batch.labels.shape == (3, 3)
    assert terms | {"total"} <= set(job.losses(job.batch, 0.5))
    assert {group["lr"] for group in job.optimizer.param_groups} <= {
        step_time.TINY * factor for factor in (1, 2, 100.0, 200.0, 10.0, 20.0)
    }


def test_weights_hardly_move() -> None:
    job = cam_job(config_from(TINY, "-"), 4, CPU)
    before = {name: value.clone() for name, value in job.network.state_dict().items()}
    time_steps(job, CPU, 1, warm_up=1, bf16=False)
    for name, value in job.network.state_dict().items():
        assert torch.allclose(value, before[name], atol=1e-4), name
