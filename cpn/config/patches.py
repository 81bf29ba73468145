"""The section `patches`: how an image is cut into patches and which of them are hidden."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cpn.config.section import LARGEST_SIDE, Section

Draw = Literal["with_replacement", "bernoulli"]
HiddenValue = Literal["mean", "blur", "noise"]
Superpixels = Annotated[int, Field(ge=1, le=8000)]
PAIR_MAPS = ("o", "h", "hb", "pair")
"""Maps that a complementary pair is scored by: Y_o, Y_h, Y_hb, and lam Y_h + (1 - lam) Y_hb."""


class PatchesConfig(Section):
    """How an image is cut into patches and which of them are hidden (method.md (b), (k) 3-5)."""

    kind: Literal["superpixel", "grid"] = "superpixel"
    """SLIC superpixels or square grid cells."""
    S_N: Superpixels = 200
    """S_N of the paper: superpixels asked for per crop; SLIC may give a few less or more."""
    S_N_range: tuple[Superpixels, Superpixels] | None = None
    """[smallest, largest] S_N: one is drawn for each image, uniform in the logarithm, as grid cells draw their side
    from K; null, as in the paper: always `S_N`. With `slic_on` image all levels of the ladder within it are made."""
    slic_on: Literal["image", "crop"] = "image"
    """`image`: SLIC runs once on each whole image, and its map is scaled and cropped with the image
    (cpn/data/superpixels.py). `crop`: on every augmented crop, as in the released code; a sample then takes many times
    as
    long."""
    K: tuple[Annotated[int, Field(ge=1, le=LARGEST_SIDE)], ...] = Field((56, 112), min_length=1)
    """K of the paper: sides of the grid cells in pixels; one is drawn uniformly for each image."""
    p_h: float = Field(0.5, gt=0, lt=1)
    """p_h of the paper: probability that a patch is hidden."""
    draw: Draw = "with_replacement"
    """Superpixels only: the released code draws floor((n+1) p_h) labels with replacement, which hides 39 % of them at
    p_h = .5; bernoulli hides each with probability p_h, as the paper says and as grid cells always are."""
    guard: bool = False
    """Draw again while everything or nothing is hidden; the released code does not."""
    hidden_value: HiddenValue = "mean"
    """What a hidden pixel shows: the `mean` colour, as in the paper; the heavily blurred image; or Gaussian noise
    (cpn/data/hidden_value.py). Padding shows the mean colour in any case."""
    lambda_by: Literal["pixels", "patches"] = "pixels"
    """lambda is the visible share of I_h in pixels or in patches, cut ones counted whole. The paper says both; the
    released code counts pixels of superpixels and patches of grids, which is the same where a cell divides the crop."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.S_N_range is not None and self.S_N_range[0] > self.S_N_range[1]:
            raise ValueError(f"S_N_range is {list(self.S_N_range)}: give [smallest, largest], for example [50, 800]")
        return self
