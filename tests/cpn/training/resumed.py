"""A training that is killed after an epoch and resumed, for the test of each network's job."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from cpn.training.loop import TrainingContext
from cpn.training.training_job import TrainingJob, fit

Network = TypeVar("Network", bound=nn.Module)


def resumed_to_the_same_bits(
    make: Callable[[], Network], job: Callable[[Network], TrainingJob[Any, Any]], folder: Path, last: int
) -> Network:
    """Train whole, and killed once epoch `last` is reported and resumed: both weights are the same. The whole one."""
    whole, killed, resumed = make(), make(), make()
    context = TrainingContext(device=torch.device("cpu"), report=lambda _: None)

    def kill(entry: dict[str, float]) -> None:
        if entry["epoch"] == last:
            raise KeyboardInterrupt

    fit(job(whole), context)
    with pytest.raises(KeyboardInterrupt):
        fit(job(killed), replace(context, folder=folder, report=kill))
    fit(job(resumed), replace(context, folder=folder))
    for (name, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    return whole
