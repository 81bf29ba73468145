"""Two Ray Train workers take the steps of one: the same batches, shared, give the same network."""

from pathlib import Path
from platform.worker import TrialSetup, train_on_worker, why_failed

import pytest
import torch
from safetensors.torch import load_file

from cpn.config import config_from, run_key
from cpn.prepare import prepare
from cpn.run import MODEL, finished_run, run
from cpn.synthetic import write_scenes
from cpn.voc import ScenesConfig

METHOD = {
    "preset": ["official", "scenes"],
    "network": {"weights": None, "dropout": 0.0},
    # SGD: AdamW would turn the last bit of a small gradient into a whole step.
    "train": {"epochs": 2, "batch_size": 4, "optimizer": "sgd", "lr": 0.01, "head_lr_factor": 1.0},
    "cam": {"scales": [1.0], "flip": False},
}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # its own settings
def test_two_workers_give_the_network_of_one(tmp_path: Path) -> None:
    from platform.driver import worker_environment

    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    root = tmp_path / "scenes"
    write_scenes(root, ScenesConfig(train=12, val=4, seed=5))
    pack = prepare(root)
    config = config_from(METHOD, "test")
    alone = run(config, pack, tmp_path / "alone", cache=tmp_path, device=torch.device("cpu"), report=lambda entry: None)
    setup = TrialSetup(
        base=config.model_dump(mode="json"), data_root=str(root), runs=str(tmp_path / "runs"), cache=str(tmp_path),
        tune=str(tmp_path / "tune"), workers=2, gpus_per_worker=0.0, cpus_per_worker=1.0, threads=1,
    )  # fmt: skip
    environment = {"env_vars": worker_environment()}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:
        TorchTrainer(
            train_on_worker,
            train_loop_config={"values": {}, "setup": setup},
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(name="two", storage_path=setup.tune),
        ).fit()
    finally:
        ray.shutdown()
    folder = tmp_path / "runs" / run_key(config, pack.fingerprint)
    together = finished_run(folder)
    assert together is not None
    assert [entry["epoch"] for entry in together["history"]] == [1, 2]
    assert together["metrics"]["miou"] == pytest.approx(alone["metrics"]["miou"], abs=0.5)
    mine, theirs = load_file(tmp_path / "alone" / MODEL), load_file(folder / MODEL)
    torch.manual_seed(config.train.seed)
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_out_of_memory_is_said_in_one_line_with_its_cure() -> None:
    said = why_failed(torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"))
    assert said.startswith("out of memory, and nothing was made smaller; lower train.batch_size")
    assert said.endswith("(CUDA out of memory. Tried to allocate 2 GiB)") and "\n" not in said
    assert why_failed(RuntimeError("the loss is nan\n at step 3")) == "the loss is nan at step 3"
