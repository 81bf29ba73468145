"""Optimizers and the polynomial learning-rate schedule of the method."""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import nn

from cpn.config.train import OptimizerKind


def build_optimizer(
    kind: OptimizerKind, groups: Iterable[dict[str, Any]], *, sgd_momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """SGD (method.md (f)) or AdamW over parameter groups that each carry their own `lr`.

    A group without a `weight_decay` of its own takes the given one. `sgd_momentum` is read by SGD alone. Parameters on
    a GPU are stepped by one fused kernel.
    """
    listed = [{**group, "params": list(group["params"])} for group in groups]
    parameters = [parameter for group in listed for parameter in group["params"]]
    fused = True if parameters and all(parameter.is_cuda for parameter in parameters) else None
    if kind == "adamw":
        return torch.optim.AdamW(listed, weight_decay=weight_decay, fused=fused)
    return torch.optim.SGD(listed, momentum=sgd_momentum, weight_decay=weight_decay, fused=fused)


def poly_factor(step: int, max_steps: int, power: float) -> float:
    """(1 - t/T)^power, held at its last positive value from step T on (method.md (f): lr0 (1 - t/21160)^0.9)."""
    return float((1 - min(step, max_steps - 1) / max_steps) ** power)


class PolySchedule:
    """Sets every group's learning rate to its initial one times `poly_factor`; stateless but for the initial rates.

    Call it with the index of the step about to be taken. After `max_steps` the rate stays where it was at the last
    step, as in the released optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_steps: int, power: float = 0.9) -> None:
        self.optimizer = optimizer
        self.max_steps = max(1, max_steps)
        self.power = power
        self.initial = [float(group["lr"]) for group in optimizer.param_groups]

    def __call__(self, step: int) -> float:
        """Set the rates for step `step` (from 0); returns the first group's rate."""
        factor = poly_factor(step, self.max_steps, self.power)
        for group, initial in zip(self.optimizer.param_groups, self.initial, strict=True):
            group["lr"] = initial * factor
        return self.initial[0] * factor


def weights_and_biases(modules: Iterable[nn.Module]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trainable convolution weights and biases of `modules`, in order: the groups of method.md (f)."""
    weights: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                (biases if name.endswith("bias") else weights).append(parameter)
    return weights, biases


class Grouped(Protocol):
    """A network with pretrained and new layers: CPN, AffinityNet, DeepLab."""

    backbone: nn.Module

    def new_layers(self) -> list[nn.Module]:
        """Return the layers that start from random weights."""
        ...


def parameter_groups(network: Grouped, lr: float, head_lr_factor: float, weight_decay: float) -> list[dict[str, Any]]:
    """Pretrained weights at `lr`, new layers at `head_lr_factor` times it, biases at twice that and without decay.

    Method.md (f), (h), (i). Groups without parameters are left out.
    """
    groups: list[dict[str, Any]] = []
    for modules, rate in (([network.backbone], lr), (network.new_layers(), lr * head_lr_factor)):
        weights, biases = weights_and_biases(modules)
        groups.append({"params": weights, "lr": rate, "weight_decay": weight_decay})
        groups.append({"params": biases, "lr": 2 * rate, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]
