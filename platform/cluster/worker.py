"""One trial: a Tune function that lets Ray Train run `cpn.run` on the trial's workers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.config import Config, config_from, run_key, with_values
from cpn.core.checked import sealed_line, unsealed_line
from cpn.core.errors import InputError, WorkError
from cpn.data.packed_copy import data_folder
from cpn.data.voc import Pack, open_pack

from ..base import bucket_sync
from ..base.paths import Storage, storage
from .capacity import check_memory, usable
from .superpixel_tasks import make_for_trial
from .system_metrics import Minutes, SystemMetrics, gpu_reader

if TYPE_CHECKING:
    import torch

    from cpn.run import Objective


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of a sweep share; plain values only, it travels to other machines."""

    base: dict[str, Any]
    """The reference's configuration, nested."""
    data_root: str
    """The prepared data set."""
    storage: str
    """Where runs and the pretrained proxy are kept: a folder that every node sees, or a URL."""
    sweep: str
    """The sweep's name."""
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
    images: bool = False
    """Whether the CAM of a few images is drawn after each epoch."""
    contents: Mapping[str, str] = field(default_factory=dict)
    """Digests of the weights files and the user's own code, by name (own_code.py): workers have to find the same."""


def trial(config: dict[str, Any], setup: TrialSetup, report: Callable[[dict[str, Any]], None]) -> None:
    """Run one trial inside a Tune actor. `config` is what our Searcher suggested: uid and dotted values.

    `report` is Tune's own: it hears how far the superpixels are that are made first where they are missing. Then every
    epoch is reported with its own `epoch` (Tune's training_iteration starts again after a retry); the last report
    carries the metrics. A worker's exception reaches Tune as the trial's error.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from .trial_trainer import ReportDirectly, TrialTrainer

    method, store = method_of(config, setup), storage(setup.storage)
    if store.url is None:  # else every machine has a cache of its own, and makes them itself in cpn.run
        try:
            make_for_trial(method, open_pack(data_folder(setup.data_root)), store.cache, report)
        except (InputError, WorkError) as error:
            report({"epoch": 0, "failed": why_failed(error)})
            return
    needed: dict[str, float] = {"CPU": setup.cpus_per_worker}
    if setup.gpus_per_worker:
        needed["GPU"] = setup.gpus_per_worker
    workers = setup.workers if setup.min_workers is None else (setup.min_workers, setup.workers)
    trainer = TrialTrainer(
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
            storage_path=str(store.train(setup.sweep)),
            callbacks=[ReportDirectly(report)],  # type: ignore[list-item]  # the types know Train V1's class only
            failure_config=FailureConfig(max_failures=2),
        ),
    )
    trainer.fit()


def method_of(config: dict[str, Any], setup: TrialSetup) -> Config:
    """Lay a trial's values over the sweep's base; from here on nothing reads the values."""
    return with_values(config_from(setup.base, "the sweep's base"), config["values"], "the trial's values")


@dataclass(frozen=True)
class WorkerTrial:
    """One trial as one of its Ray Train workers sees it."""

    setup: TrialSetup
    method: Config
    pack: Pack
    key: str
    store: Storage
    reason: Path
    """Where the reason is left for which it failed on several workers."""
    rank: int
    world: int
    device: "torch.device"
    notes: list[str] = field(default_factory=list)
    """What this worker alone has to say; its next report takes it along."""

    def noted(self) -> dict[str, str]:
        """Return what has been noted since the last report, for the next."""
        lines = "; ".join(self.notes)
        self.notes.clear()
        return {"note": lines} if lines else {}


def train_on_worker(config: dict[str, Any]) -> None:
    """Run, on each Ray Train worker, `cpn.run`, resumed from its folder if it was started before.

    Train waits with every report for all workers, so none comes from one of them alone: what is gone on from, what is
    finished and why it failed before is what rank 0 sees (cpn/models/ranks.py), and what a worker alone has to say
    goes along with its next report as `note`. What would end the same way again (a loss that is
    not finite, out of memory) is a report with `failed`. With several workers one of them may fail while the others
    wait for it, and only an exception ends those: the reason is left in a file, and the next attempt reports it.
    """
    import torch
    from ray import train as ray_train

    one = open_trial(config)
    if (failed := failed_before(one)) is not None:
        ray_train.report({"epoch": 0, "failed": failed, "run_key": one.key})
        return
    minutes = Minutes(gpu_reader(one.device) if one.rank == 0 else None)
    try:
        final = train_and_score(prepare(one), minutes)
    except (InputError, WorkError, torch.OutOfMemoryError) as error:
        if one.world > 1:
            bucket_sync.put_shared(one.store, one.reason, sealed_line({"failed": why_failed(error)}))
            raise
        ray_train.report({"epoch": 0, "failed": why_failed(error), "run_key": one.key})
        return
    finally:
        minutes.stop()
    ray_train.report({"epoch": one.method.train.epochs, "run_key": one.key, **final, **minutes(), **one.noted()})


def open_trial(config: dict[str, Any]) -> WorkerTrial:
    """Read the trial's configuration and data, and which worker with which device this is."""
    import torch
    from ray.train import get_context
    from ray.train.torch import get_device

    setup: TrialSetup = config["setup"]
    method, store, device = method_of(config, setup), storage(setup.storage), get_device()
    pack = open_pack(data_folder(setup.data_root))
    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.set_device(device)  # NCCL sends from it
    key, reason = run_key(method, pack.fingerprint), store.train(setup.sweep) / f"{config['uid']}.failed.json"
    rank, world = get_context().get_world_rank(), get_context().get_world_size()
    return WorkerTrial(setup, method, pack, key, store, reason, rank, world, device)


