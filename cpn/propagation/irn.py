"""IRN (Ahn, Cho and Kwak 2019, method.md (h)): its configuration, confident labels from CAMs, losses, training.

Its network sees edges between classes; `cpn.propagation.irn_walk` then spreads CAMs up to them. CPN's authors recommend
it.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from cpn.config.crf import CrfConfig
from cpn.config.data import DataConfig
from cpn.config.irn import IrnConfig
from cpn.core.errors import InputError
from cpn.data.segmentation_samples import Sample, SegmentationBatch, SegmentationSource, collate, scale_flip_crop
from cpn.data.transforms import normalise
from cpn.data.voc import IGNORE
from cpn.propagation.affinity import PairLabels, affinity_loss, pair_ends, pair_labels
from cpn.propagation.crf import dense_crf
from cpn.propagation.irn_network import IrnNet
from cpn.propagation.irn_walk import EDGE_STRIDE, path_affinities
from cpn.propagation.random_walk import pair_offsets
from cpn.propagation.walk_rule import source_shape
from cpn.training.training_job import TrainingJob

EPSILON = 1e-5


def combine_labels(strict: NDArray[np.uint8], loose: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels with the high and with the low background score, both uint8 (H, W) -> confident labels with IGNORE.

    strict (fg_threshold)    loose (bg_threshold)    label
    a class                  anything                that class
    background               background              background
    background               a class                 IGNORE
    """
    label: NDArray[np.uint8] = np.where((strict == 0) & (loose != 0), np.uint8(IGNORE), strict)
    return label


def hard_label_crf(
    image: NDArray[np.uint8], label: NDArray[np.integer], labels: int, gt_prob: float, config: CrfConfig
) -> NDArray[np.uint8]:
    """CRF over a label map: uint8 (H, W, 3), values 0 to `labels` - 1 (H, W) -> uint8 (H, W).

    Every pixel believes its own label with `gt_prob` and the others with an equal share of the rest.
    """
    if labels == 1:
        return label.astype(np.uint8)
    sure = label == np.arange(labels)[:, None, None]
    believed = np.where(sure, gt_prob, (1 - gt_prob) / (labels - 1)).astype(np.float32)
    refined: NDArray[np.uint8] = dense_crf(image, believed, config).argmax(axis=0).astype(np.uint8)
    return refined


def confident_label(
    image: NDArray[np.uint8], maps: NDArray[np.float32], present: NDArray[np.integer], config: IrnConfig
) -> NDArray[np.uint8]:
    """Return what IRN learns from: uint8 (H, W, 3), un-halved maps (K, H, W) of `present` (K,) -> uint8 (H, W) with
    IGNORE.

    The best class at either background score (background on a tie) goes through the CRF; see `combine_labels`. Values
    are class indices: 0, those of `present`, IGNORE.
    """
    names = np.concatenate([[0], present]).astype(np.uint8)

    def label(threshold: float) -> NDArray[np.uint8]:
        background = np.full((1, *image.shape[:2]), threshold, np.float32)
        best = np.concatenate([background, maps]).argmax(axis=0)
        chosen: NDArray[np.uint8] = names[hard_label_crf(image, best, len(names), config.gt_prob, config.crf)]
        return chosen

    return combine_labels(label(config.fg_threshold), label(config.bg_threshold))


