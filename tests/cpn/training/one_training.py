"""The same training by any number of workers, for tests: what each of them reports, and the weights at the end."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cpn.config import Config, config_from, with_values
from cpn.config.data import ScenesConfig
from cpn.data.voc import Pack, open_pack
from cpn.models.network import build_network
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.training.cam_training import train
from cpn.training.loop import TrainingContext

IMAGES, BATCH = 13, 6
"""An epoch has two batches of six, which two and three workers share, and one image over."""
CONFIG: dict[str, Any] = {
    "data": {"train": "train", "crop": 32, "long_side": [28, 40], "workers": 0},
    "patches": {"kind": "grid", "K": [4, 8]},
    "network": {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8,
                "dropout": 0.5},
    "loss": {"amp_weight": 1.0, "ohem_ratio": 0.2, "ohem_scope": "image"},
    "train": {"batch_size": BATCH, "epochs": 1, "lr": 0.05},
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "one step": {"train.batch_size": 12},
    "one step of seam": {"train.batch_size": 12, "train.objective": "seam", "network.prcm": False},
    "one step of the scaled X": {"train.batch_size": 12, "network.x_scale": "unit"},
    "fifty steps": {"train.epochs": 5, "train.epoch_images": 60, "train.lr": 0.003, "loss.ramp": 0.5},
}


def write_data(root: Path) -> None:
    """The images of all workers."""
    write_scenes(root, ScenesConfig(train=IMAGES, val=1, size=32, seed=4))
    prepare(root, ["train"])


def config_of(case: str) -> Config:
    """The configuration of a case."""
    return with_values(config_from(CONFIG, "test"), CASES[case], "test")


def trained(case: str, data: Pack, rank: int, world: int, **more: Any) -> dict[str, Any]:
    """What this worker reports of a case, and its weights: JSON values."""
    config = config_of(case)
    torch.manual_seed(config.train.seed)
    network = build_network(config.network, len(data.classes) + 1)
    for layer in network.backbone.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)  # signals as strong as a pretrained one's
    context = TrainingContext(
        device=torch.device("cpu"), report=lambda _: None, rank=rank, world=world,
        wrap=DistributedDataParallel if world > 1 else None, **more,
    )  # fmt: skip
    told = train(network, data.split("train"), config, context)
    losses = [{name: value for name, value in entry.items() if name.startswith("loss_")} for entry in told]
    return {"losses": losses, "weights": {n: v.flatten().tolist() for n, v in network.state_dict().items()}}


def all_cases(rank: int, world: int, root: Path) -> dict[str, Any]:
    """Every case on this rank, the last with checkpoints that another number of workers may go on from."""
    data = open_pack(root)
    return {
        case: trained(case, data, rank, world, folder=root / f"checkpoints-{world}" if case == "fifty steps" else None)
        for case in CASES
    }
