"""No internal of Ray without a reason and an end: where they are used, Ray's issue, and what says they may go."""

import ast
import inspect
import re
from pathlib import Path
from typing import get_type_hints

import pytest
import ray
from ray._private import services
from ray.util.placement_group import PlacementGroup, remove_placement_group

from tests.conftest import CHECKOUT

INTERNALS: dict[str, tuple[set[str], str]] = {
    # file in platform/: what it uses; a test that is red when Ray no longer needs it
    "cluster/local_ray.py": (
        {"ray._private.ray_constants", "ray._private.services", "_temp_dir"},
        "test_ray_internals.py::test_ray_still_takes_another_address_than_loopback",
    ),
    "cluster/placement_groups.py": (
        {"ray._private.state.jobs", "ray._raylet.PlacementGroupID"},
        "test_ray_internals.py::test_ray_still_removes_no_placement_group_by_its_id",
    ),
    "cluster/trial_trainer.py": (
        {
            "ray.train.v2._internal.callbacks.placement_group_callback",
            "ray.train.v2._internal.callbacks.datasets.DatasetsCallback",
            "ray.train.v2._internal.callbacks.placement_group_callback.PlacementGroupCleanerCallback",
            "ray.train.v2._internal.execution.controller.controller.TrainController",
            "ray.train.v2._internal.execution.context.TrainRunContext",
        },
        "test_ray_internals.py::test_ray_still_starts_processes_around_a_trial",
    ),
}


def internals(source: str) -> set[str]:
    """What a file imports of Ray's private modules, and the private arguments that it gives to `ray.init`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names if node.module.split(".")[0] == "ray"}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.split(".")[0] == "ray"}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "ray.init":
            found |= {word.arg for word in node.keywords if word.arg and word.arg.startswith("_")}
    return {name for name in found if re.search(r"(^|\.)_", name)}


def test_every_internal_stands_in_the_table() -> None:
    files = {path: internals(path.read_text(encoding="utf-8")) for path in (CHECKOUT / "platform").rglob("*.py")}
    found = {str(path.relative_to(CHECKOUT / "platform")): names for path, names in files.items() if names}
    assert found == {file: names for file, (names, _) in INTERNALS.items()}
    assert internals("import ray._private.x\nfrom ray.train import y\nray.init(_a=1, b=2)") == {"ray._private.x", "_a"}


@pytest.mark.parametrize("file", INTERNALS)
def test_every_internal_has_its_issue_and_its_end(file: str) -> None:
    assert re.search(r"Ray issue[s]? \d{4,}", (CHECKOUT / "platform" / file).read_text(encoding="utf-8"))
    test_file, _, name = INTERNALS[file][1].partition("::")
    assert f"def {name}(" in Path(__file__).with_name(test_file).read_text(encoding="utf-8")


def test_ray_still_takes_another_address_than_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red: Ray leaves 127.0.0.1 as it is. Then `_node_ip_address` does what `local_ray.loopback` is for."""
    monkeypatch.setattr(services, "get_node_ip_address", lambda *_: "10.0.0.1")
    assert services.resolve_ip_for_localhost("127.0.0.1") == "10.0.0.1"


def test_ray_still_starts_its_processes_in_the_drivers_group() -> None:
    """Red: Ray starts them in a group or session of their own, or asks. Then `local_ray.own_groups` can go."""
    source = inspect.getsource(services.start_ray_process)
    assert "ConsolePopen(" in source and not re.search(r"process_group|start_new_session|setsid|setpgrp", source)


def test_ray_still_has_no_public_temporary_folder() -> None:
    assert "temp_dir" not in inspect.signature(ray.init).parameters


def test_ray_still_removes_no_placement_group_by_its_id() -> None:
    """Red: it takes an id, or the jobs are public. Then `placement_groups` needs no internal."""
    assert get_type_hints(remove_placement_group)["placement_group"] is PlacementGroup
    assert not hasattr(ray, "jobs")


def test_ray_still_starts_processes_around_a_trial() -> None:
    """Red: no controller, helper or data manager of each trial's own any more. Then that part of `trial_trainer` goes.

    That Ray's own helper still stays where its controller dies at once says test_placement_group_cleaner.py.
    """
    from ray.train.v2._internal.callbacks import datasets, placement_group_callback
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    controller = inspect.getsource(DataParallelTrainer._initialize_and_run_controller)
    assert re.search(r"ray\.remote\(|\.remote\(", controller), "the controller is an actor"
    helper = inspect.getsource(placement_group_callback.PlacementGroupCleanerCallback)
    assert "PlacementGroupCleaner" in helper and "get_if_exists=False" in helper, "one for each trial"
    assert ".remote(" in inspect.getsource(datasets), "a manager of data sets"
