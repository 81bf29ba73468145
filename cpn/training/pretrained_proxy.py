"""What takes the place of ImageNet weights on synthetic scenes: a backbone that has learned which parts an image shows.

CAM methods start from a backbone that knows textures. For photographs that is ImageNet; for scenes it is this: image
labels of part kinds (heads, torso and limb textures) on images of their own. It sees no class and no mask.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cpn.config import Config, config_from
from cpn.core.errors import InputError
from cpn.core.files import digest
from cpn.models.backbone import build_backbone
from cpn.models.checkpoint import load_model, save_model
from cpn.models.network import CPN
from cpn.sources.packing import prepare
from cpn.sources.scenes import PARTS_VERSION, write_parts
from cpn.training.cam_training import train
from cpn.training.loop import Report, TrainingContext

STANDIN_VERSION = 1
"""Raised when the recipe changes."""
PICTURES = 2400
SIZE = 64
THREADS = 2
"""Torch adds up in another order with another number of threads, and the weights then differ: always two of them, so
that machines of one kind train the same proxy, whatever their number of cores."""
RECIPE = {
    "preset": "scenes",
    "data": {"train": "train"},
    "network": {"pcm": False, "prcm": False, "dropout": 0.0},
    "train": {"objective": "classification", "epochs": 8, "batch_size": 32, "lr": 0.005, "head_lr_factor": 1.0},
}


def standin_path(cache: Path) -> Path:
    """Return where the pretrained proxy lies under `cache`; the name is a digest of the recipe."""
    key = digest([STANDIN_VERSION, PARTS_VERSION, PICTURES, SIZE, RECIPE])
    return cache / f"standin-{key}.safetensors"


def make_standin(cache: Path, report: Report) -> Path:
    """Train the proxy unless its file is there; returns the file. A minute on two cores; `report` hears each epoch."""
    path = standin_path(cache)
    if path.exists():
        return path
    config: Config = config_from(RECIPE, "the recipe of the pretrained proxy")
    parts = cache / f"parts-{digest([PARTS_VERSION, PICTURES, SIZE])}"
    write_parts(parts, PICTURES, SIZE, seed=0)
    pack = prepare(parts, ["train"], scored=[])
    torch.manual_seed(0)
    backbone = build_backbone("scene")
    backbone.freeze_batch_norm = False  # type: ignore[assignment]
    network = CPN(backbone, len(pack.classes) + 1, config.network)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        train(network, pack.split("train"), config, TrainingContext(device=torch.device("cpu"), report=report))
    finally:
        torch.set_num_threads(before)
    save_model(path, network.backbone, {"kind": "standin", "recipe": RECIPE})
    return path


def drop_damaged(cache: Path, say: Callable[[str], None]) -> None:
    """Delete the pretrained proxy's file where it is not what was written, and say so: it is made again."""
    path = standin_path(cache)
    if path.exists():
        try:
            load_standin(build_backbone("scene"), cache)
        except InputError as error:
            path.unlink()
            say(f"{error}; it is trained again")


def load_standin(backbone: nn.Module, cache: Path) -> None:
    """Put the stand-in's weights into a scene backbone; `make_standin` must have been run."""
    load_model(standin_path(cache), backbone)
