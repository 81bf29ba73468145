"""The section `network`: backbone, pretrained weights, PCM and PRCM."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cpn.config.section import LARGEST_WIDTH, Section

BACKBONES = ("efficientnet_lite0", "efficientnet_lite0_stride8", "resnet38", "resnet50", "scene")
"""The backbones that need no module of the user's; cpn/models/backbone.py makes them."""


def _ours_or_code(name: str) -> str:
    """Refuse a name that is neither one of BACKBONES nor can be code: the source of the value is known here alone."""
    if name not in BACKBONES and ":" not in name:
        raise ValueError(
            f"{name!r} is unknown; use {', '.join(BACKBONES)}, timm:NAME, or your own as 'package.module:factory'"
        )
    return name


BackboneName = Annotated[str, AfterValidator(_ours_or_code)]


class NetworkConfig(Section):
    """The CAM network (paper section 3.3, method.md (c) and (d))."""

    backbone: BackboneName = "resnet38"
    """`resnet38`, `resnet50`, `efficientnet_lite0` (stride 16), `efficientnet_lite0_stride8`, `scene`, `timm:NAME` or
    `timm:NAME_strideN` of the package timm, or a user's own as 'package.module:factory'."""
    weights: str | None = None
    """Pretrained backbone weights: a file, `imagenet` for the published file that a package installs
    (efficientnet_lite0), `scenes` for the proxy pretrained on scene parts, or None for none."""
    stage3_channels: int = Field(64, ge=1, le=LARGEST_WIDTH)
    """Channels that stage 3 is reduced to inside X."""
    stage4_channels: int = Field(128, ge=1, le=LARGEST_WIDTH)
    """Channels that stage 4 is reduced to inside X."""
    correlation_channels: int = Field(192, ge=1, le=LARGEST_WIDTH)
    """C2: channels of the embeddings g and phi."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of the top's channels dropped before the classifier."""
    pcm: bool = True
    """Refine by the pixel correlation module, Eq. 9-10."""
    prcm: bool = True
    """Refine by the pixel-region correlation module, Eq. 11-12."""
    prcm_transposed: bool = False
    """True: phi(Z) is transposed as Eq. 11 asks. False: the released code's view of the same memory."""
    x_scale: Literal["released", "unit"] = "released"
    """`released`: X as its three parts come. `unit`: each part divided by its RMS on the first training images, so that
    it does not matter how large a backbone's maps are (PRCM's logits go with the square of X's scale)."""
    x_image: float = Field(1.0, ge=0)
    """With `x_scale` unit: RMS of the image inside X; the two stages have RMS 1."""
    prcm_scale: float = Field(1.0, gt=0)
    """With `x_scale` unit: factor of X in PRCM, whose attention is flat where it is small and one pixel where large."""
    average_refined: bool = False
    """Divide the sum of PCM and PRCM by their number, which keeps the refined CAM in [0, 1]. Not in the paper."""
