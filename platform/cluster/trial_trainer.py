"""Ray Train's trainer as a trial uses it: with fewer processes around the workers.

Every process is a start of Python with its imports, and a trial waits for all of them. Ray starts a controller, a queue
from it to Tune, a manager of data sets and a helper that watches the controller. A trial already has a process, Tune's,
that does nothing but wait for the controller, so the controller runs in it and reports to Tune directly; a trial gives
Ray no data sets; and the helper is a lighter one. `python -m benchmarks platform_overhead` holds a trial against one of
Ray as it comes. These are internals of Ray: its version is pinned in pyproject.toml. Ray issue 65443 asks for one
helper of all trials; tests/platform/cluster/test_ray_internals.py says when a part is no longer needed.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray.train import Result, UserCallback
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import placement_group_callback
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller.controller import TrainController

from .placement_group_cleaner import PlacementGroupCleaner

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.context import TrainRunContext
    from ray.train.v2.api.callback import RayTrainCallback


class StartCleaner(PlacementGroupCleanerCallback):
    """What starts the helper, in the controller's process."""

    def after_controller_start(self, train_run_context: "TrainRunContext") -> None:
        """Start ours in place of Ray's own."""
        placement_group_callback.PlacementGroupCleaner = PlacementGroupCleaner  # type: ignore[attr-defined, assignment]
        super().after_controller_start(train_run_context)


class ReportDirectly(UserCallback):
    """Give what rank 0 reports to Tune, from the process in which Tune listens."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        self.report = report

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Report; Ray calls it once all workers have."""
        self.report(dict(metrics[0]))


class TrialTrainer(TorchTrainer):
    """Ray's trainer, whose controller runs in the process that calls `fit`."""

    def _create_default_callbacks(self) -> "list[RayTrainCallback]":
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]  # the types know Train V1's class only
        needed = [each for each in callbacks if type(each) is not DatasetsCallback]
        return [StartCleaner() if type(each) is PlacementGroupCleanerCallback else each for each in needed]

    def _initialize_and_run_controller(self, **parts: Any) -> Result:
        controller = TrainController(**parts)
        asyncio.run(controller.run())
        return controller.get_result()
