"""What a stage's task asks Ray for."""

from platform.config.sections import Resources
from platform.run.stage_plan import needs

import pytest

ON_CPU = {"num_cpus": 1, "num_gpus": 0}


@pytest.mark.parametrize("stage", ["cam", "affinity", "random_walk", "deeplab"])
def test_networks_take_a_gpu_where_trials_do(stage: str) -> None:
    wanted = needs(stage, Resources(gpus_per_worker=0.5, accelerator="A100"))
    assert wanted == {"num_cpus": 1, "num_gpus": 0.5, "accelerator_type": "A100"}
    assert needs(stage, Resources(gpus_per_worker=0)) == ON_CPU


def test_the_crf_takes_none() -> None:
    assert needs("crf", Resources(gpus_per_worker=1)) == ON_CPU == needs("instance_masks", Resources(gpus_per_worker=1))
