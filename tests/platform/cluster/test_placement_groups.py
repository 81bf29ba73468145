"""What a cluster keeps of our ended drivers is freed, what others have is not: on a real Ray cluster."""

import os
import subprocess
import sys
from platform.cluster.ray_environment import worker_environment

import pytest

from benchmarks.services.ray_nodes import ray_nodes

LEAVE = """
import ray
from ray.util.placement_group import placement_group
ray.init(log_to_driver=False, logging_level="ERROR")
group = placement_group([{"CPU": 0.1}], lifetime="detached")
ray.get(group.ready())
print(group.id.hex())
"""
"""A driver that ends and leaves a placement group, as Ray does now and then by itself."""

FREE = """
import ray
from platform.cluster.placement_groups import free_at_the_end, free_placement_groups
from ray.util.placement_group import placement_group
ray.init(log_to_driver=False, logging_level="ERROR")
print(*free_placement_groups())
own = placement_group([{"CPU": 0.1}])
ray.get(own.ready())
free_at_the_end()
print(own.id.hex(), *free_placement_groups())
"""


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_only_groups_of_ended_drivers_and_this_one_are_freed() -> None:
    with ray_nodes(1, cpus_each=1) as cluster:
        environment = {**os.environ, **cluster.environment, "PYTHONPATH": worker_environment()["PYTHONPATH"]}

        def driver(code: str, *words: str) -> list[str]:
            command = [sys.executable, "-c", code, *words]
            return subprocess.check_output(command, env=environment, text=True, timeout=120).splitlines()

        (ours,), (others,) = driver(LEAVE, "-m platform.sweep"), driver(LEAVE, "train.py")
        freed, own = driver(FREE)
        assert freed == ours and len(own.split()) == 1
        states = {row["placement_group_id"]: row["state"] for row in cluster.state("placement_groups")}
        assert states == {ours: "REMOVED", others: "CREATED", own: "REMOVED"}
