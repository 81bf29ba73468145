"""One trial: a Tune function that lets Ray Train run `cpn.run` on the trial's workers. The only file on ray.train."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.errors import InputError, WorkError

if TYPE_CHECKING:
    from cpn.run import Objective


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of a sweep share; plain values only, it travels to other machines."""

    base: dict[str, Any]
    """The reference's configuration, nested."""
    data_root: str
    """The prepared data set."""
    runs: str
    """Folder of the runs, one sub-folder per run key."""
    cache: str
    """Folder with the stand-in's weights."""
    tune: str
    """Folder for Ray Train's own files."""
    workers: int
    gpus_per_worker: float
    cpus_per_worker: float
    threads: int
    """Torch threads of a worker that trains on the CPU."""
    objective: "Objective | None" = None
    """What every epoch reports: miou_epoch or mask_free_epoch; None: miou where there are masks."""
    min_workers: int | None = None
    """Workers that are enough; None: all."""
    accelerator: str | None = None
    """Ray's name of the cards to train on; None: any."""
    betas: tuple[float, float] | None = None
    """The part of the curve that beta is taken from; None: all of it."""


def trial(config: dict[str, Any], setup: TrialSetup) -> None:
    """Run one trial inside a Tune actor. `config` is what our Searcher suggested: uid and dotted values.

    Every epoch is reported with its own `epoch` (Tune's training_iteration starts again after a retry); the last
    report carries the metrics. A worker's exception reaches Tune as the trial's error.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    needed: dict[str, float] = {"CPU": setup.cpus_per_worker}
    if setup.gpus_per_worker:
        needed["GPU"] = setup.gpus_per_worker
    workers = setup.workers if setup.min_workers is None else (setup.min_workers, setup.workers)
    trainer = TorchTrainer(
        train_on_worker,
        train_loop_config={"uid": config["uid"], "values": config["values"], "setup": setup},
        scaling_config=ScalingConfig(
            num_workers=workers,  # type: ignore[arg-type]  # the types know Train V1's class only
            use_gpu=setup.gpus_per_worker > 0,
            resources_per_worker=needed,
            accelerator_type=setup.accelerator,
        ),
        # NCCL wants a card for each worker.
        torch_config=TorchConfig(backend="gloo") if setup.gpus_per_worker < 1 else None,
        run_config=RunConfig(
            name=config["uid"],
            storage_path=setup.tune,
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]  # the types know Train V1's class only
            failure_config=FailureConfig(max_failures=2),
        ),
    )
    trainer.fit()


def train_on_worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker does: the run of `cpn.run`, resumed from its folder if it was started before.

    A report with `warning` is a line for the driver, and no epoch's. What would end the same way again (a loss that is
    not finite, out of memory) is a report with `failed`. With several workers one of them may fail while the others
    wait for it, and only an exception ends those: the reason is left in a file, and the next attempt reports it.
    """
    import torch
    from ray import train as ray_train
    from ray.train.torch import get_device, prepare_model

    from cpn.config import config_from, run_key, with_values
    from cpn.files import read_json, write_json
    from cpn.run import run
    from cpn.voc import open_pack

    from .capacity import check_memory
    from .curve import narrowed
    from .system_metrics import SystemMetrics

    setup: TrialSetup = config["setup"]
    context = ray_train.get_context()
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(setup.threads)
    method = with_values(config_from(setup.base, "the sweep's base"), config["values"], "the trial's values")
    pack = open_pack(setup.data_root)
    key = run_key(method, pack.fingerprint)
    world = context.get_world_size()
    busy = SystemMetrics()
    reason = Path(setup.tune) / f"{config['uid']}.failed.json"
    if reason.exists():
        ray_train.report({"epoch": 0, "failed": read_json(reason), "run_key": key})
        return
    try:
        check_memory(method, len(pack.classes) + 1, world, device, setup.gpus_per_worker or 1.0)
        result = run(
            method,
            pack,
            Path(setup.runs) / key,
            cache=Path(setup.cache),
            device=device,
            report=lambda entry: ray_train.report({**entry, **busy()}),
            rank=context.get_world_rank(),
            world=world,
            wrap=prepare_model if world > 1 else None,
            objective=setup.objective,
            # What a worker prints stays on its machine; every rank reports, for Train waits for all of them.
            say=lambda line: ray_train.report({"epoch": 0, "warning": line}),
        )
    except (InputError, WorkError, torch.OutOfMemoryError) as error:
        if world > 1:
            write_json(reason, why_failed(error))
            raise
        ray_train.report({"epoch": 0, "failed": why_failed(error), "run_key": key})
        return
    final: dict[str, Any] = {}
    if result:
        metrics = narrowed(result["metrics"], Path(setup.runs) / key, method.cam, setup.betas)
        final = {**metrics, "seconds": result["seconds"]}
    ray_train.report({"epoch": method.train.epochs, "run_key": key, **final})


def why_failed(error: Exception) -> str:
    """The reason that is kept, in one line. Out of memory changes nothing behind the user's back: no smaller batch."""
    import torch

    said = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory, and nothing was made smaller; lower train.batch_size or data.crop ({said})"
    return said
