"""Frees the placement group of a trial that was killed, from a process that outlives it.

Ray Train starts such a helper for each trial, detached, and then tells it to begin. A trial that is killed in the
second or two between leaves a helper that never began: an idle process on the head of the cluster for as long as the
cluster runs (Ray 2.60). This one begins by itself. Ray's asks for the trial's state without an address: where a second
Ray runs on the machine, the query finds both, the helper's thread dies of it, and a pruned trial's CPUs are held for
ever. This one asks the Ray that it runs in. And it imports no more of Ray than that takes: its start is part of every
trial's cost.

trial_trainer.py puts it in the place of Ray's. Ray issue 61689 is closed, but for the moment before the helper begins.
"""

import os
import threading
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.state import get_actor
from ray.util.state.exception import RayStateApiException


class PlacementGroupCleaner:
    """An actor with the methods of Ray's helper, which Ray's callback calls (`PlacementGroupCleanerCallback`)."""

    def __init__(
        self, controller_actor_id: str, check_interval_s: float, get_actor_timeout_s: float, stop_timeout: float
    ) -> None:
        """Watch the actor with this id. Seconds: between two looks, and how long one may take; stopping is at once."""
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address  # of this process: an actor has its own
        self._group: PlacementGroup | None = None
        self._stopped = threading.Event()
        watch = (controller_actor_id, check_interval_s, round(get_actor_timeout_s))
        threading.Thread(target=self._free_after, args=watch, daemon=True).start()

    def start_monitoring(self) -> None:
        """Do nothing: it began by itself."""

    def register_placement_group(self, placement_group: PlacementGroup) -> None:
        """Take the group to free; a trial that starts again has another one."""
        self._group = placement_group

    def stop(self) -> None:
        """End, and leave the group to the trial, which frees it itself."""
        self._stopped.set()
        ray.actor.exit_actor()

    def _free_after(self, actor: str, interval: float, timeout: int) -> None:
        while not self._stopped.wait(interval):
            if is_dead(actor, timeout):
                if self._group is not None:
                    remove_placement_group(self._group)
                ray.actor.exit_actor()


def is_dead(actor: str, timeout: int) -> bool:
    """Return whether Ray says that an actor is dead, or does not know it; what cannot be asked now is asked again."""
    try:
        state: Any = get_actor(actor, timeout=timeout)
    except RayStateApiException:
        return False
    return state is None or state.state == "DEAD"
