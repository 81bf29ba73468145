"""The section `train`: how the CAM network is trained (paper section 4.1, method.md (f))."""

from typing import Literal

from pydantic import Field

from cpn.config.section import LARGEST_BATCH, MOST_EPOCHS, MOST_STEPS, Section

OptimizerKind = Literal["sgd", "adamw"]

Objective = Literal["cpn", "seam", "classification", "pair_classification"]
Precision = Literal["fp32", "bf16"]
Compiled = Literal["default", "reduce-overhead"]

SEAM_SCALE = 0.3
"""Size of the second image that SEAM sees, as a share of the first's."""


class TrainConfig(Section):
    """Schedule, optimizer and objective of the CAM network's training."""

    objective: Objective = "cpn"
    """`cpn`: Eq. 17. `seam`: SEAM's losses. `classification`: the classification loss of the original image alone.
    `pair_classification`: that of the original and of both of the CP pair, and nothing else (a control)."""
    epochs: int = Field(8, ge=1, le=MOST_EPOCHS)
    """Passes over the training list; the learning rate decays over all of them."""
    epoch_images: int | None = Field(None, ge=1, le=MOST_STEPS)
    """Images that an epoch shows at least: it passes a shorter list several times. None: one pass."""
    batch_size: int = Field(4, ge=1, le=LARGEST_BATCH)
    """Images a step, over all workers together."""
    optimizer: OptimizerKind = "sgd"
    """`sgd` as published, or `adamw`."""
    lr: float = Field(0.01, gt=0)
    """Initial learning rate of pretrained layers."""
    head_lr_factor: float = Field(10.0, gt=0)
    """Learning rate of new layers, relative to `lr`."""
    sgd_momentum: float = Field(0.0005, ge=0, lt=1)
    """Momentum of SGD. The released code's effective value is 0.0005; the paper says 0.9."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay of convolution weights."""
    poly_power: float = Field(0.9, gt=0)
    """Power of the polynomial decay."""
    precision: Precision = "fp32"
    """`fp32` as published, or `bf16` autocast of the network; losses are float32 in both."""
    compiled: Compiled | None = None
    """torch.compile of the network while it trains, by torch's name of the mode: `default`, or `reduce-overhead`, which
    on a GPU records CUDA graphs. The values are equal up to rounding, dropout's draws are others. Needs a C++ compiler;
    None: off. Not measured on a card yet."""
    checkpoint_minutes: float | None = Field(20.0, gt=0)
    """Minutes after which an epoch that still runs is saved, here and in the stages that train. The result is the same
    with any value, and so is the run's key. None: only at an epoch's end."""
    seed: int = Field(0, ge=0)
    """Seed of initial weights, sample order, augmentation, patches and dropout."""


def passes_of(config: TrainConfig, images: int) -> int:
    """Return how many times an epoch passes a list of `images` (at least one): once, or until it has shown
    `epoch_images`.
    """
    return 1 if config.epoch_images is None else max(1, -(-config.epoch_images // max(1, images)))
