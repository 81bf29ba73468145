"""Two Ray Train workers take the steps of one: the same batches, shared, give the same network."""

import re
from pathlib import Path
from platform.cluster.worker import TrialSetup, train_on_worker, trial, why_failed
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cpn.config import config_from, run_key
from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError, WorkError
from cpn.core.run_files import MODEL
from cpn.run import run
from cpn.scoring.finished_run import finished_run
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

METHOD = {
    "preset": ["official", "scenes"],
    "network": {"weights": None, "dropout": 0.0},
    # SGD: AdamW would turn the last bit of a small gradient into a whole step.
    "train": {"epochs": 2, "batch_size": 4, "optimizer": "sgd", "lr": 0.01, "head_lr_factor": 1.0},
    "cam": {"scales": [1.0], "flip": False},
}


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # its own settings
def test_two_workers_give_the_network_of_one(tmp_path: Path) -> None:
    from platform.cluster.ray_environment import worker_environment

    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    root = tmp_path / "scenes"
    write_scenes(root, ScenesConfig(train=12, val=4, seed=5))
    pack = prepare(root)
    config = config_from(METHOD, "test")
    alone = run(config, pack, tmp_path / "alone", cache=tmp_path, device=torch.device("cpu"), report=lambda entry: None)
    setup = TrialSetup(
        base=config.model_dump(mode="json"), data_root=str(root), storage=str(tmp_path), sweep="two",
        workers=2, gpus_per_worker=0.0, cpus_per_worker=1.0, threads=1,
    )  # fmt: skip
    environment = {"env_vars": worker_environment()}
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:
        TorchTrainer(
            train_on_worker,
            train_loop_config={"uid": "two-0000", "values": {}, "setup": setup},
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(name="two", storage_path=str(tmp_path / "tune")),
        ).fit()
    finally:
        ray.shutdown()
    folder = tmp_path / "runs" / run_key(config, pack.fingerprint)
    together = finished_run(folder)
    assert together is not None
    assert [entry["epoch"] for entry in together.history] == [1, 2]
    assert together.metrics["miou"] == pytest.approx(alone.metrics["miou"], abs=0.5)
    mine, theirs = load_file(tmp_path / "alone" / MODEL), load_file(folder / MODEL)
    torch.manual_seed(config.train.seed)
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


class Workers:
    """Ray Train's part for one worker of `world`, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, world: int, error: Exception) -> None:
        import ray.train
        import ray.train.torch

        import cpn.run

        self.attempts, self.reports, self._error = 0, [], error
        context = SimpleNamespace(get_world_size=lambda: world, get_world_rank=lambda: 0)
        monkeypatch.setattr(ray.train, "get_context", lambda: context)
        monkeypatch.setattr(ray.train, "report", self.reports.append)
        monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
        monkeypatch.setattr(cpn.run, "run", self._fails)
        pack = SimpleNamespace(fingerprint="f00d", classes=["a"])
        monkeypatch.setattr("platform.cluster.worker.open_pack", lambda root: pack)

    def _fails(self, *args: Any, **options: Any) -> None:
        self.attempts += 1
        raise self._error


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory, and nothing was made smaller; .*CUDA out of"),
        (WorkError("the loss is nan at epoch 1"), "the loss is nan at epoch 1"),
    ],
)
def test_what_would_end_the_same_way_again_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int, error: Exception, said: str
) -> None:
    """One worker reports it; of several one raises, so that nobody waits for it, and their next attempt reports it."""
    workers = Workers(monkeypatch, world, error)
    setup = TrialSetup(
        base=config_from(METHOD, "test").model_dump(mode="json"), data_root="", storage=str(tmp_path), sweep="s",
        workers=world, gpus_per_worker=0.0, cpus_per_worker=1.0, threads=1,
    )  # fmt: skip
    given = {"uid": "s-0003", "values": {}, "setup": setup}
    if world > 1:
        with pytest.raises(type(error)):
            train_on_worker(given)
        assert workers.reports == []
    train_on_worker(given)
    assert workers.attempts == 1
    (report,) = workers.reports
    assert re.match(said, report["failed"]) and report["epoch"] == 0
    if world > 1:
        with pytest.raises(type(error)):
            train_on_worker({**given, "uid": "s-0004"})  # another trial's failure is its own
        assert workers.attempts == 2


def test_a_worker_with_other_weights_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, path = Workers(monkeypatch, 1, WorkError("it trained")), tmp_path / "w.safetensors"
    path.write_bytes(b"another")
    base = config_from({**METHOD, "network": {"weights": str(path)}}, "test").model_dump(mode="json")
    setup = TrialSetup(
        base=base, data_root="", storage=str(tmp_path), sweep="s", workers=1, gpus_per_worker=0.0, cpus_per_worker=1.0,
        threads=1, contents={str(path): "sha256:0123456789abcdef"},
    )  # fmt: skip
    train_on_worker({"uid": "s-0003", "values": {}, "setup": setup})
    (report,) = workers.reports
    assert report["failed"].startswith(f"network.weights: {path} is another one on this machine")
    assert workers.attempts == 0


def test_out_of_memory_is_said_in_one_line_with_its_cure() -> None:
    said = why_failed(torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"))
    assert said.startswith("out of memory, and nothing was made smaller; lower train.batch_size")
    assert said.endswith("(CUDA out of memory. Tried to allocate 2 GiB)") and "\n" not in said
    assert why_failed(RuntimeError("the loss is nan\n at step 3")) == "the loss is nan at step 3"


@pytest.mark.parametrize("error", [None, InputError("the disk is full"), WorkError("no picture")])
def test_superpixels_come_first_and_fail_their_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """What a Tune actor does, with Ray Train's part and the making taken out."""

    done: list[str] = []

    def make(config: Any, pack: Any, cache: Path, report: Any) -> None:
        assert config.patches.S_N == 77 and cache == tmp_path / "cache"
        report({"epoch": 0, "superpixels": [1, 2]})
        done.append("maps")
        if error is not None:
            raise error

    class Trainer:
        def __init__(self, function: Any, **options: Any) -> None:
            assert function is train_on_worker and options["train_loop_config"]["uid"] == "s-0003"

        def fit(self) -> None:
            done.append("fit")

    monkeypatch.setattr("platform.cluster.worker.open_pack", lambda root: SimpleNamespace(fingerprint="f00d"))
    monkeypatch.setattr("platform.cluster.worker.make_for_trial", make)
    monkeypatch.setattr("platform.cluster.trial_trainer.TrialTrainer", Trainer)
    setup = TrialSetup(
        base=config_from(METHOD, "test").model_dump(mode="json"), data_root="", storage=str(tmp_path), sweep="s",
        workers=1, gpus_per_worker=0.0, cpus_per_worker=1.0, threads=1,
    )  # fmt: skip
    heard: list[dict[str, Any]] = []
    trial({"uid": "s-0003", "values": {"patches.S_N": 77}}, setup, heard.append)
    failed = [{"epoch": 0, "failed": str(error)}] if error else []
    assert heard == [{"epoch": 0, "superpixels": [1, 2]}, *failed]
    assert done == (["maps"] if error else ["maps", "fit"])
