"""The least memory that a training step of the CAM network holds: weights, gradients, optimizer, kept activations.

One image goes through the network on the meta device, which knows shapes and computes no numbers, and what autograd
keeps for the backward pass is counted by torch's own hooks. It is a lower bound: losses, workspaces of the convolutions
and what is freed on the way are not in it. A run whose bound does not fit cannot work.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from cpn.config import Config
from cpn.config.loss import LossConfig
from cpn.config.network import NetworkConfig
from cpn.config.train import SEAM_SCALE
from cpn.core.errors import InputError
from cpn.models.network import build_network
from cpn.training.cam_training import freeze_unused

STATES = {"sgd": 1, "adamw": 2}
"""Numbers that the optimizer keeps for each trained weight."""
GIB = 2**30


def step_bytes(config: Config, classes: int, workers: int = 1) -> float | None:
    """Return the bytes that each of `workers` holds at least while it trains with its share of the batch; `classes` is
    C.

    bf16 keeps most activations in half the bytes, and all are counted so: still a lower bound. None where a user's
    backbone cannot run without numbers. Raises InputError when there is no such backbone.
    """
    counted = _network_bytes(config.network, config.loss, config.train.objective, classes, config.data.crop)
    if counted is None:
        return None
    weights, trained, activations = counted
    images = math.ceil(config.train.batch_size / workers)
    half = 0.5 if config.train.precision == "bf16" else 1.0
    optimizer = trained * (1 + STATES[config.train.optimizer])  # gradients as well
    return weights + optimizer + half * images * activations


def passes(objective: str, crop: int) -> list[int]:
    """Sides of the passes over a training image that are kept for the backward pass."""
    if objective == "seam":
        return [crop, round(SEAM_SCALE * crop)]
    return [crop] * (3 if objective in ("cpn", "pair_classification") else 1)


@lru_cache(maxsize=64)
def _network_bytes(
    network: NetworkConfig, loss: LossConfig, objective: str, classes: int, crop: int
) -> tuple[int, int, float] | None:
    """Return the bytes of the weights, of those that are trained, and of what one image's passes keep."""
    parts = {"network": network.model_dump(), "loss": loss.model_dump(), "train": {"objective": objective}}
    try:
        with torch.device("meta"):
            model = build_network(network, classes).train()
        freeze_unused(model, Config.model_validate(parts))
        activations = sum(kept_bytes(model, side) for side in passes(objective, crop))
    except (RuntimeError, InputError):
        build_network(network, classes)  # what is wrong on the CPU too is said
        return None
    every = [(p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()]
    return sum(size for size, _ in every), sum(size for size, grad in every if grad), activations


def kept_bytes(network: nn.Module, side: int) -> float:
    """Return the bytes that autograd keeps of one image (3, side, side): each tensor once, weights left out."""
    weights = {id(p) for p in network.parameters()} | {id(b) for b in network.buffers()}
    seen: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        base = tensor._base if tensor._base is not None else tensor
        if id(base) not in weights:
            seen[id(base)] = base  # held, so that no id is given twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = network(torch.zeros(1, 3, side, side, device=next(network.parameters()).device))
    del out
    return float(sum(tensor.numel() * tensor.element_size() for tensor in seen.values()))