def failed_before(one: WorkerTrial) -> Any:
    """Read on rank 0 why an earlier attempt failed; None where none did, or where the file is damaged."""
    from cpn.models.ranks import from_rank_0

    def reason() -> Any:
        return (unsealed_line(bucket_sync.get_shared(one.store, one.reason) or b"") or {}).get("failed")

    return from_rank_0(reason)


def prepare(one: WorkerTrial) -> WorkerTrial:
    """Check own code and memory and fetch the pretrained proxy; returns the trial with the device that it trains on."""
    import torch

    from ..config.own_code import check_contents

    device = usable(one.device)
    if device.type == "cpu":
        torch.set_num_threads(one.setup.threads)
    check_contents(one.method, one.setup.contents)
    check_memory(one.method, len(one.pack.classes) + 1, one.world, device, one.setup.gpus_per_worker or 1.0)
    bucket_sync.download_proxy(one.store, one.method)
    return replace(one, device=device)


def train_and_score(one: WorkerTrial, minutes: Minutes) -> dict[str, Any]:
    """Train, score and keep the run, and report every epoch, with what the card did by the minute.

    Returns the run's metrics, on other ranks than 0 nothing.
    """
    from ray import train as ray_train
    from ray.train.torch import prepare_model

    from cpn.run import run
    from cpn.training.saving import Saving

    from ..config.space.beta_range import narrowed

    busy = SystemMetrics()
    with bucket_sync.attempt(one.store, one.key, writes=one.rank == 0, say=one.notes.append) as attempt:

        def report(entry: Mapping[str, float]) -> None:
            attempt.saved()
            attempt.drawn(int(entry["epoch"]))
            ray_train.report({**entry, **busy(), **minutes(), **one.noted()})

        result = run(
            one.method,
            one.pack,
            attempt.folder,
            cache=one.store.cache,
            device=one.device,
            report=report,
            rank=one.rank,
            world=one.world,
            wrap=partial(prepare_model, move_to_device=one.device) if one.world > 1 else None,
            objective=one.setup.objective,
            say=one.notes.append,
            saving=Saving(
                one.method.train.checkpoint_minutes,
                # Ray says so when it is about to drain this machine. A Ray that the sweep started itself never does.
                announced=lambda: ray_train.get_preemption_info() is not None,
                saved=attempt.saved,
            ),
            draw_epochs=one.setup.images,
        )
        if result is None:
            return {}
        result = attempt.done(result)
        metrics = narrowed(result.metrics, attempt.folder, one.method.cam, one.setup.betas)
        return {**metrics, "seconds": result.seconds}


def why_failed(error: Exception) -> str:
    """Return the reason that is kept, in one line. Out of memory changes nothing behind the user's back: no smaller
    batch.
    """
    import torch

    message = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory, and nothing was made smaller; lower train.batch_size or data.crop ({message})"
    return message
