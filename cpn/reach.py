"""Which parameters the losses reach: data-parallel training waits for the gradient of each that is trained.

The losses read two maps of the network. Layers whose map no loss reads, and parameters of a user's own backbone that
its top is not made of, are frozen; a configuration whose losses reach nothing at all is refused when it is read.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from cpn.losses import LossConfig
from cpn.train_config import Objective

if TYPE_CHECKING:
    from cpn.network import CPN


class Reach(NamedTuple):
    """The maps that losses of a weight above 0 send gradients into."""

    cam: bool
    """The CAM: backbone and classifier are trained."""
    refined: bool
    """The refined CAM: f8_3, f8_4, f9 and (PRCM's) f10 are trained."""


def reach_of(loss: LossConfig, objective: Objective, refining: bool) -> Reach:
    """What the losses of `objective` reach; `refining`: the network has PCM or PRCM."""
    if objective in ("classification", "pair_classification"):
        return Reach(cam=True, refined=False)  # it has no weight
    refined = loss.w_cls * loss.amp_weight > 0 or loss.w_cpcr > 0
    refined = refined or (objective == "cpn" and loss.w_tcp > 0 and loss.tcp_refined)
    return Reach(cam=loss.w_cls > 0 or loss.w_tcp > 0, refined=refining and refined)


def nothing_trained(config: Any) -> str | None:
    """What is wrong, with key and cure, where the losses of a configuration reach no parameter; else None."""
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
    """One line about layers that stay as they start because no loss has a weight that reaches them; else None."""
    refining = config.network.pcm or config.network.prcm
    found = reach_of(config.loss, config.train.objective, refining)
    if not found.cam:
        return (
            "loss.w_cls and loss.w_tcp are 0: backbone and classifier get no gradient and stay as they start, only the "
            "layers of PCM and PRCM are trained"
        )
    if refining and not found.refined and config.train.objective in ("cpn", "seam"):
        return (
            "no loss on refined maps has a weight (loss.amp_weight, loss.w_tcp with loss.tcp_refined, loss.w_cpcr): "
            "the layers of PCM and PRCM get no gradient and stay as they start"
        )
    return None


def unreached(network: "CPN", side: int) -> list[str]:
    """Names of the trained parameters of a user's own backbone that its top is not made of; one pass tells.

    An image (1, 3, side, side) goes through it in evaluation mode and back; afterwards no parameter has a gradient.
    """
    import torch

    from cpn.backbone import maps_of

    backbone, training = network.backbone, network.training
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    if not trained:
        return []
    network.eval()
    try:
        top = maps_of(backbone, torch.zeros(1, 3, side, side, device=next(iter(trained.values())).device))[2]
        if top.requires_grad:
            top.sum().backward()
        return [name for name, parameter in trained.items() if parameter.grad is None]
    finally:
        network.zero_grad(set_to_none=True)
        network.train(training)
