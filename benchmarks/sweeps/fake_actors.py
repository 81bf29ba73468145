"""Actors for Ray Tune of which nothing runs: what a trial would report is there when it is due.

    with fake_actors(reports):
        run_trials(...)                   # the product's driver, Tune's own loop; no worker is started

Tune's controller asks its actor manager for everything that runs elsewhere, so in its place stands one that answers
from a list: 1,000 trials at a time need no machine. Whatever the driver's process does stays as it is. The names are
internals of Ray 2.60 (`ray.tune.execution.tune_controller`); a Ray with others ends in AttributeError, and the test of
this file is red.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.tune.result import DONE, RESULT_DUPLICATE

Reports = Callable[[Mapping[str, Any]], Iterator[tuple[float, dict[str, Any]]]]
"""A trial's configuration -> seconds since the report before, and the report."""


@contextmanager
def fake_actors(reports: Reports) -> Iterator["FakeActors"]:
    """Have Tune start no actors while the block runs, and hear `reports` in their place."""
    actors = FakeActors(reports)
    with mock.patch("ray.tune.execution.tune_controller.RayActorManager", lambda resource_manager: actors):
        yield actors


class FakeActors:
    """What TuneController asks of an actor manager."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._starting: deque[tuple[TrackedActor, Iterator[tuple[float, dict[str, Any]]]]] = deque()
        self._ending: deque[TrackedActor] = deque()
        self._running: dict[TrackedActor, Iterator[tuple[float, dict[str, Any]]]] = {}
        self._due: list[tuple[float, int, TrackedActor, dict[str, Any], Callable[..., None]]] = []
        self._last: dict[TrackedActor, float] = {}
        self._order = self._made = 0
        self._live_actors_to_ray_actors_resources: dict[TrackedActor, tuple[None, None]] = {}
        self._actor_task_events = SimpleNamespace(resolve_future=lambda future: None)
        self.own_s = 0.0
        """CPU seconds of this thread that went into making reports: a real driver has no such work."""

    def add_actor(
        self, cls: Any, kwargs: Mapping[str, Any], resource_request: Any, *, on_start: Any, on_stop: Any, on_error: Any
    ) -> TrackedActor:
        """An actor that starts with the next event."""
        self._made += 1
        actor = TrackedActor(self._made, on_start=on_start, on_stop=on_stop, on_error=on_error)
        self._starting.append((actor, self._reports(kwargs["config"])))
        return actor

    def schedule_actor_task(
        self, tracked_actor: TrackedActor, method_name: str, *_: Any, on_result: Any = None, **__: Any
    ) -> None:
        """Training reports when the next report is due; whatever else is asked of an actor is done."""
        if method_name == "train" and tracked_actor in self._running:
            began = time.thread_time()
            wait, report = next(self._running[tracked_actor], (0.0, {RESULT_DUPLICATE: True, DONE: True}))
            self.own_s += time.thread_time() - began
            self._order += 1
            due = self._last[tracked_actor] = self._last[tracked_actor] + wait
            heapq.heappush(self._due, (due, self._order, tracked_actor, report, on_result))

    def next(self, timeout: float) -> bool:
        """One event, if one is due within `timeout` seconds."""
        if self._ending:
            actor = self._ending.popleft()
            self._forget(actor)
            if actor._on_stop:
                actor._on_stop(actor)
            return True
        if self._starting:
            actor, reports = self._starting.popleft()
            self._running[actor], self._last[actor] = reports, time.monotonic()
            self._live_actors_to_ray_actors_resources[actor] = (None, None)
            if actor._on_start:
                actor._on_start(actor)
            return True
        until = self._due[0][0] - time.monotonic() if self._due else timeout
        if until > 0:
            time.sleep(min(until, timeout))
            return False
        _, _, actor, report, on_result = heapq.heappop(self._due)
        if actor in self._running:
            on_result(actor, report)
        return True

    def remove_actor(self, tracked_actor: TrackedActor, kill: bool = False, stop_future: Any = None) -> bool:
        """End an actor; whether it had been started."""
        started = tracked_actor in self._running
        self._starting = deque(entry for entry in self._starting if entry[0] != tracked_actor)
        if started:
            self._running.pop(tracked_actor)
            self._ending.append(tracked_actor)
        return started

    def _forget(self, actor: TrackedActor) -> None:
        self._live_actors_to_ray_actors_resources.pop(actor, None)
        self._last.pop(actor, None)

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None:
        """A report that is still due is not given any more: `next` looks whether its actor runs."""

    def is_actor_started(self, tracked_actor: TrackedActor) -> bool:
        """Whether an actor has been started and not yet ended."""
        return tracked_actor in self._live_actors_to_ray_actors_resources

    def is_actor_failed(self, tracked_actor: TrackedActor) -> bool:
        """None of these fails."""
        return False

    def get_live_actors_resources(self) -> dict[str, float]:
        """They hold nothing."""
        return {}

    def cleanup(self) -> None:
        """Drop everything."""
        self._starting.clear()
        self._running.clear()
        self._due.clear()

    @property
    def num_live_actors(self) -> int:
        """Actors that have been started."""
        return len(self._live_actors_to_ray_actors_resources)

    @property
    def num_pending_actors(self) -> int:
        """Actors that start with the next events."""
        return len(self._starting)

    @property
    def num_total_actors(self) -> int:
        """All of them."""
        return self.num_live_actors + self.num_pending_actors

    @property
    def num_actor_tasks(self) -> int:
        """Reports that are awaited."""
        return len(self._due)
