"""The helper ends with the trial that it watches over, on real Ray."""

import os
import signal
import time
from collections.abc import Iterator
from platform.cluster import placement_group_cleaner
from platform.cluster.local_ray import start_ray
from platform.cluster.placement_group_cleaner import PlacementGroupCleaner, is_dead
from platform.cluster.ray_environment import worker_environment
from platform.cluster.trial_trainer import StartCleaner
from types import SimpleNamespace

import pytest
import ray
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table
from ray.util.state import list_actors
from ray.util.state.exception import RayStateApiException


def test_the_helper_asks_its_own_ray_where_a_second_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ray's own search for an address: without one it finds both and raises, and the helper's thread is dead."""
    from ray._private import services
    from ray.dashboard import utils

    asked: list[str | None] = []
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: {"10.0.0.1:1", "10.0.0.1:2"})
    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda address, temp_dir=None: address)
    find = services.canonicalize_bootstrap_address_or_die
    monkeypatch.setattr(utils, "ray_address_to_api_server_url", lambda address: asked.append(find(address)))
    with pytest.raises(ConnectionError, match="multiple active Ray instances"):
        utils.get_address_for_submission_client(None)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:2"))
    PlacementGroupCleaner(controller_actor_id="a", check_interval_s=1e6, get_actor_timeout_s=1.0, stop_timeout=2.0)
    utils.get_address_for_submission_client(None)
    assert asked == ["10.0.0.1:2"]


@pytest.mark.parametrize(
    ("state", "dead"), [(None, True), ("DEAD", True), ("ALIVE", False), ("PENDING_CREATION", False)]
)
def test_an_actor_is_dead_where_ray_says_so(monkeypatch: pytest.MonkeyPatch, state: str | None, dead: bool) -> None:
    found = None if state is None else SimpleNamespace(state=state)
    monkeypatch.setattr(placement_group_cleaner, "get_actor", lambda actor, timeout: found)
    assert is_dead("a", 1) is dead


def test_an_actor_whose_state_cannot_be_asked_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(actor: str, timeout: int) -> None:
        raise RayStateApiException("the dashboard is busy")

    monkeypatch.setattr(placement_group_cleaner, "get_actor", broken)
    assert not is_dead("a", 1)


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


def own_ray() -> str:
    """The address of the one that this process is in."""
    return str(ray.get_runtime_context().gcs_address)


def helpers(*states: str) -> int:
    """How many there are in these states, or have ever been."""
    rows = list_actors(own_ray(), filters=[("class_name", "=", "PlacementGroupCleaner")])
    return sum(not states or row["state"] in states for row in rows)


def until(count: int) -> int:
    """How many run, once as many as `count` do or a minute is over."""
    end = time.monotonic() + 60
    while helpers("ALIVE") != count and time.monotonic() < end:
        time.sleep(0.5)
    return helpers("ALIVE")


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "at its end"])
def test_the_helper_ends_with_its_controller(local_ray: None, killed: bool) -> None:
    controller = ray.remote(num_cpus=0)(Controller).remote()
    ray.get(controller.start.remote(StartCleaner()))
    group = ray.get(controller.give.remote())
    assert helpers("ALIVE") == 1
    if killed:
        ray.kill(controller)
    else:
        ray.get(controller.end.remote())
    assert until(0) == 0
    assert (placement_group_table(group)["state"] == "REMOVED") is killed


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("callback", "left"),
    [
        (StartCleaner, 0),
        (PlacementGroupCleanerCallback, 1),  # where it leaves 0, Ray has mended it: no placement_group_cleaner.py
    ],
    ids=["ours", "Ray's own"],
)
def test_one_whose_controller_dies_at_once(
    local_ray: None, callback: type[PlacementGroupCleanerCallback], left: int
) -> None:
    before = helpers()
    controller = ray.remote(num_cpus=0)(Controller).remote()
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(controller.die_soon.remote(callback()))
    time.sleep(8)
    assert helpers() == before + 1
    assert until(left) == left
