"""What the later stages do in Ray's tasks: images, a training, scores and pictures at the end."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from cpn.config import Config
from cpn.core.files import write_json
from cpn.core.run_files import COUNTS, MODEL, PICTURES
from cpn.data.packed_copy import data_folder
from cpn.data.voc import open_pack
from cpn.stages.inputs import Inputs
from cpn.stages.pictures import draw_deeplab, draw_random_walk
from cpn.stages.pipeline import PER_IMAGE, TRAINED, score_pseudo_labels

from ..base import bucket_sync
from ..base.paths import storage
from ..config.own_code import check_contents
from .stage_files import READS
from .stage_plan import EPOCHS, Plan


def inputs_of(plan: Plan, reads: Mapping[str, Collection[str] | None], model: bool = False) -> Any:
    """Return the plan as the stages' inputs, on the device that Ray gave this process, with what it is about to read:
    of earlier stages the files of these images (None: all files), and the CAM run's network.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    store = storage(plan.storage)
    folders = {name: store.root / path for name, path in plan.folders.items()}
    config = Config.model_validate(plan.config)
    bucket_sync.download_proxy(store, config)
    if model:
        bucket_sync.download(store, (store.root / plan.model).parent, lambda name: name == MODEL)
    for name, images in reads.items():
        bucket_sync.download(store, folders[name], partial(is_read, images))
    pack = open_pack(data_folder(plan.data_root))
    return Inputs(store.root / plan.model, config, pack, store.cache, device, folders, plan.beta, plan.walk)


def is_read(images: Collection[str] | None, file: str) -> bool:
    """Whether a task reads a file of an earlier stage: the network, and maps and labels of its images (None: all)."""
    return images is None or file == MODEL or file.rpartition(".")[0] in images


def image_task(stage: str, plan: Plan, indices: Sequence[int]) -> None:
    """Return the share of one task in a stage that goes image by image."""

    split = open_pack(data_folder(plan.data_root)).split(plan.config["data"]["train"])
    names = {split.ids[index] for index in indices}
    store = storage(plan.storage)
    work = store.root / plan.work
    PER_IMAGE[stage](inputs_of(plan, dict.fromkeys(READS.get(stage, ()), names), stage == "cam"), indices, work)
    bucket_sync.upload_work(store, work, [f.name for f in work.iterdir() if f.stem in names], f"images-{min(indices)}")


def training_task(stage: str, plan: Plan) -> dict[str, float]:
    """Return a stage that is one training; each epoch's report is kept beside it for whoever watches."""
    import torch

    check_contents(Config.model_validate(plan.config), plan.contents)
    torch.set_num_threads(threads_here())  # the stage has the machine to itself
    history: list[dict[str, float]] = []
    store = storage(plan.storage)
    work = store.root / plan.work
    synced = bucket_sync.training(store, work)
    synced.fetch()

    def report(entry: dict[str, float]) -> None:
        history.append(entry)
        write_json(work / EPOCHS, history)
        bucket_sync.upload_work(store, work, [EPOCHS], "epochs")
        synced.saved()

    inputs = inputs_of(plan, {name: None for name in READS[stage] if name in plan.folders})
    metrics: dict[str, float] = TRAINED[stage](replace(inputs, saved=synced.saved), work, report)
    bucket_sync.upload_work(store, work, [name for name in (MODEL, COUNTS) if (work / name).exists()], "network")
    return metrics


def threads_here() -> int:
    """Return the CPUs that this process may use on the machine where it runs, which is not always the driver's."""
    return len(os.sched_getaffinity(0))


def finishing_task(stage: str, plan: Plan) -> dict[str, float]:
    """Scores and pictures of a stage whose files are all there."""

    if stage not in ("random_walk", "instance_masks", "deeplab"):
        return {}
    store = storage(plan.storage)
    out = store.root / plan.work
    bucket_sync.download_work(store, out)
    metrics: dict[str, float] = {}
    if stage == "random_walk":
        inputs = inputs_of(plan, {name: None for name in ("cam", "crf") if name in plan.folders})
        metrics = score_pseudo_labels(inputs, out)
        draw_random_walk(inputs, out, plan.beta)
    elif stage == "instance_masks":
        return score_pseudo_labels(inputs_of(plan, {}), out)
    else:
        draw_deeplab(inputs_of(plan, {}), out)
    bucket_sync.upload_work(
        store, out, [f"{PICTURES}/{path.name}" for path in (out / PICTURES).glob("*.png")], "pictures"
    )
    return metrics
