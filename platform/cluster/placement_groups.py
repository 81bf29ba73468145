"""Frees placement groups that a Ray cluster keeps of sweeps whose driver has ended.

Ray frees a placement group with the job that made it. One of 50 faults (docs/development/chaos.md) left one behind all
the same, and with it the CPUs that it holds for as long as the cluster runs (Ray 2.60). Ray has no public way to remove
a group by its id (Ray issue 22774), nor to list jobs without its dashboard.
"""

import threading
from contextlib import suppress

WAIT_S = 10.0
"""Seconds to wait for the cluster at the end of a driver: where its head is gone, Ray waits for that for ever."""

OURS = "-m platform."
"""What a job's command has if it is one of this product's."""


def free_placement_groups() -> list[str]:
    """Remove what ended jobs of ours and this driver's own hold; returns the groups' ids. To be called while this
    driver runs nothing, connected to a cluster.
    """
    import ray
    from ray._private.state import jobs
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

    ended = {job["JobID"] for job in jobs() if job["IsDead"] and OURS in job["Entrypoint"]}
    ended.add(ray.get_runtime_context().get_job_id())
    existing = [name for name, row in placement_group_table().items() if row["state"] != "REMOVED"]
    freed = [name for name in existing if name.endswith(tuple(ended))]  # an id ends with that of the job
    for name in freed:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
    return freed


def free_at_the_end() -> None:
    """Free the placement groups for at most WAIT_S, and where the cluster is gone by then there is nothing to free."""
    from ray.exceptions import RayError

    def free() -> None:
        with suppress(RayError):
            free_placement_groups()

    thread = threading.Thread(target=free, name="free_placement_groups", daemon=True)
    thread.start()
    thread.join(WAIT_S)
