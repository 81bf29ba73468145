"""A bare Ray script: N trials of the CAM network, each a TorchTrainer in a plain Tuner, and nothing of platform/.

    python -m benchmarks.sweeps.bare_trials GIVEN.json

It calls cpn's own training and scoring, so that topics which run it compare the surroundings and not the method. Ray
and Tune are as they come, with the dashboard, without which a second trial finds no room. GIVEN.json holds

    base      the configuration, as `config_from` takes it; `data.root` is packed
    trials    a list of {values, workers}: dotted values on top of the base, and how many workers share each batch
    score     whether miou is measured: one pass after every epoch, all scales and flips at the end
    folder    where superpixels, Ray's files and each trial's <number>.safetensors go

Lines on standard output are those of `platform.sweep --json` (platform/base/json_lines.py): trial_started,
trial_reported, trial_ended with `value`, the miou; `uid` is the trial's number. What else is printed is for people.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray import train as ray_train
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from ray.tune.integration.ray_train import TuneReportCallback
from torch import Tensor
from torch.distributed import GradBucket
from torch.futures import Future

from cpn.config import Config, config_from, with_values
from cpn.config.cam import CamConfig
from cpn.data.superpixels import maps_for
from cpn.data.voc import open_pack
from cpn.models.checkpoint import save_model
from cpn.models.network import CPN, build_network
from cpn.run import load_weights, score
from cpn.scoring.metrics import best_beta
from cpn.scoring.selection import select_and_confirm
from cpn.training.cam_training import train
from cpn.training.loop import TrainingContext


def method(base: dict[str, Any], values: dict[str, Any]) -> Config:
    """A trial's configuration."""
    return with_values(config_from(base, "the benchmark"), values, "the trial's values")


def first_network(config: Config, classes: int, cache: Path) -> CPN:
    """The network that a trial starts from, as `cpn.run` makes it."""
    torch.manual_seed(config.train.seed)
    network = build_network(config.network, classes)
    load_weights(network.backbone, config.network.weights, cache)
    return network


def train_on_worker(settings: dict[str, Any]) -> None:
    """One worker of a trial: train, score, save, report."""
    torch.set_num_threads(1)
    context, folder = ray_train.get_context(), Path(settings["folder"])
    rank, world = context.get_world_rank(), context.get_world_size()
    config = method(settings["base"], settings["values"])
    pack = open_pack(config.data.root or "")
    classes, split, scored = len(pack.classes) + 1, pack.split(config.data.train), pack.split(config.data.score)
    network = first_network(config, classes, folder)
    chosen = scored.subset([scored.ids[i] for i in select_and_confirm(scored.ids, config.cam)[0]])
    sent: list[int] = []

    def select_miou(cam: CamConfig) -> float:
        return 100 * best_beta(score(network, chosen, cam, classes))[1]

    def after_epoch(epoch: int) -> dict[str, float]:
        quick = config.cam.model_copy(update={"scales": (1.0,), "flip": False})
        return {"miou_epoch": select_miou(quick)} if settings["score"] and rank == 0 else {}

    def shared(module: torch.nn.Module) -> torch.nn.Module:
        wrapped = prepare_model(module)
        count_messages(wrapped, sent)
        return wrapped

    context = TrainingContext(
        device=torch.device("cpu"), report=lambda entry: ray_train.report(dict(entry)), after_epoch=after_epoch,
        rank=rank, world=world, wrap=shared if world > 1 else None,
    )  # fmt: skip
    train(network, split, config, context, maps_for(config, split, folder))
    final: dict[str, float] = {"epoch": config.train.epochs, "sent": sum(sent)}
    if rank == 0:
        network.eval()
        final["miou"] = select_miou(config.cam) if settings["score"] else 0.0
        save_model(folder / f"{settings['number']}.safetensors", network, {"kind": "cam"})
    ray_train.report(final)


def count_messages(module: torch.nn.Module, sent: list[int]) -> None:
    """Append to `sent` the bytes of every bucket of gradients that data-parallel training reduces over the workers."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    def counted(_: object, bucket: GradBucket) -> Future[Tensor]:
        sent.append(bucket.buffer().nbytes)
        return allreduce_hook(None, bucket)

    module.register_comm_hook(None, counted)


def trial(config: dict[str, Any], settings: dict[str, Any]) -> None:
    """One trial inside a Tune actor."""
    own = settings["trials"][config["number"]]
    trainer = TorchTrainer(
        train_on_worker,
        train_loop_config={**settings, "values": own["values"], "number": config["number"]},
        scaling_config=ScalingConfig(num_workers=own["workers"]),
        run_config=RunConfig(
            name=f"trial{config['number']}", storage_path=f"{settings['folder']}/ray", callbacks=[TuneReportCallback()]
        ),
    )
    trainer.fit()


class Told(tune.Callback):
    """Prints what happens to trials."""

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        say("trial_started", trial)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        numbers = {key: value for key, value in result.items() if isinstance(value, int | float)}
        say("trial_reported", trial, **numbers)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        say("trial_ended", trial, state="complete", value=trial.last_result.get("miou"))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        say("trial_ended", trial, state="fail", value=None)


def say(event: str, trial: Any, **values: Any) -> None:
    """One line."""
    print(json.dumps({"event": event, "time": time.time(), **values, "uid": trial.config["number"]}), flush=True)


def main(path: Path) -> None:
    """Run the trials, one at a time."""
    settings = json.loads(path.read_text())
    print("starting Ray", flush=True)
    ray.init(include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False)
    tune.Tuner(
        tune.with_resources(tune.with_parameters(trial, settings=settings), {"memory": 1}),
        param_space={"number": tune.grid_search(list(range(len(settings["trials"]))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(
            name="bare", storage_path=f"{settings['folder']}/ray", callbacks=[Told()], verbose=0
        ),
    ).fit()  # fmt: skip
    ray.shutdown()


if __name__ == "__main__":
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    # By its name: what stands in __main__ travels to Ray's processes by value, with all that it refers to.
    from benchmarks.sweeps import bare_trials

    bare_trials.main(Path(sys.argv[1]))
