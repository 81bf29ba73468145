"""What the stages after the CAM run read and share: their inputs, the backbone they start from, label files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cpn.config import Config
from cpn.core.run_files import CHECKPOINTS
from cpn.data.map_files import load_label
from cpn.data.voc import Pack, Split
from cpn.models.backbone import build_backbone
from cpn.propagation.walk_rule import WalkChoice
from cpn.run import load_weights
from cpn.training.loop import Report, TrainingContext
from cpn.training.saving import Saving


@dataclass(frozen=True)
class Inputs:
    """What a stage may read."""

    model: Path
    """model.safetensors of the CAM run."""
    config: Config
    """The run's configuration with the later stages' sections."""
    pack: Pack
    cache: Path
    device: torch.device
    folders: dict[str, Path]
    """Output folders of the stages before this one, by name."""
    beta: float | None = None
    """The run's beta; needed where a stage's setting is `auto`, or the walk may give way to its CAM."""
    walk: WalkChoice | None = None
    """What was chosen for the random walk; None: its settings are numbers, or the rule gives them."""
    saved: Callable[[], None] | None = None
    """Called once a training has saved its progress within an epoch, as to upload it."""

    @property
    def split(self) -> Split:
        """The training list, for which pseudo labels are made."""
        return self.pack.split(self.config.data.train)

    @property
    def bf16(self) -> bool:
        """Whether a training of this stage computes in bfloat16, as the run's."""
        return self.config.train.precision == "bf16"

    def training(self, out: Path, report: Report) -> TrainingContext:
        """Return where a training of this stage runs: its checkpoints lie in `out`."""
        saving = Saving(self.config.train.checkpoint_minutes, saved=self.saved)
        return TrainingContext(device=self.device, report=report, folder=out / CHECKPOINTS, saving=saving)

    @property
    def classes(self) -> int:
        """C, with background."""
        return len(self.pack.classes) + 1


def pretrained_backbone(inputs: Inputs) -> nn.Module:
    """Return a fresh backbone with the pretrained weights that the CAM network started from."""
    backbone = build_backbone(inputs.config.network.backbone)
    load_weights(backbone, inputs.config.network.weights, inputs.cache)
    return backbone


def stage_metadata(inputs: Inputs) -> dict[str, Any]:
    """Return what the header of a stage's checkpoint says."""
    return {
        "config": inputs.config.model_dump(mode="json"),
        "classes": list(inputs.pack.classes),
        "fingerprint": inputs.pack.fingerprint,
    }


class LabelledImages:
    """Images of the training list with the labels that an earlier stage wrote, as a network learns from them."""

    def __init__(self, split: Split, folder: Path) -> None:
        self.split, self.folder = split, folder

    def __len__(self) -> int:
        return len(self.split)

    def image(self, index: int, /) -> np.ndarray:
        """RGB, uint8 (H, W, 3)."""
        return self.split.image(index)

    def label(self, index: int, /) -> np.ndarray:
        """Return the class indices or IGNORE, uint8 (H, W)."""
        return load_label(self.folder / f"{self.split.ids[index]}.png")
