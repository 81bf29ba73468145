"""Runs the stages after the CAM run on Ray, each once: a stage whose key has a manifest is done and is not run again.

A stage works in `<stage>-<key>.work`, where every file is whole or absent, and gets its own name when all are there: a
killed stage leaves nothing half-written, and the same command goes on with the files that are missing.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpn.config import Config
from cpn.files import file_digest, read_json, write_json
from cpn.voc import Pack

from .capacity import Node, total
from .paths import MANIFEST, Storage
from .spec import Resources
from .terminal import Terminal

STAGES = ("cam", "crf", "affinity", "random_walk", "deeplab")
ON_GPU = ("cam", "affinity", "random_walk", "deeplab")
EPOCHS = "epochs.json"
IMAGES_PER_TASK = 64
POLL_S = 0.3


@dataclass(frozen=True)
class Plan:
    """What a stage's task needs to know; plain values that travel to any node."""

    model: str
    config: dict[str, Any]
    data_root: str
    cache: str
    folders: dict[str, str]
    threads: int


def run_stages(
    *,
    store: Storage,
    model: Path,
    beta: float,
    config: Config,
    pack: Pack,
    data_root: str,
    resources: Resources,
    cluster: Callable[[], Sequence[Node]],
    terminal: Terminal,
    started: Callable[[str, str, Mapping[str, Any]], None],
    ended: Callable[[str, str, Mapping[str, Any], Path], None],
) -> dict[str, dict[str, Any]]:
    """Carry the CAM network `model` on to DeepLab; returns every stage's manifest by name.

    `cluster` starts or joins Ray when there is something to do. `started(stage, key, settings)` and `ended(stage, key,
    manifest, folder)` hear of every stage, done before or now.
    """
    from cpn.pipeline import stage_keys, stage_settings

    keys = stage_keys(file_digest(model), config, pack.fingerprint)
    dump = config.model_dump(mode="json")
    folders: dict[str, str] = {}
    manifests: dict[str, dict[str, Any]] = {}
    for stage in STAGES:
        folder, key = store.stage(stage, keys[stage]), keys[stage]
        section, settings = stage_settings(stage, config)
        started(stage, key, {f"{section}.{name}": value for name, value in settings.items()})
        if not (folder / MANIFEST).exists():
            have = cluster()
            plan = Plan(str(model), dump, data_root, str(store.cache), dict(folders), os.cpu_count() or 1)
            work = folder.with_name(folder.name + ".work")
            work.mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            metrics = run_stage(stage, plan, work, pack, beta, resources, have, terminal)
            write_json(
                work / MANIFEST,
                {
                    "stage": stage,
                    "key": key,
                    "inputs": {name: keys[name] for name in folders} | {"model": str(file_digest(model))},
                    "config": settings,
                    "metrics": metrics,
                    "history": read_json(work / EPOCHS) if (work / EPOCHS).exists() else [],
                    "seconds": time.monotonic() - began,
                    "finished": time.time(),
                },
            )
            work.rename(folder)
        folders[stage] = str(folder)
        manifests[stage] = read_json(folder / MANIFEST)
        ended(stage, key, manifests[stage], folder)
    return manifests


