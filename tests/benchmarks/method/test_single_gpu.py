"""The measurement of one GPU: rows without a device, the same code on the CPU, and a card that is too small."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.method import single_gpu
from cpn.core.errors import InputError
from cpn.cost import step_time

ROWS = [(name, precision) for name in ("CPN", "AffinityNet", "DeepLab") for precision in ("fp32", "bf16")]


def result(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert command.main(["single_gpu", "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(row["network"], row["precision"]) for row in found["rows"]] == ROWS
    return found


def test_without_a_device_nothing_is_measured_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    page = tmp_path / "page.md"
    found = result(capsys, "--write", str(page))
    assert found["measured"] is False and all(row["note"] == single_gpu.NO_DEVICE for row in found["rows"])
    text = page.read_text()
    assert text.count("not measured: no CUDA device |") == len(ROWS) and "Device: no CUDA device" in text


@pytest.mark.long
@pytest.mark.extra
def test_the_same_code_runs_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    found = result(capsys, "--device", "cpu", "--small", "--steps", "2", "--write", str(page))
    assert found["measured"] is False  # of a GPU
    for row in found["rows"]:
        assert row["side"] == 64 and row["peak_gib"] is None and row["step_s"] > 0
        assert math.isclose(row["images_per_s"], row["batch"] / row["step_s"])
        assert math.isclose(row["epoch_minutes"], 10582 / row["images_per_s"] / 60)
    cpn, deeplab = found["rows"][0], found["rows"][4]
    assert math.isclose(cpn["training_hours"], 6 * cpn["epoch_minutes"] / 60)  # the preset's epochs
    assert math.isclose(deeplab["training_hours"], 300 * deeplab["step_s"] / 3600)
    assert "say nothing about the method's cost" in page.read_text()


def test_every_step_is_timed_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock ticks 100 s for each warm-up step and 1, 2, 9 s for the timed ones: the median is 2."""
    ticks = iter([0.0, 100.0, 200.0, 300.0, 301.0, 303.0, 312.0])
    real = step_time.repeated

    def repeated(batch: Any, steps: int, device: Any, stamps: list[float]) -> Any:
        for given in real(batch, steps, device, []):
            stamps.append(next(ticks))
            yield given
        stamps.append(next(ticks))

    monkeypatch.setattr(step_time, "repeated", repeated)
    row = single_gpu.measure("AffinityNet", "fp32", torch.device("cpu"), True, 3)
    assert row["step_s"] == 2.0


@pytest.mark.long
@pytest.mark.extra
def test_too_small_a_card_is_a_row_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none_fits(config: Any, device: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(single_gpu, "JOBS", {**single_gpu.JOBS, "CPN": none_fits})
    found = result(capsys, "--device", "cpu", "--small", "--quick")
    assert [row.get("note") for row in found["rows"]] == ["out of memory"] * 2 + [None] * 4


@pytest.mark.parametrize("wrong", [["--steps", "0"], ["--card-gib", "0"], ["--device", "cpu"]])
def test_wrong_options_are_refused(wrong: list[str]) -> None:
    with pytest.raises(InputError, match=f"^.*{wrong[0]}"):
        command.main(["single_gpu", *wrong])