@functools.cache
def offsets_on(radius: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the offsets of pairs, (P, 2, 1), on a device, sent there once: each sending waits for the device."""
    return torch.from_numpy(pair_offsets(radius)).to(device, dtype)[:, :, None]


def displacement_loss(displacements: Tensor, labels: PairLabels, radius: int) -> tuple[Tensor, Tensor]:
    """Foreground and background loss of displacements D (B, 2, h, w), as (dy, dx) in cells: two scalars.

        foreground: mean over pairs of one class of |D_i - D_j - (x_j - x_i)|, so that both point at the same place
        background: mean over background pairs of |D_i - D_j|

    A kind that the batch lacks is 0.
    """
    offsets = offsets_on(radius, displacements.dtype, displacements.device)
    foreground = background = displacements.new_zeros(())
    for p, (source, target) in enumerate(pair_ends(displacements, radius)):
        difference = (source - target).flatten(2)
        error = (difference - offsets[p]).abs() * labels.foreground[:, p, None]
        foreground = foreground + error.sum()
        background = background + (difference.abs() * labels.background[:, p, None]).sum()
    counts = (labels.foreground.sum(), labels.background.sum())
    return foreground / (2 * counts[0] + EPSILON), background / (2 * counts[1] + EPSILON)


def irn_loss(logits: Tensor, displacements: Tensor | None, label_map: Tensor, radius: int) -> dict[str, Tensor]:
    """Losses of edge logits (B, h, w) and displacements (B, 2, h, w) on cell labels uint8 (B, h, w) with IGNORE.

    Scalars `background`, `foreground`, `negative`: cross entropy of the pairs' affinities, each kind averaged by
    itself; `displacement_foreground`, `displacement_background`; and

        total = (bg/2 + fg/2 + neg)/2 + (displacement_fg + displacement_bg)/2
    """
    labels = pair_labels(label_map, radius)
    terms = affinity_loss(path_affinities(torch.sigmoid(logits.float()), radius), labels)
    if displacements is None:
        return terms
    foreground, background = displacement_loss(displacements.float(), labels, radius)
    return {
        **terms,
        "displacement_foreground": foreground,
        "displacement_background": background,
        "total": terms["total"] + (foreground + background) / 2,
    }


class IrnSamples(Dataset[Sample]):
    """Samples by (epoch, index); everything random depends on (seed, epoch, index) and nothing else."""

    def __init__(self, source: SegmentationSource, config: IrnConfig, seed: int) -> None:
        self.source, self.config, self.seed = source, config, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Image (crop, crop, 3), valid (crop, crop), and the label of each cell's first pixel: scale, flip, crop."""
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        image, label = self.source.image(index), self.source.label(index)
        config = self.config
        placed, valid, placed_label = scale_flip_crop(image, label, config.crop, config.scale, config.flip, rng)
        return placed, valid, np.ascontiguousarray(placed_label[::EDGE_STRIDE, ::EDGE_STRIDE])


def head_groups(network: IrnNet, config: IrnConfig) -> list[dict[str, Any]]:
    """Parameter groups of the heads: edges at `lr`, displacements at a multiple of it; all of either decays."""
    rates = {"fc_edge": config.lr, "fc_dp": config.lr * config.displacement_lr_factor}
    groups = [
        {"params": [p for layer in network.head_layers(head) for p in layer.parameters()], "lr": rate}
        for head, rate in rates.items()
    ]
    return [group for group in groups if group["params"]]


def irn_job(
    network: IrnNet,
    source: SegmentationSource,
    config: IrnConfig,
    data: DataConfig,
    *,
    seed: int,
    bf16: bool = False,
) -> TrainingJob[Sample, SegmentationBatch]:
    """Make the job that trains IRN's heads. Of `data` the workers are read.

    Raises InputError when there are fewer images than a batch holds, or the crop is too small to hold a pair.
    """
    cells = -(-config.crop // EDGE_STRIDE)

    def losses(module: nn.Module, batch: SegmentationBatch, _: float) -> Mapping[str, Tensor]:
        logits, displacements = module(normalise(batch.images, batch.valid))
        return irn_loss(logits, displacements, batch.labels, config.radius)

    job = TrainingJob(
        section="irn",
        settings=config,
        optimizer=config.optimizer,
        network=network,
        groups=lambda: head_groups(network, config),
        samples=IrnSamples(source, config, seed),
        count=len(source),
        collate=collate,
        losses=losses,
        epochs=config.epochs,
        seed=seed,
        workers=data.workers,
        bf16=bf16,
    )
    if source_shape(cells, cells, config.radius) == (0, 0):
        raise InputError(f"irn.radius: {config.radius} leaves no pair in {cells} x {cells} cells; lower it")
    return job
