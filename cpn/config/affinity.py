"""The section `affinity`: AffinityNet and its training."""

from typing import Annotated

from pydantic import Field

from cpn.config.section import LARGEST_BATCH, LARGEST_RADIUS, LARGEST_SIDE, LARGEST_WIDTH, MOST_EPOCHS, Section
from cpn.config.train import OptimizerKind

Width = Annotated[int, Field(ge=1, le=LARGEST_WIDTH)]


class AffinityConfig(Section):
    """AffinityNet and its training; the defaults are the released code's (method.md (h))."""

    radius: int = Field(5, ge=2, le=LARGEST_RADIUS)
    """Pairs reach strictly less than this many stride cells; 5 gives 34 pairs a cell."""
    widths: tuple[Width, Width, Width] = (64, 128, 256)
    """Channels to which stage 3, stage 4 and the top are reduced; their sum is the embedding's width."""
    epochs: int = Field(8, ge=1, le=MOST_EPOCHS)
    """Passes over the training list."""
    batch_size: int = Field(8, ge=1, le=LARGEST_BATCH)
    """Images per step."""
    crop: int | None = Field(None, ge=16, le=LARGEST_SIDE)
    """Side of the training crop in pixels; null takes data.crop."""
    optimizer: OptimizerKind = "sgd"
    """`sgd`, or `adamw` for small networks."""
    lr: float = Field(0.01, gt=0)
    """Initial learning rate of the pretrained weights."""
    head_lr_factor: float = Field(10.0, gt=0)
    """Learning rate of the new layers, as a multiple of `lr`."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay of all trained weights."""
    sgd_momentum: float = Field(0.0005, ge=0, lt=1)
    """SGD momentum; the released code passes the weight decay in its place."""
    poly_power: float = Field(0.9, gt=0)
    """Power p of lr (1 - t/T)^p."""
