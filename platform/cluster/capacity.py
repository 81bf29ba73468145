"""What fits where: workers on the nodes of a cluster, trials at a time, and a training step in a worker's memory."""

import math
import os
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cpn.config import Config
from cpn.core.errors import InputError, WorkError

from ..config.sections import Resources

if TYPE_CHECKING:
    import torch


Node = Mapping[str, float]
"""Resources of one machine as Ray names them: CPU, GPU, accelerator_type:A100."""
SLACK = 1e-9
LOGICAL_GPUS = "CPN_LOGICAL_GPUS"
"""Environment of a cluster's nodes: 1 if their GPUs are numbers alone."""


def total(nodes: Sequence[Node], kind: str) -> float:
    """Return how much of one resource all nodes have."""
    return sum(node.get(kind, 0.0) for node in nodes)


def room(resources: Resources, node: Node) -> int:
    """Workers that fit on a node. Of a card each takes its share: two cards hold two workers of .6, and not three."""
    if resources.accelerator is not None and not node.get(f"accelerator_type:{resources.accelerator}"):
        return 0
    fits = math.floor(node.get("CPU", 0.0) / resources.cpus_per_worker + SLACK)
    if resources.gpus_per_worker:
        fits = min(fits, math.floor(node.get("GPU", 0.0)) * math.floor(1 / resources.gpus_per_worker + SLACK))
    return fits


def check_resources(resources: Resources, nodes: Sequence[Node]) -> None:
    """Raise InputError when one trial asks for more than the whole cluster has, or than any of its nodes can give.

    An autoscaled cluster is not asked: what it lacks is what it brings.
    """
    if resources.autoscaled:
        return
    needed = {
        "CPU": resources.workers * resources.cpus_per_worker,
        "GPU": resources.workers * resources.gpus_per_worker,
    }
    for kind, key in (("GPU", "gpus_per_worker"), ("CPU", "cpus_per_worker")):
        have = total(nodes, kind)
        if needed[kind] > have + SLACK:
            cure = f"--set resources.{key}=0 trains on the CPU" if kind == "GPU" else "lower it, or resources.workers"
            raise InputError(
                f"resources.{key}: a trial needs {needed[kind]:g} {kind}s ({resources.workers} workers), "
                f"the cluster has {have:g}; {cure}, or resources.autoscaled=true if more come on demand"
            )
    places = sum(room(resources, node) for node in nodes)
    if places < resources.workers:
        card = f" of a {resources.accelerator}" if resources.accelerator else ""
        raise InputError(
            f"resources.workers: each of {resources.workers} needs {resources.cpus_per_worker:g} CPUs and "
            f"{resources.gpus_per_worker:g} GPUs{card} of one machine, and the {len(nodes)} there are have room for "
            f"{places}; lower resources.cpus_per_worker or resources.workers"
            + (", or drop resources.accelerator" if resources.accelerator else "")
        )


def concurrency(resources: Resources, nodes: Sequence[Node]) -> int:
    """Trials at a time: `resources.concurrent`, or as many as fit."""
    if resources.concurrent != "auto":
        return int(resources.concurrent)
    return max(1, sum(room(resources, node) for node in nodes) // resources.workers)


def usable(device: "torch.device") -> "torch.device":
    """Return the device that Ray gave a worker, on which it trains. Raises WorkError where that is a card that torch
    lacks.

    With LOGICAL_GPUS set it trains on the CPU then: cards that Ray was only told of rehearse a cluster.
    """
    import torch

    if device.type != "cuda" or torch.cuda.is_available():
        return device
    if os.environ.get(LOGICAL_GPUS) == "1":
        return torch.device("cpu")
    raise WorkError(
        f"resources.gpus_per_worker: Ray gave this worker a GPU, and torch {torch.__version__} finds none on "
        f"{socket.gethostname()}; install a CUDA build and a driver there, or set resources.gpus_per_worker=0"
    )


def check_memory(config: Config, classes: int, workers: int, device: "torch.device", share: float) -> None:
    """Raise WorkError, before anything is loaded, where a training step cannot fit in what is free for this worker.

    `classes` is C, `share` the worker's of the card. A worker with less than a whole card is held to its share, so that
    one that runs out of memory does not take its neighbours along.
    """
    import torch

    from cpn.cost.training_memory import GIB, step_bytes

    if device.type == "cuda":
        if share < 1:
            torch.cuda.set_per_process_memory_fraction(share, device)
        free, whole = torch.cuda.mem_get_info(device)
        have, name = min(free, share * whole), torch.cuda.get_device_name(device)
    else:
        import psutil

        have, name = psutil.virtual_memory().available, "this machine"
    needed = step_bytes(config, classes, workers)
    if needed is not None and needed > have:
        raise WorkError(
            f"memory: a training step holds at least {needed / GIB:.1f} GiB, and {name} has {have / GIB:.1f} GiB free "
            "for this worker; lower train.batch_size or data.crop, set train.precision=bf16, or raise "
            "resources.gpus_per_worker"
        )
