"""What a task of a later stage is given: plain values that travel to any node, and its resources."""

from dataclasses import dataclass
from typing import Any

from cpn.propagation.walk_rule import WalkChoice

from ..config.sections import Resources

ON_GPU = ("cam", "affinity", "random_walk", "deeplab")


EPOCHS = "epochs.json"


@dataclass(frozen=True)
class Plan:
    """What a stage's task needs to know; plain values that travel to any node."""

    storage: str
    """The folder, or the URL; the paths below are inside it."""
    model: str
    config: dict[str, Any]
    data_root: str
    work: str
    folders: dict[str, str]
    beta: float
    """The run's."""
    contents: dict[str, str]
    """Digests of the weights files and the user's own code, which a training starts from (own_code.py)."""
    walk: WalkChoice | None = None
    """Of the random walk: what was chosen, where something was."""


def needs(stage: str, resources: Resources) -> dict[str, Any]:
    """Return what a task of the stage asks Ray for. Without a GPU it goes to machines that have none, as long as these
    have room: that is how Ray places such tasks.
    """
    if stage not in ON_GPU or not resources.gpus_per_worker:
        return {"num_cpus": 1, "num_gpus": 0}
    return {"num_cpus": 1, "num_gpus": resources.gpus_per_worker, "accelerator_type": resources.accelerator}
