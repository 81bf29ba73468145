"""Superpixels for a trial, over real Ray tasks that leave its placement group; the driver hears how far they are."""

from pathlib import Path
from platform.cluster import superpixel_tasks as module
from platform.cluster.superpixel_tasks import make_for_trial
from typing import Any

import numpy as np
import pytest

from cpn.config import config_from
from cpn.config.data import ScenesConfig
from cpn.data.patches import superpixel_labels
from cpn.data.superpixels import SuperpixelMaps, count_at, levels_of, maps_folder
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

METHOD = {"preset": ["official", "scenes"], "data": {"train": "train"}, "patches": {"S_N": 12}}


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_trial_without_a_cpu_of_its_own_gets_its_maps(tmp_path: Path) -> None:
    """As Tune does it: the trial's actor sits in a placement group without CPUs, which its tasks would inherit."""
    from platform.cluster.ray_environment import worker_environment

    import ray
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    root = tmp_path / "scenes"
    write_scenes(root, ScenesConfig(train=9, val=2, seed=5))
    pack = prepare(root)
    config = config_from(METHOD, "test")

    class Trial:
        def make(self) -> list[dict[str, Any]]:
            heard: list[dict[str, Any]] = []
            module.REPORT_S = 0.0
            make_for_trial(config, pack, tmp_path, heard.append)
            return heard

    environment = {"env_vars": worker_environment()}
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:
        group = placement_group([{"memory": 1}])
        inside = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
        actor = ray.remote(num_cpus=0, scheduling_strategy=inside)(Trial).remote()
        heard = ray.get(actor.make.remote(), timeout=200)
    finally:
        ray.shutdown()
    levels, split = levels_of(config.patches, config.data), pack.split("train")
    assert heard[-1] == {"epoch": 0, "superpixels": [9 * len(levels), 9 * len(levels)]}
    maps = SuperpixelMaps(maps_folder(tmp_path, split))
    for level in levels:
        assert np.array_equal(maps.labels(level, 3), superpixel_labels(split.image(3), count_at(level, 64, 64)))
