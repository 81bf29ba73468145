"""Ray Train's helper ends with the controller that it watches over, on real Ray."""

import os
import signal
import time
from collections.abc import Iterator
from platform.cleaner import StartWatchfulCleaner, Trainer
from platform.driver import start_ray, worker_environment
from types import SimpleNamespace

import pytest
import ray
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table
from ray.util.state import list_actors


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # its own settings
def test_a_trainer_starts_our_helper_and_no_other() -> None:
    callbacks = Trainer(print)._create_default_callbacks()
    helpers = [type(callback) for callback in callbacks if isinstance(callback, PlacementGroupCleanerCallback)]
    assert helpers == [StartWatchfulCleaner]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in worker_environment().items():
            patch.setenv(name, value)
        start_ray()
        try:
            yield
        finally:
            ray.shutdown()


class Controller:
    """As much of Ray Train's as the helper sees."""

    def __init__(self) -> None:
        self.group = placement_group([{"CPU": 0.01}])
        ray.get(self.group.ready())

    def start(self, callback: PlacementGroupCleanerCallback) -> None:
        """Start the helper."""
        self.callback = callback
        callback.after_controller_start(SimpleNamespace(run_id="a run"))

    def give(self) -> PlacementGroup:
        """Give it the placement group."""
        state = SimpleNamespace(placement_group_handle=SimpleNamespace(placement_group=self.group))
        self.callback.after_worker_group_start(SimpleNamespace(get_worker_group_state=lambda: state))
        return self.group

    def end(self) -> None:
        """As the controller does at the end of a trial."""
        self.callback.before_controller_abort()

    def die_soon(self, callback: PlacementGroupCleanerCallback) -> None:
        """Die while the helper's process starts: Ray has been asked for it, and it has not begun."""
        self.start(callback)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)


def helpers(name: str) -> int:
    """How many run."""
    return len(list_actors(filters=[("class_name", "=", name), ("state", "=", "ALIVE")]))


def started(name: str) -> int:
    """How many there have been."""
    return len(list_actors(filters=[("class_name", "=", name)]))


def until(name: str, count: int) -> int:
    """How many run, once as many as `count` do or a minute is over."""
    end = time.monotonic() + 60
    while helpers(name) != count and time.monotonic() < end:
        time.sleep(0.5)
    return helpers(name)


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "at its end"])
def test_the_helper_ends_with_its_controller(local_ray: None, killed: bool) -> None:
    controller = ray.remote(num_cpus=0)(Controller).remote()
    ray.get(controller.start.remote(StartWatchfulCleaner()))
    group = ray.get(controller.give.remote())
    assert helpers("WatchfulCleaner") == 1
    if killed:
        ray.kill(controller)
    else:
        ray.get(controller.end.remote())
    assert until("WatchfulCleaner", 0) == 0
    assert (placement_group_table(group)["state"] == "REMOVED") is killed


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("callback", "name", "left"),
    [
        (StartWatchfulCleaner, "WatchfulCleaner", 0),
        (
            PlacementGroupCleanerCallback,
            "PlacementGroupCleaner",
            1,
        ),  # where it leaves 0, Ray has mended it: no cleaner.py
    ],
    ids=["ours", "Ray's own"],
)
def test_one_whose_controller_dies_at_once(
    local_ray: None, callback: type[PlacementGroupCleanerCallback], name: str, left: int
) -> None:
    before = started(name)
    controller = ray.remote(num_cpus=0)(Controller).remote()
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(controller.die_soon.remote(callback()))
    time.sleep(8)
    assert started(name) == before + 1
    assert until(name, left) == left
