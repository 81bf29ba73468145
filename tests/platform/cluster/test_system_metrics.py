"""How busy the training machine is: few numbers, under MLflow's names, and true ones."""

import threading
import time
from pathlib import Path
from platform.cluster.system_metrics import Minutes, SystemMetrics, gpu_reader
from types import SimpleNamespace

import pytest
import torch


def test_a_busy_process_shows_as_busy() -> None:
    busy = SystemMetrics()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    told = busy()
    assert all(name.startswith("system/") for name in told) and len(told) <= 6
    assert told["system/worker_cpu_percentage"] > 5
    assert 0 < told["system/system_memory_usage_percentage"] <= 100
    assert 10 < told["system/worker_memory_megabytes"] < 100_000
    time.sleep(1)  # what threads of earlier tests still do has to be little of it
    assert busy()["system/worker_cpu_percentage"] < 50


def test_samples_are_handed_over_once_and_in_order() -> None:
    count = iter(range(1, 1000))
    minutes = Minutes(lambda: {"system/x": float(next(count))}, every_s=0.01)
    until = time.monotonic() + 20
    while len(minutes._samples) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    first = minutes()["minutes"]
    time.sleep(0.1)
    minutes.stop()
    second = minutes()["minutes"]
    values = [sample["system/x"] for sample in [*first, *second]]
    assert len(first) >= 3 and values == [float(number) for number in range(1, len(values) + 1)]
    assert [sample["time"] for sample in first] == sorted(sample["time"] for sample in first)


def test_a_run_of_seconds_has_one_sample() -> None:
    minutes = Minutes(lambda: {"system/x": 1.0}, every_s=3600)
    assert [len(minutes().get("minutes", [])) for _ in range(3)] == [1, 0, 0]
    minutes.stop()


def test_a_machine_without_a_gpu_says_nothing() -> None:
    before = threading.active_count()
    minutes = Minutes(gpu_reader(torch.device("cpu")))
    assert minutes() == {} and threading.active_count() == before
    minutes.stop()


@pytest.mark.parametrize(
    ("answer", "busy"), [("echo 87", 87.0), ("echo '[N/A]'", None), ("exit 9", None), (None, None)],
    ids=["knows", "part of a card", "fails", "no tool"],
)  # fmt: skip
def test_memory_is_torchs_and_the_load_the_drivers(
    answer: str | None, busy: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if answer is not None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n{answer}\n')
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"card-{index}"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (1_000_000_000, 4_000_000_000))
    read = gpu_reader(torch.device("cuda", 1))
    assert read is not None
    memory = {"system/gpu_0_memory_usage_megabytes": 3000.0, "system/gpu_0_memory_usage_percentage": 75.0}
    assert read() == memory | ({} if busy is None else {"system/gpu_0_utilization_percentage": busy})
    if answer is not None:
        assert "--id=GPU-card-1 --query-gpu=utilization.gpu" in (tmp_path / "asked").read_text()
