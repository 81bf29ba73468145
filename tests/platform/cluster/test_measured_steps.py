"""Measured steps: the request, the answers of the process in words, and a device that is not there."""

import subprocess
from platform.cluster import measured_steps
from platform.cluster.measured_steps import Measured, device_for, measured_step, take_steps
from platform.config.sections import Resources
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cpn.config import config_from
from cpn.cost import step_time

CONFIG = config_from({"preset": ["official", "scenes"], "data": {"crop": 32}, "train": {"batch_size": 4}}, "-")
ON_CPU = Resources(gpus_per_worker=0.0)


@pytest.mark.parametrize(
    ("gpus", "there", "asked", "device"),
    [(1.0, True, False, "cuda"), (1.0, False, False, None), (1.0, False, True, "cpu"), (0.5, True, True, "cuda"),
     (0.0, True, False, None), (0.0, True, True, "cpu")],
)  # fmt: skip
def test_which_device(
    monkeypatch: pytest.MonkeyPatch, gpus: float, there: bool, asked: bool, device: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_for(Resources(gpus_per_worker=gpus), asked) == device


def test_a_process_measures_on_the_cpu() -> None:
    found = measured_step(CONFIG, 4, "cpu", ON_CPU)
    assert found.problem is None and found.fits and found.device == "cpu" and found.card_gib is None
    assert found.step_s is not None and found.step_s > 0 and found.peak_gib is not None and found.peak_gib > 0.05


def answer(monkeypatch: pytest.MonkeyPatch, code: int, out: str = "", err: str = "") -> list[Any]:
    asked: list[Any] = []

    def run(command: list[str], **options: Any) -> Any:
        asked.append(options)
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_a_worker_gets_its_share_of_batch_and_card(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = '{"device": "A card", "step_s": 0.5, "peak_gib": 3.0, "card_gib": 12.0, "fits": true, "problem": null}'
    asked = answer(monkeypatch, 0, "a backbone that prints\n" + answered + "\n")
    found = measured_step(CONFIG, 4, "cuda", Resources(workers=2, gpus_per_worker=0.5), limit_s=7)
    assert found == Measured("A card", 0.5, 3.0, 12.0)
    request = measured_steps.json.loads(asked[0]["input"])
    assert request["config"]["train"]["batch_size"] == 2 and request["share"] == 0.5 and request["classes"] == 4
    assert asked[0]["timeout"] == 7


@pytest.mark.parametrize(
    ("code", "out", "err", "words"),
    [(-9, "", "", "signal 9; memory may have run out"), (1, "", "Traceback\nValueError: no", "ValueError: no"),
     (0, "", "", "exit code 0"), (3, "", "", "exit code 3")],
)  # fmt: skip
def test_a_process_that_fails_is_a_line(
    monkeypatch: pytest.MonkeyPatch, code: int, out: str, err: str, words: str
) -> None:
    answer(monkeypatch, code, out, err)
    found = measured_step(CONFIG, 4, "cpu", ON_CPU)
    assert found.step_s is None and found.problem is not None and found.problem.endswith(words)


def test_the_time_limit_is_a_line() -> None:
    found = measured_step(CONFIG, 4, "cpu", ON_CPU, limit_s=0.01)
    assert found.step_s is None and found.problem == "5 steps on cpu took more than 0.01 s"


def test_out_of_memory_is_an_answer_with_the_workers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of 24 GiB that is not there, of which the worker has half."""
    held: list[float] = []

    def none_fits(config: Any, classes: int, device: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card 24")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=24 * 2**30))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", held.append)
    monkeypatch.setattr(step_time, "cam_job", none_fits)
    request = {"config": CONFIG.model_dump(mode="json"), "classes": 4, "device": "cuda", "share": 0.5}
    assert take_steps(request) == Measured("Card 24", card_gib=12.0, fits=False, problem="out of memory")
    assert held == [0.5]
