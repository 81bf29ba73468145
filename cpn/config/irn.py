"""The section `irn`: IRN's labels, training and random walk."""

from typing import Self

from pydantic import Field, model_validator

from cpn.config.crf import CrfConfig
from cpn.config.network import BackboneName
from cpn.config.section import LARGEST_BATCH, LARGEST_RADIUS, LARGEST_SIDE, MOST_EPOCHS, PositiveOrAuto, Section
from cpn.config.train import OptimizerKind


class LabelCrfConfig(CrfConfig):
    """The CRF over confident labels; its alphas are not read."""

    sxy_bilateral: float = Field(50.0, gt=0)
    """Width in pixels of the appearance kernel."""
    srgb_bilateral: float = Field(5.0, gt=0)
    """Width of the appearance kernel in grey levels (0 to 255) of each colour."""


class IrnConfig(Section):
    """IRN's labels, training and walk, read when random_walk.kind is irn; the defaults are the released code's.

    Its three background scores are for its own CAMs, which it scores at 0.15. CPN's maps have their best far above
    that (cam.beta), so that with them far more counts as foreground.
    """

    backbone: BackboneName | None = None
    """Frozen backbone under both heads, named as network.backbone, which null takes; the released code has a ResNet50.
    """
    weights: str | None = None
    """Pretrained weights of `backbone`; null takes network.weights if `backbone` is null too."""
    map_power: PositiveOrAuto = 1.0
    """Power that the maps are raised to before anything of this section reads them. `auto`: the power at which the
    run's beta becomes 0.15, where IRN's own CAMs are cut, so that the thresholds below mean what they meant for those.
    """
    fg_threshold: float = Field(0.30, gt=0, lt=1)
    """Background score on the maps in [0, 1] above which a pixel counts as surely foreground, before the CRF."""
    bg_threshold: float = Field(0.05, gt=0, lt=1)
    """Background score on the maps in [0, 1] below which a pixel counts as surely background, before the CRF."""
    gt_prob: float = Field(0.7, gt=0, lt=1)
    """Probability of the label that a pixel brings into the CRF; the others share the rest."""
    crf: LabelCrfConfig = LabelCrfConfig()
    """The CRF over those labels."""
    radius: int = Field(10, ge=2, le=LARGEST_RADIUS)
    """Training pairs reach strictly less than this many cells of 4 pixels."""
    displacement: bool = True
    """Train the displacement head as well. It is for instances: no pseudo label depends on it."""
    epochs: int = Field(3, ge=1, le=MOST_EPOCHS)
    """Passes over the training list."""
    batch_size: int = Field(32, ge=1, le=LARGEST_BATCH)
    """Images per step."""
    crop: int = Field(512, ge=16, le=LARGEST_SIDE)
    """Side of the training crop in pixels."""
    scale: tuple[float, float] = (0.5, 1.5)
    """Smallest and largest factor by which image and label are scaled; uniform."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    optimizer: OptimizerKind = "sgd"
    """`sgd`, or `adamw` for small networks."""
    lr: float = Field(0.1, gt=0)
    """Initial learning rate of the edge head."""
    displacement_lr_factor: float = Field(10.0, gt=0)
    """Learning rate of the displacement head, as a multiple of `lr`."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of everything trained."""
    sgd_momentum: float = Field(1e-4, ge=0, lt=1)
    """SGD momentum; the released code passes the weight decay in its place."""
    poly_power: float = Field(0.9, gt=0)
    """Power p of lr (1 - t/T)^p."""
    walk_radius: int = Field(5, ge=2, le=LARGEST_RADIUS)
    """Pairs of the walk reach strictly less than this many cells of 4 pixels."""
    walk_beta: float = Field(10.0, gt=0)
    """Exponent of the affinities; a larger one walks less across weak edges. Not the CAM's beta."""
    walk_logt: int = Field(8, ge=0, le=16)
    """The walk takes 2^walk_logt steps."""
    walk_threshold: float = Field(0.25, ge=0, le=1)
    """Background score after the walk, as a share of the image's largest score."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is {list(self.scale)}: give [smallest, largest] factor, for example [0.5, 1.5]")
        if self.bg_threshold > self.fg_threshold:
            raise ValueError(
                f"bg_threshold {self.bg_threshold:g} is above fg_threshold {self.fg_threshold:g}: lower it, "
                "or pixels would be both"
            )
        return self
