"""Workers whose machines see other files: two real processes over gloo, with Ray Train's part taken out."""

import shutil
from pathlib import Path
from platform.base.paths import storage
from platform.cluster.worker import TrialSetup, train_on_worker
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed

from cpn.config import config_from, run_key
from cpn.config.data import ScenesConfig
from cpn.core.checked import sealed_line
from cpn.data.voc import open_pack
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from tests.gloo import in_group

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
METHOD: dict[str, Any] = {
    "preset": ["official", "scenes"],
    "network": {"weights": None},
    "train": {"epochs": 2, "batch_size": 4},
    "cam": {"scales": [1.0], "flip": False},
}


def work(rank: int, world: int, place: str) -> dict[str, list[dict[str, Any]]]:
    """The reports of this worker in every case; each has a storage of its own, as a torn or late network disk is."""
    import ray.train
    import ray.train.torch

    config = config_from(METHOD, "test")
    data = Path(place, "scenes")
    reports: list[dict[str, Any]] = []
    context = SimpleNamespace(get_world_size=lambda: world, get_world_rank=lambda: rank)
    ray.train.get_context = lambda: context
    ray.train.report = reports.append
    ray.train.get_preemption_info = lambda: None
    ray.train.torch.get_device = lambda: torch.device("cpu")
    ray.train.torch.prepare_model = lambda module, **_: torch.nn.parallel.DistributedDataParallel(module)
    run = Path("runs") / run_key(config, open_pack(data).fingerprint)
    found = {}

    def go(name: str) -> None:
        setup = TrialSetup(
            base=config.model_dump(mode="json"), data_root=str(data), storage=str(Path(place, name, str(rank))),
            sweep="s", workers=world, gpus_per_worker=0.0, cpus_per_worker=1.0, threads=1,
        )  # fmt: skip
        reports.clear()
        train_on_worker({"uid": "s-0000", "values": {}, "setup": setup})
        found[name] = list(reports)
        distributed.barrier()

    def mine(name: str) -> Path:
        return Path(place, name, str(rank))

    def failed_before(name: str, at: int) -> None:
        if rank == at:
            reason = storage(str(mine(name))).train("s") / "s-0000.failed.json"
            reason.parent.mkdir(parents=True)
            reason.write_bytes(sealed_line({"failed": "out of memory"}))

    failed_before("failed before, seen by rank 0", 0)
    failed_before("failed before, seen by rank 1", 1)
    go("failed before, seen by rank 0")
    go("failed before, seen by rank 1")  # trains, and leaves its run with rank 0
    trained = Path(place, "failed before, seen by rank 1", "0")
    for name, at in (("finished, seen by rank 0", 0), ("finished, seen by rank 1", 1)):
        if rank == at:
            shutil.copytree(trained / run, mine(name) / run)
        distributed.barrier()
        go(name)
    return found


def test_no_report_comes_from_one_worker_alone(tmp_path: Path) -> None:
    """Train waits with each report for all workers: one more on one of them is a trial that hangs."""
    write_scenes(tmp_path / "scenes", ScenesConfig(train=12, val=4, seed=5))
    prepare(tmp_path / "scenes")
    first, second = in_group(2, work, str(tmp_path))
    for name in first:
        assert [e["epoch"] for e in first[name]] == [e["epoch"] for e in second[name]], name
        assert not any("warning" in entry for entry in first[name])
    assert [e.get("failed") for e in first["failed before, seen by rank 0"]] == ["out of memory"]
    assert [e.get("failed") for e in second["failed before, seen by rank 0"]] == ["out of memory"]
    for name in ("failed before, seen by rank 1", "finished, seen by rank 0", "finished, seen by rank 1"):
        assert [e["epoch"] for e in first[name]] == [1, 2, 2] and "miou" in first[name][-1], name
        assert "miou" not in second[name][-1]
