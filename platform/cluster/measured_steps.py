"""A few real training steps in a process of their own: what `--dry-run` asks of the device before a sweep is started.

    python -m platform.cluster.measured_steps < request.json       # what `measured_step` starts; the last line of its
    output is JSON

The process has a time limit, takes its memory with it when it ends, and needs no data: it trains on random images.
Ray is not started.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cpn.config import Config
from cpn.core.errors import run_command

from ..config.sections import Resources

LIMIT_S = 180
"""Seconds that the process may take, its start included."""
WARM_UP, STEPS = 2, 3
MODULE = "platform.cluster.measured_steps"


@dataclass(frozen=True)
class Measured:
    """A step of one worker, or why there is none."""

    device: str
    """The device's name."""
    step_s: float | None = None
    """Seconds a step of one worker's share of the batch takes."""
    peak_gib: float | None = None
    """What it held at most: of the card (CUDA's own context, about half a GiB, comes on top), or of this machine's
    memory."""
    card_gib: float | None = None
    """What a worker may hold of the card: its share of it; None on the CPU."""
    fits: bool = True
    """False: out of memory."""
    problem: str | None = None
    """Why nothing was measured."""


def device_for(resources: Resources, on_cpu: bool) -> str | None:
    """`cuda` where the sweep trains on GPUs and one is there, `cpu` where it is asked for, else None."""
    if resources.gpus_per_worker > 0 and cuda_is_there():
        return "cuda"
    return "cpu" if on_cpu else None


def cuda_is_there() -> bool:
    """Return whether this machine has a device that torch can use."""
    import torch

    return torch.cuda.is_available()


def measured_step(
    config: Config, classes: int, device: str, resources: Resources, limit_s: float = LIMIT_S
) -> Measured:
    """Time a step of `config` as one of the sweep's workers takes it: its share of the batch, its share of a card.

    Whatever goes wrong in the process is in the answer, in words; nothing is raised.
    """
    share = min(1.0, resources.gpus_per_worker) if device == "cuda" else None
    batch = max(1, config.train.batch_size // resources.workers)
    request = {
        "config": config.model_dump(mode="json") | {"train": config.train.model_dump() | {"batch_size": batch}},
        "classes": classes,
        "device": device,
        "share": share,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", MODULE],
            input=json.dumps(request), capture_output=True, text=True, timeout=limit_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Measured(device, problem=f"{WARM_UP + STEPS} steps on {device} took more than {limit_s:g} s")
    output = done.stdout.strip().splitlines()
    if done.returncode == 0 and output:
        return Measured(**json.loads(output[-1]))
    if done.returncode < 0:
        return Measured(device, problem=f"the process was ended by signal {-done.returncode}; memory may have run out")
    complaint = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return Measured(device, problem=complaint[0])


def take_steps(request: Mapping[str, Any]) -> Measured:
    """Time the steps in the child process, on the device that `request` names. Out of memory is a result."""
    import torch

    from cpn.cost.step_time import cam_job, time_steps

    config, device = Config.model_validate(request["config"]), torch.device(request["device"])
    name, card = device.type, None
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        card = request["share"] * torch.cuda.get_device_properties(device).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(request["share"])
    else:
        torch.set_num_threads(1)  # as a worker of a sweep that trains on the CPU
    torch.manual_seed(0)
    try:
        job = cam_job(config, request["classes"], device)
        timing = time_steps(job, device, STEPS, warm_up=WARM_UP, bf16=config.train.precision == "bf16")
    except torch.OutOfMemoryError:
        return Measured(name, card_gib=card, fits=False, problem="out of memory")
    return Measured(name, timing.seconds, timing.peak_gib, card)


def main() -> int:
    """Read a request, answer it in one line."""
    print(json.dumps(asdict(take_steps(json.load(sys.stdin)))))
    return 0


if __name__ == "__main__":
    run_command(main)
