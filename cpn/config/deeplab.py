"""The section `deeplab`: the segmentation network, its training and its test."""

from typing import Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from cpn.config.crf import CrfConfig
from cpn.config.section import (
    LARGEST_BATCH,
    LARGEST_RADIUS,
    LARGEST_SIDE,
    LARGEST_WIDTH,
    MOST_ITERATIONS,
    MOST_PIXELS,
    MOST_STEPS,
    Section,
)
from cpn.config.train import OptimizerKind

RULED = (
    "dilation", "iterations", "optimizer", "lr", "scale", "freeze_stem", "batch_norm_train",
    "bn_momentum", "scales", "classifier_std",
)  # fmt: skip
"""Names that `schedule: by_images` decides where no value is given (cpn/segmentation/schedule.py)."""

Value = TypeVar("Value")


class SegmentationCrfConfig(CrfConfig):
    """The CRF after DeepLab's test; its alphas are not read. A class of its own, so that setting one value in a file
    leaves the others at the published ones."""

    iterations: int = Field(1, ge=1, le=MOST_ITERATIONS)
    """Mean-field iterations."""
    sxy_bilateral: float = Field(32.0, gt=0)
    """Width in pixels of the appearance kernel."""


class DeepLabConfig(Section):
    """The segmentation network, its training and its test; the defaults are the released code's (method.md (i)).

    A name of `RULED` may be null where `schedule` is `by_images`: the rule decides it then, and does so wherever no
    value is given. What trains and tests a network reads the outcome of `cpn.segmentation.schedule.schedule_for`.
    """

    schedule: Literal["released", "by_images"] = "released"
    """`released`: the released code's values, made for 10,582 images. `by_images`: values that fit the number and size
    of the images (cpn/segmentation/schedule.py), at 10,582 images the released ones; a given value wins."""
    width: int = Field(512, ge=1, le=LARGEST_WIDTH)
    """Channels of the two layers above the backbone."""
    dilation: int | None = Field(12, ge=1, le=LARGEST_RADIUS)
    """Dilation of the 3x3 layer, in stride cells: the large field of view."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout before the classifier."""
    classifier_std: float | None = Field(None, ge=0)
    """Standard deviation of the classifier's initial weights, with biases of 0: a small one starts the loss at ln C.
    null is the released initialisation, whose first loss is several times that."""
    iterations: int | None = Field(20000, ge=1, le=MOST_STEPS)
    """Optimizer steps; the last epoch is cut short to meet it."""
    batch_size: int = Field(10, ge=1, le=LARGEST_BATCH)
    """Images per step."""
    optimizer: OptimizerKind | None = "sgd"
    """`sgd`, or `adamw` for small networks and few images."""
    lr: float | None = Field(0.001, gt=0)
    """Initial learning rate of the pretrained weights; biases learn at twice the rate of their weights."""
    head_lr_factor: float = Field(10.0, gt=0)
    """Learning rate of the new layers, as a multiple of `lr`."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay of trained weights; biases have none."""
    sgd_momentum: float = Field(0.9, ge=0, lt=1)
    """SGD momentum; a true one here, unlike in the other two networks."""
    poly_power: float = Field(0.9, gt=0)
    """Power p of lr (1 - t/(T + 1))^p."""
    crop: int | None = Field(None, ge=16, le=LARGEST_SIDE)
    """Side of the training crop in pixels; null takes data.crop."""
    scale: tuple[float, float] | None = (0.5, 1.5)
    """Smallest and largest factor by which image and label are scaled; uniform."""
    hsv_jitter: int = Field(10, ge=0, le=90)
    """Hue (of 180), saturation and value (of 255) each shift by a whole number within +- this."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    freeze_stem: bool | None = False
    """Keep the backbone's first layers as pretrained, as CPN does; the released code trains them."""
    batch_norm_train: bool | None = True
    """Normalise with the statistics of the batch while training; otherwise with the pretrained ones."""
    bn_momentum: float | None = Field(3e-4, gt=0, le=1)
    """Momentum of the running statistics; with few iterations it has to be larger for them to settle."""
    affine_train: bool = False
    """Train the scale and shift of batch norm; the released code leaves them out of the optimizer."""
    scales: tuple[float, ...] | None = Field((0.5, 0.75, 1.0, 1.25, 1.5, 1.75), min_length=1)
    """Image scales whose logits are averaged at test."""
    sizes: Literal["released", "aligned"] = "released"
    """Size of an image at a scale. `released`: round(side * scale). `aligned`: the nearest k * stride + 1, at which the
    backbone's cells and the corners of the enlarged logits agree."""
    max_pixels: int | None = Field(None, ge=1024, le=MOST_PIXELS)
    """Pixels of one view above which an image is shown smaller there, with the same sides' ratio; null: no limit."""
    test_flip: bool = True
    """Average the logits of the mirrored image as well."""
    crf: SegmentationCrfConfig = SegmentationCrfConfig()
    """The CRF at test."""

    @model_validator(mode="before")
    @classmethod
    def _left_to_the_rule(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("schedule") == "by_images":
            return {**dict.fromkeys(RULED), **values}
        return values

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.schedule == "released":
            nulls = [name for name in RULED if getattr(self, name) is None and DEFAULTS[name] is not None]
            if nulls:
                raise ValueError(f"{nulls[0]} is null: give a value, or schedule: by_images, which decides it")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is {list(self.scale)}: give [smallest, largest] factor, for example [0.5, 1.5]")
        if min(self.scales or (1.0,)) <= 0:
            raise ValueError(f"scales are {list(self.scales or ())}: all have to be positive")
        return self


DEFAULTS = {name: field.default for name, field in DeepLabConfig.model_fields.items()}
"""The released values."""


def decided(value: Value | None) -> Value:
    """Return a value of `RULED` that the rule has decided already."""
    assert value is not None, "schedule_for has not been applied"
    return value


def without_defaults(section: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the section without those of `RULED` that are null or equal their default (not given).

    What stays when another `schedule` is chosen for a configuration whose every value is written out.
    """
    return {
        name: value
        for name, value in section.items()
        if name not in RULED or (value is not None and value != DEFAULTS[name])
    }