def run_stage(
    stage: str,
    plan: Plan,
    work: Path,
    pack: Pack,
    beta: float,
    resources: Resources,
    have: Sequence[Node],
    terminal: Terminal,
) -> dict[str, float]:
    """Run one stage into `work`, spread over Ray tasks where it goes image by image; returns its metrics."""
    import ray

    from cpn.pipeline import PER_IMAGE, stage_settings

    as_task = ray.remote(**needs(stage, resources), max_retries=3)
    if stage in PER_IMAGE:
        ids = pack.split(plan.config["data"]["train"]).ids
        tasks_at_once = max(1, int(total(have, "CPU")))
        size = max(1, min(IMAGES_PER_TASK, -(-len(ids) // tasks_at_once)))
        task = as_task(image_task)
        refs = [
            task.remote(stage, plan, list(range(at, min(at + size, len(ids)))), str(work))
            for at in range(0, len(ids), size)
        ]
        with terminal.stage(stage, "images", len(ids)) as bar:
            wait(refs, lambda: bar.at(sum(name.endswith((".npz", ".png")) for name in os.listdir(work))))
    else:
        _, settings = stage_settings(stage, Config.model_validate(plan.config))
        epochs = settings.get("epochs") or -(
            -settings["iterations"] // max(1, len(pack.split(plan.config["data"]["train"])) // settings["batch_size"])
        )
        ref = as_task(training_task).remote(stage, plan, str(work))
        with terminal.stage(stage, "epochs", epochs) as bar:
            wait([ref], lambda: bar.at(len(read_json(work / EPOCHS)) if (work / EPOCHS).exists() else 0))
    finish = as_task(finishing_task)
    metrics: dict[str, float] = ray.get(finish.remote(stage, plan, str(work), beta))
    if stage not in PER_IMAGE:
        trained: dict[str, float] = ray.get(ref)
        metrics = {**trained, **metrics}
    return metrics


def needs(stage: str, resources: Resources) -> dict[str, Any]:
    """What a task of the stage asks Ray for. Without a GPU it goes to machines that have none, as long as these have
    room: that is how Ray places such tasks.
    """
    if stage not in ON_GPU or not resources.gpus_per_worker:
        return {"num_cpus": 1, "num_gpus": 0}
    return {"num_cpus": 1, "num_gpus": resources.gpus_per_worker, "accelerator_type": resources.accelerator}


def wait(refs: Sequence[Any], show: Callable[[], None]) -> None:
    """Wait for Ray tasks, showing progress; a task's exception is raised here."""
    import ray

    left = list(refs)
    while left:
        done, left = ray.wait(left, num_returns=len(left), timeout=POLL_S)
        for ref in done:
            ray.get(ref)
        show()


def inputs_of(plan: Plan) -> Any:
    """The plan as `cpn.pipeline.Inputs`, on the device that Ray gave this process."""
    import torch

    from cpn.stage_inputs import Inputs
    from cpn.voc import open_pack

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folders = {name: Path(path) for name, path in plan.folders.items()}
    config = Config.model_validate(plan.config)
    return Inputs(Path(plan.model), config, open_pack(plan.data_root), Path(plan.cache), device, folders)


def image_task(stage: str, plan: Plan, indices: Sequence[int], work: str) -> None:
    """The share of one task in a stage that goes image by image."""
    from cpn.pipeline import PER_IMAGE

    PER_IMAGE[stage](inputs_of(plan), indices, Path(work))


def training_task(stage: str, plan: Plan, work: str) -> dict[str, float]:
    """A stage that is one training; each epoch's report is kept beside it for whoever watches."""
    import torch

    from cpn.pipeline import TRAINED

    # The stage has the machine to itself.
    torch.set_num_threads(plan.threads)
    history: list[dict[str, float]] = []

    def report(entry: dict[str, float]) -> None:
        history.append(entry)
        write_json(Path(work) / EPOCHS, history)

    metrics: dict[str, float] = TRAINED[stage](inputs_of(plan), Path(work), report)
    return metrics


def finishing_task(stage: str, plan: Plan, work: str, beta: float) -> dict[str, float]:
    """Scores and pictures of a stage whose files are all there."""
    from cpn.pipeline import score_pseudo_labels
    from cpn.stage_pictures import draw_deeplab, draw_random_walk

    inputs, out = inputs_of(plan), Path(work)
    metrics: dict[str, float] = {}
    if stage == "random_walk":
        metrics = score_pseudo_labels(inputs, out)
        draw_random_walk(inputs, out, beta)
    elif stage == "deeplab":
        draw_deeplab(inputs, out)
    return metrics
