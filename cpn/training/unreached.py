"""Which parameters the losses reach: data-parallel training waits for the gradient of each that is trained.

The losses read two maps of the network. Layers whose map no loss reads, and parameters of a user's own backbone that
its top is not made of, are frozen; a configuration whose losses reach nothing at all is refused when it is read.
"""

from typing import TYPE_CHECKING

from cpn.models.backbone import maps_of

if TYPE_CHECKING:
    from cpn.models.network import CPN


def unreached(network: "CPN", side: int) -> list[str]:
    """Return the names of the trained parameters of a user's own backbone that its top is not made of; one pass tells.

    An image (1, 3, side, side) goes through it in evaluation mode and back; afterwards no parameter has a gradient.
    """
    import torch

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
