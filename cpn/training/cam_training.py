"""Training of the CAM network: the objective of each system, the parameter groups, the epochs."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from cpn.config import Config
from cpn.config.loss import LossConfig, reach_of, untrained_words
from cpn.config.train import SEAM_SCALE, Objective, passes_of
from cpn.data.loader import Batch, TrainingSamples, collate, epoch_keys, load_batches
from cpn.data.patches import complementary_pair
from cpn.data.superpixels import SuperpixelMaps
from cpn.data.transforms import normalise
from cpn.data.voc import Split
from cpn.models.backbone import BACKBONES
from cpn.models.losses import Branch, classification_loss, cpn_losses, seam_losses
from cpn.models.network import CPN
from cpn.training.loop import TrainingContext
from cpn.training.optimizer import parameter_groups
from cpn.training.saving import Saving
from cpn.training.training_job import TrainingJob, fit, placed
from cpn.training.unreached import unreached

X_BATCHES = 4
"""Batches on which the scale of X is measured."""


def train(
    network: CPN, split: Split, config: Config, context: TrainingContext, superpixels: SuperpixelMaps | None = None
) -> list[dict[str, float]]:
    """Train `network` in place on `split`, resuming from the context's folder; returns the history that was reported.

    `superpixels` are those of `cpn.data.superpixels.maps_for`, without which only grids and `patches.slic_on` crop
    train. Raises InputError when the batch does not divide among the workers or the split is smaller than one batch.
    """
    settings, bf16 = config.train, config.train.precision == "bf16"
    placed(network, context.device, bf16)
    lines = freeze_unused(network, config)
    patches = config.patches if settings.objective in ("cpn", "pair_classification") else None
    job = TrainingJob(
        section="train",
        settings=settings,
        optimizer=settings.optimizer,
        network=network,
        groups=lambda: parameter_groups(network, settings.lr, settings.head_lr_factor, settings.weight_decay),
        samples=TrainingSamples(split, config.data, patches, settings.seed, superpixels),
        count=len(split),
        counted=f"images of list {split.name!r}",
        collate=collate,
        losses=lambda module, batch, done: objective(module, batch, done, config.loss, settings.objective),
        epochs=settings.epochs,
        passes=passes_of(settings, len(split)),
        seed=settings.seed,
        workers=config.data.workers,
        bf16=bf16,
        compiled=settings.compiled,
    )
    for line in lines:
        context.say(line)
    measure_x(network, split, config, context.device)
    return fit(job, replace(context, saving=context.saving or Saving(settings.checkpoint_minutes)))


def measure_x(network: CPN, split: Split, config: Config, device: torch.device) -> None:
    """Measure the scale of X (`network.x_scale`) on the first batches of epoch 0, whole ones: all workers get the same.

    A checkpoint that training goes on from has the same numbers.
    """
    if network.config.x_scale == "released" or not (network.config.pcm or network.config.prcm):
        return
    samples = TrainingSamples(split, config.data, None, config.train.seed)
    keys = epoch_keys(len(split), config.train.batch_size, config.train.seed, 0)[:X_BATCHES]
    network.measure_x(normalise(b.images, b.valid) for b in load_batches(samples, keys, 0, device))


def objective(
    network: nn.Module, batch: Batch, progress: float, loss: LossConfig, kind: Objective
) -> Mapping[str, Tensor]:
    """Return the named losses of one batch, `total` among them, by system (see `TrainConfig.objective`)."""
    images = normalise(batch.images, batch.valid)
    size = size_of(images)
    if kind == "classification":
        cls = classification_loss(network(images, upsampled=False).cam.float(), batch.labels, size)
        return {"cls": cls, "total": cls}
    if kind == "seam":
        first = in_float32(network(images, upsampled=False))
        scaled = functional.interpolate(images, scale_factor=SEAM_SCALE, mode="bilinear", align_corners=True)
        second = in_float32(network(scaled, upsampled=False))
        sizes = (size, size_of(scaled))
        return seam_losses(first, second, batch.labels, loss, progress, sizes, batch.most_classes)
    filling = None if batch.filling is None else normalise(batch.filling, batch.valid)
    hidden, complement = complementary_pair(images, batch.hidden, filling)
    # One pass over 3B images gives the same numbers as three passes: batch norm is fixed, and weights are shared.
    together = in_float32(network(torch.cat([images, hidden, complement]), upsampled=False, views=3))
    cams, refined = together.cam.chunk(3), together.refined_cam.chunk(3)
    if kind == "pair_classification":
        cls = torch.stack([classification_loss(cam, batch.labels, size) for cam in cams]).mean()
        return {"cls": cls, "total": cls}
    branches = [Branch(cam, r) for cam, r in zip(cams, refined, strict=True)]
    labels, lam, most = batch.labels, batch.lam, batch.most_classes
    return cpn_losses(branches[0], branches[1], branches[2], labels, lam, loss, progress, size, most)


def size_of(images: Tensor) -> tuple[int, int]:
    """(H, W) of (B, 3, H, W)."""
    return images.shape[-2], images.shape[-1]


def in_float32(branch: Branch) -> Branch:
    """Convert the maps to float32, in which all losses are computed whatever the network's precision."""
    return Branch(branch.cam.float(), branch.refined_cam.float())


def freeze_unused(network: CPN, config: Config) -> list[str]:
    """Stop the training of what the objective never reaches: data-parallel training waits for gradients.

    Returns a line each about what the weights of the losses, or a user's own backbone, leave as it starts.
    """
    refining = config.network.pcm or config.network.prcm
    reached = reach_of(config.loss, config.train.objective, refining)
    for layer in (network.f8_3, network.f8_4, network.f9):
        layer.requires_grad_(reached.refined)
    network.f10.requires_grad_(reached.refined and config.network.prcm)
    lines = [words] if (words := untrained_words(config)) else []
    if not reached.cam:
        network.backbone.requires_grad_(False)
        network.fc8.requires_grad_(False)
    elif config.network.backbone not in BACKBONES and (lost := unreached(network, config.data.crop)):
        for name in lost:
            network.backbone.get_parameter(name).requires_grad_(False)
        lines.append(
            f"network.backbone: its top is not made of {len(lost)} parameters ({', '.join(lost[:3])}), which stay as "
            "they start"
        )
    return lines
