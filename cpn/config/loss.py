"""The section `loss`: weights and switches of the losses, and which maps of the network they reach."""

from typing import Any, Literal, NamedTuple

from pydantic import Field

from cpn.config.section import Section
from cpn.config.train import Objective

Norm = Literal["min_max", "max"]
Background = Literal["after_lambda", "before_lambda"]
Scope = Literal["image", "batch"]


class LossConfig(Section):
    """Weights and switches of the losses; the defaults are the released code's."""

    w_cls: float = Field(1.0, ge=0)
    """w1 of Eq. 17: weight of the classification loss (and with it of AMP)."""
    w_tcp: float = Field(1.0, ge=0)
    """w2 of Eq. 17: weight of the triplet CP loss; in SEAM systems, of the equivariant regularisation."""
    w_cpcr: float = Field(1.0, ge=0)
    """w3 of Eq. 17: weight of the CP cross regularisation; in SEAM systems, of SEAM's cross regularisation."""
    amp_weight: float = Field(1.0, ge=0)
    """Weight of adaptive min pooling on refined maps, added to the classification loss; 0 in the paper."""
    tcp_refined: bool = True
    """Count the second line of Eq. 14, the one on refined maps."""
    tcp_refined_detach: bool = False
    """Stop the gradient into the pair's refined maps in the second line of Eq. 14, as is always done in the first."""
    normalise_refined: bool = True
    """Normalise refined maps before comparing them; otherwise only their ReLU is taken."""
    onehot_target: bool = True
    """Keep only the largest class of each pixel in the target of Eq. 15; false in the paper."""
    ohem_ratio: float | None = Field(0.2, gt=0, le=1)
    """Share of the largest errors that Eq. 15 keeps; null averages all of them."""
    ohem_scope: Scope = "image"
    """Choose the largest errors within each image, or over the whole batch (of each worker) as the paper says."""
    background: Background = "after_lambda"
    """Form the background (Eq. 16) after the maps are scaled by lam, or before as the paper says."""
    norm: Norm = "min_max"
    """Normalise a class map by its minimum and maximum, or by its maximum only as the paper says."""
    alpha: float = Field(1.0, gt=0)
    """Exponent of the background score, Eq. 16."""
    ramp: float = Field(0.0, ge=0, le=1)
    """Share of the training steps over which w_tcp and w_cpcr grow from 0 to their values; 0 means at once."""


class Reach(NamedTuple):
    """The maps that losses of a weight above 0 send gradients into."""

    cam: bool
    """The CAM: backbone and classifier are trained."""
    refined: bool
    """The refined CAM: f8_3, f8_4, f9 and (PRCM's) f10 are trained."""


def reach_of(loss: LossConfig, objective: Objective, refining: bool) -> Reach:
    """Return what the losses of `objective` reach; `refining`: the network has PCM or PRCM."""
    if objective in ("classification", "pair_classification"):
        return Reach(cam=True, refined=False)  # it has no weight
    refined = loss.w_cls * loss.amp_weight > 0 or loss.w_cpcr > 0
    refined = refined or (objective == "cpn" and loss.w_tcp > 0 and loss.tcp_refined)
    return Reach(cam=loss.w_cls > 0 or loss.w_tcp > 0, refined=refining and refined)


def nothing_trained(config: Any) -> str | None:
    """Describe, with key and cure, a configuration whose losses reach no parameter; else None."""
    loss, network = config.loss, config.network
    if any(reach_of(loss, config.train.objective, network.pcm or network.prcm)):
        return None
    weights = f"loss.w_cls={loss.w_cls:g}, loss.w_tcp={loss.w_tcp:g}, loss.w_cpcr={loss.w_cpcr:g}"
    if loss.w_cpcr > 0:
        return (
            f"loss.w_cpcr: {weights}: the only loss left trains the refined map, which network.pcm=false and "
            "network.prcm=false take away, so nothing would be trained; give loss.w_cls a weight above 0"
        )
    return f"loss.w_cls: {weights}: no loss has a weight, so nothing would be trained; give loss.w_cls one above 0"


def untrained_words(config: Any) -> str | None:
    """Return one line about layers that stay as they start because no loss has a weight that reaches them; else
    None.
    """
    refining = config.network.pcm or config.network.prcm
    reach = reach_of(config.loss, config.train.objective, refining)
    if not reach.cam:
        return (
            "loss.w_cls and loss.w_tcp are 0: backbone and classifier get no gradient and stay as they start, only the "
            "layers of PCM and PRCM are trained"
        )
    if refining and not reach.refined and config.train.objective in ("cpn", "seam"):
        return (
            "no loss on refined maps has a weight (loss.amp_weight, loss.w_tcp with loss.tcp_refined, loss.w_cpcr): "
            "the layers of PCM and PRCM get no gradient and stay as they start"
        )
    return None
