"""The bare script's own parts; what it trains is cpn's, and topics hold its results against a sweep's."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import distributed, nn

from benchmarks.sweeps import bare_trials


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_every_message_of_a_step_is_counted(alone: None) -> None:
    layers = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5, bias=False))
    layers[0].bias.requires_grad_(False)
    module, sent = nn.parallel.DistributedDataParallel(layers), list[int]()
    bare_trials.count_messages(module, sent)
    for _ in range(3):
        module(torch.ones(2, 3)).sum().backward()
    assert sum(sent) == 3 * 4 * (3 * 4 + 4 * 5)  # float32, the frozen bias left out
    assert layers[0].weight.grad is not None and float(layers[0].weight.grad.abs().sum()) > 0


def test_what_happens_is_printed_as_a_sweep_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    trial, told = SimpleNamespace(config={"number": 3}, last_result={"miou": 21.5}), bare_trials.Told()
    told.on_trial_start(0, [], trial)
    told.on_trial_result(0, [], trial, {"epoch": 1, "images_per_s": 9.5, "time": 77.0, "config": {}, "host": "a"})
    told.on_trial_complete(0, [], trial)
    told.on_trial_error(0, [], trial)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["uid"]) for line in lines] == [
        ("trial_started", 3), ("trial_reported", 3), ("trial_ended", 3), ("trial_ended", 3),
    ]  # fmt: skip
    assert {k: lines[1][k] for k in ("epoch", "images_per_s", "time")} == {
        "epoch": 1, "images_per_s": 9.5, "time": 77.0,  # the worker's clock, as in a sweep's events
    }  # fmt: skip
    assert [line["value"] for line in lines[2:]] == [21.5, None] and lines[3]["state"] == "fail"
