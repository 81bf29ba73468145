"""The section `cam`: how class activation maps are read off a trained network, and how they are scored."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cpn.config.section import LARGEST_SIDE, MOST_PIXELS, MOST_STEPS, Section

BETAS: tuple[float, ...] = tuple(round(step * 0.02, 2) for step in range(61))
"""The background scores of every curve, on un-halved maps in [0, 1]: 0, 0.02, ..., 1.2."""


class CamConfig(Section):
    """How class activation maps are read off a trained network."""

    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field((0.5, 1.0, 1.5, 2.0), min_length=1)
    """Image scales whose maps are summed; each once. A pass takes memory by the area, the square of a scale."""
    long_side: int | None = Field(None, ge=16, le=LARGEST_SIDE)
    """Length in pixels of an image's longer side at scale 1; null: the image's own. With a number maps, time and memory
    do not depend on how large a data set's images are."""
    max_pixels: int | None = Field(None, ge=1024, le=MOST_PIXELS)
    """Pixels of one view above which an image is shown smaller there, with the same sides' ratio; null: no limit. What
    no view reaches changes nothing: at scale 2 VOC's largest views have 1,000,000."""
    sizes: Literal["released", "aligned"] = "released"
    """Size of an image at a scale. `released`: round(side * scale). `aligned`: the nearest k * stride + 1, at which the
    backbone's cells and the corners of the enlarged map agree."""
    flip: bool = True
    """Sum the maps of the mirrored image as well."""
    map: Literal["refined", "plain"] = "refined"
    """`refined`: the refined CAM of the original image. `plain`: ReLU of the CAM (cam_baseline)."""
    beta: float = Field(0.72, ge=0, le=1.2)
    """beta: the background score, on maps in [0, 1] that are not halved; what `miou_fixed_beta` uses."""
    confirm_share: float = Field(0.5, gt=0, lt=1)
    """Share of the scored images kept away from selection: trials are ranked on the others."""
    confirm_seed: int = Field(0, ge=0)
    """Seed of the hash that splits the scored images into select and confirm."""
    epoch_images: int | None = Field(None, ge=1, le=MOST_STEPS)
    """How many select images are scored after each epoch, which is what pruning sees: a fixed sample by a seeded hash
    of their ids, the same in every trial; None: all. Give several for each class, one not in the sample counts as 0."""

    @model_validator(mode="after")
    def _each_scale_once(self) -> Self:
        twice = next((scale for at, scale in enumerate(self.scales) if scale in self.scales[:at]), None)
        if twice is not None:
            raise ValueError(f"scales names {twice:g} twice: give each scale once")
        return self
