"""One trial: a Tune function that lets Ray Train run `cpn.run` on the trial's workers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from cpn.config import config_from, run_key, with_values
from cpn.core.checked import sealed_line, unsealed_line
from cpn.core.errors import InputError, WorkError
from cpn.data.voc import open_pack

from ..base import bucket_sync
from ..base.paths import storage
from .capacity import check_memory, usable
from .superpixel_tasks import make_for_trial
from .system_metrics import SystemMetrics

if TYPE_CHECKING:
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

    method = with_values(config_from(setup.base, "the sweep's base"), config["values"], "the trial's values")
    store = storage(setup.storage)
    if store.url is None:  # else every machine has a cache of its own, and makes them itself in cpn.run
        try:
            make_for_trial(method, open_pack(bucket_sync.data_folder(setup.data_root)), store.cache, report)
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


def train_on_worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker does: the run of `cpn.run`, resumed from its folder if it was started before.

    Train waits with every report for all workers, so none comes from one of them alone: what is gone on from, what is
    finished and why it failed before is what rank 0 sees (cpn/models/ranks.py), and what a worker alone has to say
    goes along with its next report as `note`. What would end the same way again (a loss that is
    not finite, out of memory) is a report with `failed`. With several workers one of them may fail while the others
    wait for it, and only an exception ends those: the reason is left in a file, and the next attempt reports it.
    """
    import torch
    from ray import train as ray_train
    from ray.train.torch import get_device, prepare_model

    from cpn.models.ranks import from_rank_0
    from cpn.run import run
    from cpn.training.saving import Saving

    from ..config.own_code import check_contents
    from ..config.space.beta_range import narrowed

    setup: TrialSetup = config["setup"]
    context = ray_train.get_context()
    method = with_values(config_from(setup.base, "the sweep's base"), config["values"], "the trial's values")
    pack = open_pack(bucket_sync.data_folder(setup.data_root))
    key = run_key(method, pack.fingerprint)
    rank, world = context.get_world_rank(), context.get_world_size()
    busy = SystemMetrics()
    store = storage(setup.storage)
    reason = store.train(setup.sweep) / f"{config['uid']}.failed.json"
    given = get_device()
    if given.type == "cuda" and torch.cuda.is_available():
        torch.cuda.set_device(given)  # NCCL sends from it

    def failed_before() -> Any:
        known = unsealed_line(bucket_sync.get_shared(store, reason) or b"") or {}
        return known.get("failed")  # a damaged one says nothing: the run is tried again

    failed = from_rank_0(failed_before)
    if failed is not None:
        ray_train.report({"epoch": 0, "failed": failed, "run_key": key})
        return
    notes: list[str] = []

    def noted() -> dict[str, str]:
        # What this rank alone has to say goes along with what all report.
        lines = "; ".join(notes)
        notes.clear()
        return {"note": lines} if lines else {}

    try:
        device = usable(given)
        if device.type == "cpu":
            torch.set_num_threads(setup.threads)
        check_contents(method, setup.contents)
        check_memory(method, len(pack.classes) + 1, world, device, setup.gpus_per_worker or 1.0)
        bucket_sync.download_proxy(store, method)
        with bucket_sync.attempt(store, key, writes=rank == 0, say=notes.append) as attempt:

            def report(entry: Mapping[str, float]) -> None:
                attempt.saved()
                ray_train.report({**entry, **busy(), **noted()})

            result = run(
                method,
                pack,
                attempt.folder,
                cache=store.cache,
                device=device,
                report=report,
                rank=rank,
                world=world,
                wrap=partial(prepare_model, move_to_device=device) if world > 1 else None,
                objective=setup.objective,
                say=notes.append,
                saving=Saving(
                    method.train.checkpoint_minutes,
                    # Of a machine that Ray drains; on a Ray that was started here nobody looks for it.
                    announced=lambda: ray_train.get_preemption_info() is not None,
                    saved=attempt.saved,
                ),
            )
            final: dict[str, Any] = {}
            if result is not None:
                result = attempt.done(result)
                metrics = narrowed(result.metrics, attempt.folder, method.cam, setup.betas)
                final = {**metrics, "seconds": result.seconds}
    except (InputError, WorkError, torch.OutOfMemoryError) as error:
        if world > 1:
            bucket_sync.put_shared(store, reason, sealed_line({"failed": why_failed(error)}))
            raise
        ray_train.report({"epoch": 0, "failed": why_failed(error), "run_key": key})
        return
    ray_train.report({"epoch": method.train.epochs, "run_key": key, **final, **noted()})


def why_failed(error: Exception) -> str:
    """The reason that is kept, in one line. Out of memory changes nothing behind the user's back: no smaller batch."""
    import torch

    said = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory, and nothing was made smaller; lower train.batch_size or data.crop ({said})"
    return said
