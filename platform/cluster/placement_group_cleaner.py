"""Ray Train's helper that frees a dead controller's placement group, made to watch from its first moment.

Ray Train starts one for each trial, detached, so that it outlives what it watches, and then tells it to begin. A
controller that is killed in the second or two between leaves a helper that never began: an idle process on the head of
the cluster for as long as the cluster runs (Ray 2.60). Here it begins by itself. It asks for the controller's state
without an address: where a second Ray runs on the machine, the query finds both, the helper's thread dies of it, and a
pruned trial's CPUs are held for ever. Here it asks the Ray that it runs in. These are internals of Ray: its version is
pinned in pyproject.toml, and tests/platform/cluster/test_placement_group_cleaner.py looks at them.
"""

import os
from typing import TYPE_CHECKING, Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import placement_group_callback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller.placement_group_cleaner import PlacementGroupCleaner

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.context import TrainRunContext
    from ray.train.v2.api.callback import RayTrainCallback


class WatchfulCleaner(PlacementGroupCleaner):
    """The helper, in an actor of its own."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address  # of this process: an actor has its own
        self.start_monitoring()  # type: ignore[no-untyped-call]


class StartWatchfulCleaner(PlacementGroupCleanerCallback):
    """What starts it, in the controller's process."""

    def after_controller_start(self, train_run_context: "TrainRunContext") -> None:
        """Start it in place of Ray's own."""
        placement_group_callback.PlacementGroupCleaner = WatchfulCleaner  # type: ignore[attr-defined]
        super().after_controller_start(train_run_context)


class Trainer(TorchTrainer):
    """Ray's trainer with this helper."""

    def _create_default_callbacks(self) -> "list[RayTrainCallback]":
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]  # the types know Train V1's class only
        return [StartWatchfulCleaner() if type(c) is PlacementGroupCleanerCallback else c for c in callbacks]
