"""Actors of which nothing runs answer Tune as real ones do."""

from benchmarks.sweeps.fake_actors import FakeActors, fake_actors


def test_reports_come_in_the_order_they_are_due() -> None:
    events: list[object] = []
    actors = FakeActors(lambda config: iter([(config["wait"], {"of": config["of"]})]))

    def begun(actor: object) -> None:
        actors.schedule_actor_task(actor, "train", (), {}, on_result=lambda a, r: events.append(r))  # type: ignore

    made = [
        actors.add_actor(None, {"config": {"of": name, "wait": wait}}, None, on_start=begun, on_stop=events.append,
                         on_error=None)
        for name, wait in (("late", 0.02), ("soon", 0.0))
    ]  # fmt: skip
    assert actors.num_pending_actors == 2 and not actors.is_actor_started(made[0])
    while len(events) < 2:
        actors.next(0.1)
    assert events == [{"of": "soon"}, {"of": "late"}]
    assert actors.num_live_actors == 2 and actors.own_s >= 0
    assert actors.remove_actor(made[0]) and actors.next(0.1)
    assert events[2:] == [made[0]] and actors.num_live_actors == 1
    assert not actors.remove_actor(made[0])


def test_a_trial_ends_after_its_last_report() -> None:
    last: list[object] = []
    actors = FakeActors(lambda config: iter([]))

    def begun(actor: object) -> None:
        actors.schedule_actor_task(actor, "train", on_result=lambda _, r: last.append(r))  # type: ignore[arg-type]

    actors.add_actor(None, {"config": {}}, None, on_start=begun, on_stop=None, on_error=None)
    assert actors.next(0.1) and actors.next(0.1)
    assert last == [{"__duplicate__": True, "done": True}]


def test_tune_has_the_place_that_is_taken() -> None:
    from ray.tune.execution import tune_controller

    before = tune_controller.RayActorManager
    with fake_actors(lambda config: iter([])) as actors:
        assert tune_controller.RayActorManager(None) is actors
    assert tune_controller.RayActorManager is before
