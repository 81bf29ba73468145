"""All stages of the pipeline over ten tiny scenes, made once for the tests of this folder."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from cpn.config import config_from
from cpn.config.data import ScenesConfig
from cpn.models.checkpoint import save_model
from cpn.models.network import build_network
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.stages import pipeline
from cpn.stages.inputs import Inputs

CONFIG: dict[str, Any] = {
    "data": {"train": "trainaug", "crop": 32, "long_side": [28, 40], "workers": 0},
    "network": {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8},
    "cam": {"scales": [1.0]},
    "crf": {"iterations": 2},
    "affinity": {"radius": 3, "widths": [4, 5, 6], "epochs": 1, "batch_size": 4},
    "random_walk": {"radius": 3, "logt": 2, "crf": True},
    "deeplab": {"width": 8, "dilation": 2, "iterations": 3, "batch_size": 4, "scales": [1.0], "bn_momentum": 0.1},
}


STAGES = ("cam", "crf", "affinity", "random_walk", "deeplab")


def silent(_: dict[str, float]) -> None: ...


def make(stage: str, inputs: Inputs, out: Path, indices: list[int]) -> dict[str, float]:
    if stage in pipeline.PER_IMAGE:
        pipeline.PER_IMAGE[stage](inputs, indices, out)
        return {}
    return pipeline.TRAINED[stage](inputs, out, silent)


class Made:
    """All stages of ten tiny scenes behind a CAM network that was never trained."""

    def __init__(self, inputs: Inputs, results: dict[str, dict[str, float]]) -> None:
        self.inputs, self.results, self.folders = inputs, results, inputs.folders


def make_stages(base: Path) -> Made:
    """Write ten tiny scenes to `base`, and run every stage over them."""
    write_scenes(base / "scenes", ScenesConfig(train=8, extra=2, val=2, size=32))
    pack = prepare(base / "scenes")
    config = config_from(CONFIG, "test")
    torch.manual_seed(0)
    network = build_network(config.network, len(pack.classes) + 1)
    metadata = {"kind": "cam", "config": config.model_dump(mode="json"), "classes": list(pack.classes)}
    save_model(base / "model.safetensors", network, metadata)
    folders = {stage: base / stage for stage in STAGES}
    inputs = Inputs(base / "model.safetensors", config, pack, base / "cache", torch.device("cpu"), folders)
    return Made(inputs, {stage: make(stage, inputs, folders[stage], list(range(10))) for stage in STAGES})


def files(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file() and "checkpoints" not in p.parts
    }
