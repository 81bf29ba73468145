"""The CAM network: backbone, classifier, PCM and PRCM; one image in, its CAM and its refined CAM out."""

from collections.abc import Iterable
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cpn.config.network import NetworkConfig
from cpn.models.backbone import Backbone, build_backbone, frozen_of, hold_batch_norm, maps_of
from cpn.models.correlation import EPSILON, background_and_peak, pcm, prcm
from cpn.models.losses import Branch
from cpn.models.present import upsample
from cpn.models.ranks import rank_and_world


class CPN(nn.Module):
    """One branch of the Complementary Patch Network; the three branches share these weights.

    Parameter names are the released code's, with the backbone's under `backbone.`.
    """

    x_rms: Tensor
    """(3,): RMS of image, stage 3 and stage 4 inside X before scaling; only with `x_scale` unit."""

    def __init__(self, backbone: nn.Module, classes: int, config: NetworkConfig) -> None:
        """`classes` is C, with background."""
        super().__init__()
        self.backbone = backbone
        self.config = config
        stage3, stage4, top = cast(Backbone, backbone).channels
        x_channels = 3 + config.stage3_channels + config.stage4_channels
        self.fc8 = nn.Conv2d(top, classes, 1, bias=False)
        self.f8_3 = nn.Conv2d(stage3, config.stage3_channels, 1, bias=False)
        self.f8_4 = nn.Conv2d(stage4, config.stage4_channels, 1, bias=False)
        self.f9 = nn.Conv2d(x_channels, config.correlation_channels, 1, bias=False)
        self.f10 = nn.Conv2d(x_channels, config.correlation_channels, 1, bias=False)
        nn.init.xavier_uniform_(self.fc8.weight)
        nn.init.kaiming_normal_(self.f8_3.weight)
        nn.init.kaiming_normal_(self.f8_4.weight)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)
        nn.init.xavier_uniform_(self.f10.weight, gain=4)
        if config.x_scale == "unit":
            self.register_buffer("x_rms", torch.ones(3))
        for parameter in frozen_of(backbone):
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Like `nn.Module.train`; the batch norms of a user's backbone stay in evaluation mode."""
        super().train(mode)
        hold_batch_norm(self.backbone)
        return self

    def forward(self, images: Tensor, upsampled: bool = True, views: int = 1) -> Branch:
        """(B, 3, H, W) normalised images -> (cam, refined_cam), both (B, C, H, W), raw scores.

        The CAM is Eq. 1 at stride resolution, upsampled (bilinear, align_corners True), or not: the losses upsample
        present classes alone. Stages 3 and 4 and Y0 enter the refinement detached: losses on the refined CAM train
        f8_3, f8_4, f9 and f10 and nothing else. `views`: how many of each image B holds, all of one kind after another,
        by which workers share the dropout of a batch.
        """
        size = (images.shape[-2], images.shape[-1]) if upsampled else None
        stage3, stage4, top = maps_of(self.backbone, images)
        low = self.fc8(shared_dropout2d(top, self.config.dropout, self.training, views))
        cam = upsample(low, size)
        if not (self.config.pcm or self.config.prcm):
            return Branch(cam, cam.detach())
        return Branch(cam, upsample(self.refine(images, low.detach(), stage3.detach(), stage4.detach()), size))

    def refine(self, images: Tensor, low_cam: Tensor, stage3: Tensor, stage4: Tensor) -> Tensor:
        """Y_pcm + Y_prcm (Eq. 9-12) at stride resolution: (B, C, h, w). The inputs are taken as constants."""
        x = self.scaled(self.parts_of_x(images, stage3, stage4))
        g = self.f9(x)
        peak = background_and_peak(low_cam)
        parts = []
        if self.config.pcm:
            parts.append(pcm(peak, g))
        if self.config.prcm:
            factor = self.config.prcm_scale if self.config.x_scale == "unit" else 1.0
            # g is linear: g(factor X) = factor g(X).
            parts.append(prcm(peak, factor * x, factor * g, self.f10, transposed=self.config.prcm_transposed))
        refined = torch.stack(parts).sum(dim=0)
        return refined / len(parts) if self.config.average_refined else refined

    def parts_of_x(self, images: Tensor, stage3: Tensor, stage4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the image at stride resolution and the ReLU of both reduced stages: three (B, channels, h, w)."""
        small = functional.interpolate(images, stage3.shape[-2:], mode="bilinear", align_corners=True)
        return small, functional.relu(self.f8_3(stage3)), functional.relu(self.f8_4(stage4))

    def scaled(self, parts: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """X (B, D1, h, w) of its three parts: as they come, or by `x_scale` unit each divided by its kept RMS."""
        if self.config.x_scale == "released":
            return torch.cat(parts, dim=1)
        image, stage3, stage4 = (part / rms for part, rms in zip(parts, self.x_rms, strict=True))
        return torch.cat([self.config.x_image * image, stage3, stage4], dim=1)

    @torch.no_grad()
    def measure_x(self, batches: Iterable[Tensor]) -> None:
        """Set the RMS by which `x_scale` unit divides each part of X, from batches of normalised (B, 3, H, W) images.

        It is kept in checkpoints. Does nothing for `x_scale` released.
        """
        if self.config.x_scale == "released":
            return
        squares = []
        for images in batches:
            stage3, stage4, _ = maps_of(self.backbone, images)
            squares.append(torch.stack([part.square().mean() for part in self.parts_of_x(images, stage3, stage4)]))
        self.x_rms.copy_(torch.stack(squares).mean(dim=0).sqrt().clamp(min=EPSILON))

    def new_layers(self) -> list[nn.Module]:
        """Return the layers that start from random weights, whose learning rate is ten times the backbone's."""
        return [self.fc8, self.f8_3, self.f8_4, self.f9, self.f10]


def shared_dropout2d(maps: Tensor, share: float, training: bool, views: int = 1) -> Tensor:
    """Drop a `share` of the channels of (B, C, h, w), the same ones of an image however many workers share the batch.

    All workers draw for the whole batch, from the same seed; each takes what falls to its images, every `world`-th of
    each of the `views`, as `cpn.data.loader.epoch_keys` deals them out.
    """
    rank, world = rank_and_world()
    if world == 1 or not training or share == 0:
        return functional.dropout2d(maps, share, training)
    drawn = maps.new_empty(len(maps) * world, maps.shape[1], 1, 1).bernoulli_(1 - share).div_(1 - share)
    mine: Tensor = drawn.unflatten(0, (views, -1))[:, rank::world].flatten(0, 1)
    return maps * mine


def build_network(config: NetworkConfig, classes: int) -> CPN:
    """Return a CPN with its backbone by name; weights are not loaded here."""
    return CPN(build_backbone(config.backbone), classes, config)
