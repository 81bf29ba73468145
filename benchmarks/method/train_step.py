"""A training step of CPN: one forward pass over the three branches, against three float32 passes one after the other.

    python -m benchmarks train_step --json

On the CPU the preset scenes' network and batch, one thread. Where the processor multiplies in bf16 (avx512_bf16, amx:
`bf16`) ours runs under autocast, else, or with `--fp32`, in float32 as well (target 1). On a GPU
(`--device cuda`) ResNet38 at 448, batch 4, under bf16 autocast, target 0.33, and `peak_gib` at most 20. `equal`: all
loss terms of a first float32 step are the same to 1e-5 of their size, and its gradient to 1e-4 of its norm.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.comparison import Comparison, take_turns

TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--fp32", action="store_true", help="float32 for ours too, whatever the processor multiplies")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu", help="where to run (%(default)s)")


def has_bf16() -> bool:
    """Whether this processor multiplies in bf16; elsewhere autocast would only convert."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def three_passes(network: Any, batch: Any, config: Any) -> Any:
    """The losses of a batch with one forward pass for each branch."""
    from cpn.data.patches import complementary_pair
    from cpn.data.transforms import normalise
    from cpn.models.losses import cpn_losses

    images = normalise(batch.images, batch.valid)
    branches = [network(each) for each in (images, *complementary_pair(images, batch.hidden))]
    return cpn_losses(*branches, batch.labels, batch.lam, config.loss, 0.5)


def gradients_apart(network: Any, one: Any, other: Any) -> float:
    """The norm of the difference of two losses' gradients at a network's trained parameters, over the second's."""
    import torch

    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    both = [torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True) for loss in (one, other)]
    first, second = (torch.cat([gradient.flatten().double() for gradient in each]) for each in both)
    return float((first - second).norm() / second.norm())


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compare."""
    import torch

    from cpn.config import config_from
    from cpn.cost.step_time import cam_job
    from cpn.training.cam_training import objective
    from cpn.training.kept_memory import kept_memory

    torch.set_num_threads(1)
    device = torch.device(getattr(options, "device", "cpu"))
    on_gpu = device.type == "cuda"
    config = config_from({"preset": ["official"] if on_gpu else ["official", "scenes"]}, "the benchmark")
    torch.manual_seed(0)
    job = cam_job(config, 21 if on_gpu else 7, device)
    bf16 = on_gpu or (has_bf16() and not getattr(options, "fp32", False))
    network = job.network.eval()  # dropout would draw other numbers in three passes
    one = objective(network, job.batch, 0.5, config.loss, "cpn")
    three = three_passes(network, job.batch, config)
    values = {name: (float(one[name].detach()), float(three[name].detach())) for name in three}
    off = max(abs(a - b) / max(1e-3, abs(b)) for a, b in values.values())
    apart = gradients_apart(network, one["total"], three["total"])
    network.train()

    def step(losses: Any, autocast: bool) -> None:
        job.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            total = losses()["total"]
        total.backward()
        job.optimizer.step()

    def clock() -> float:
        if on_gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    with kept_memory(device):  # as the training loop has it; for both
        ours, other = take_turns(
            lambda: step(lambda: objective(network, job.batch, 0.5, config.loss, "cpn"), bf16),
            lambda: step(lambda: three_passes(network, job.batch, config), False),
            5 if options.quick else 15,
            clock,
        )
    more = {"device": device.type, "bf16": bf16, "largest_relative_difference": off, "gradients_apart": apart}
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        step(lambda: objective(network, job.batch, 0.5, config.loss, "cpn"), bf16)
        more |= {"peak_gib": torch.cuda.max_memory_allocated() / 2**30, "target_peak_gib": 20}
    target, equal = 0.33 if on_gpu else 0.6 if bf16 else 1.0, off < TOLERANCE and apart < GRADIENT_TOLERANCE
    return Comparison(ours, other, "s a step", equal, target, more).result()
