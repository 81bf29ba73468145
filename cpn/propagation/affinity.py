"""AffinityNet (Ahn and Kwak 2018, method.md (h)): pair labels from CAMs and CRF, network, loss, training.

It learns from confident pixels which pairs of cells belong together; `cpn.propagation.random_walk` then spreads CAMs
over them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from cpn.config.affinity import AffinityConfig
from cpn.config.data import DataConfig
from cpn.core.errors import InputError
from cpn.data.batches import TensorBatch
from cpn.data.transforms import FILL, colour_jitter, normalise, place, random_crop
from cpn.data.voc import IGNORE
from cpn.models.backbone import Backbone, frozen_of, hold_batch_norm, maps_of
from cpn.propagation.random_walk import block_mean
from cpn.propagation.random_walk import pair_offsets as pair_offsets  # the geometry is shared with the walk
from cpn.propagation.walk_rule import source_shape
from cpn.training.optimizer import parameter_groups
from cpn.training.training_job import TrainingJob

EPSILON = 1e-5


class PairLabels(NamedTuple):
    """What is known of the pairs of a label map: bool (B, P, N) each; a pair with an ignored end is in none."""

    background: Tensor
    """Both ends are background."""
    foreground: Tensor
    """Both ends are of the same foreground class."""
    negative: Tensor
    """The ends differ."""


def fuse_labels(low: NDArray[np.floating], high: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Confident labels from the scores of alpha_low and alpha_high: two (K, H, W), background first -> uint8 (H, W).

    Foreground is where it wins even against the strong background of the low alpha; background is where it wins even
    with the weak one of the high alpha; the rest, and pixels without any score, are IGNORE. Values are positions in K.
    """
    label: NDArray[np.uint8] = low.argmax(axis=0).astype(np.uint8)
    label[label == 0] = IGNORE
    label[high.argmax(axis=0) == 0] = 0
    label[(low < EPSILON).all(axis=0) & (high < EPSILON).all(axis=0)] = IGNORE
    return label


def pair_ends(maps: Tensor, radius: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield both ends of the pairs, offset by offset: (..., H, W) -> P (sources, targets), both (..., rows,
    columns).
    """
    rows, columns = source_shape(maps.shape[-2], maps.shape[-1], radius)
    left = radius - 1
    sources = maps[..., :rows, left : left + columns]
    for dy, dx in pair_offsets(radius).tolist():
        yield sources, maps[..., dy : dy + rows, left + dx : left + dx + columns]


def pair_labels(label_map: Tensor, radius: int) -> PairLabels:
    """Label the pairs of label maps (B, h, w) with IGNORE: see PairLabels; P offsets, N source cells."""
    ends = list(pair_ends(label_map, radius))
    first = torch.stack([source.flatten(-2) for source, _ in ends], dim=-2)
    second = torch.stack([target.flatten(-2) for _, target in ends], dim=-2)
    known = (first != IGNORE) & (second != IGNORE)
    same = known & (first == second)
    return PairLabels(same & (first == 0), same & (first != 0), known & (first != second))


def pair_affinities(features: Tensor, radius: int) -> Tensor:
    """exp(-mean over channels |f_i - f_j|) of all pairs: (B, D, h, w) -> float32 (B, P, N) in [0, 1]."""
    distances = [(a - b).abs().mean(dim=1).flatten(1) for a, b in pair_ends(features.float(), radius)]
    return torch.exp(-torch.stack(distances, dim=1))


def affinity_loss(affinities: Tensor, labels: PairLabels) -> dict[str, Tensor]:
    """Cross entropy of affinities (B, P, N), each kind of pair averaged by itself: total = bg/4 + fg/4 + neg/2.

    Scalars `background`, `foreground`, `negative`, `total`. A kind that the batch lacks is 0.
    """
    together, apart = -torch.log(affinities + EPSILON), -torch.log(1 + EPSILON - affinities)
    terms = {
        name: (chosen * error).sum() / (chosen.sum() + EPSILON)
        for name, chosen, error in (
            ("background", labels.background, together),
            ("foreground", labels.foreground, together),
            ("negative", labels.negative, apart),
        )
    }
    total = terms["background"] / 4 + terms["foreground"] / 4 + terms["negative"] / 2
    return {**terms, "total": total}


class AffinityNet(nn.Module):
    """Backbone and an embedding whose distances are affinities; layer names are the released code's."""

    def __init__(self, backbone: nn.Module, widths: tuple[int, int, int] = (64, 128, 256)) -> None:
        """Take over `backbone`, freezing what it freezes for CPN (method.md (c))."""
        super().__init__()
        self.backbone = backbone
        self.stride = cast(Backbone, backbone).stride
        stage3, stage4, top = cast(Backbone, backbone).channels
        self.f8_3 = nn.Conv2d(stage3, widths[0], 1, bias=False)
        self.f8_4 = nn.Conv2d(stage4, widths[1], 1, bias=False)
        self.f8_5 = nn.Conv2d(top, widths[2], 1, bias=False)
        self.f9 = nn.Conv2d(sum(widths), sum(widths), 1, bias=False)
        for layer in (self.f8_3, self.f8_4, self.f8_5):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)
        for parameter in frozen_of(backbone):
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Like `nn.Module.train`; the batch norms of a user's backbone stay in evaluation mode."""
        super().train(mode)
        hold_batch_norm(self.backbone)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images -> embedding (B, D, ceil(H / stride), ceil(W / stride)), D = sum of widths."""
        stage3, stage4, top = maps_of(self.backbone, images)
        reduced = [self.f8_3(stage3), self.f8_4(stage4), self.f8_5(top)]
        embedding: Tensor = functional.elu(self.f9(torch.cat([functional.elu(part) for part in reduced], dim=1)))
        return embedding

    @torch.no_grad()
    def image_affinities(self, image: NDArray[np.uint8], radius: int) -> NDArray[np.float32]:
        """Affinities of one image, uint8 (H, W, 3) -> float32 (P, N). The network must be in eval mode.

        The normalised image is padded with 0 at the bottom and right to a multiple of the stride.
        """
        device = self.f9.weight.device
        shown = torch.from_numpy(np.ascontiguousarray(image)[None]).to(device, non_blocking=True)
        images = normalise(shown, None)
        height, width = image.shape[:2]
        padded = functional.pad(images, (0, -width % self.stride, 0, -height % self.stride))
        affinities: NDArray[np.float32] = pair_affinities(self(padded), radius)[0].cpu().numpy()
        return affinities

    def new_layers(self) -> list[nn.Module]:
        """Return the layers that start from random weights."""
        return [self.f8_3, self.f8_4, self.f8_5, self.f9]


class AffinitySource(Protocol):
    """The images AffinityNet learns from, and the scores their labels are made of."""

    def __len__(self) -> int: ...

    def image(self, index: int, /) -> NDArray[np.uint8]:
        """RGB, uint8 (H, W, 3)."""
        ...

    def scores(self, index: int, /) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """CRF scores of alpha_low and alpha_high, background first: two (K, H, W) (`crf_scores`)."""
        ...


@dataclass(frozen=True)
class AffinityBatch(TensorBatch):
    """What one training step reads."""

    images: Tensor
    """uint8 (B, crop, crop, 3), RGB."""
    valid: Tensor
    """bool (B, crop, crop): False where the crop's canvas shows no image."""
    labels: Tensor
    """uint8 (B, h, w): label of each stride cell, or IGNORE."""


Sample = tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.uint8]]


class AffinitySamples(Dataset[Sample]):
    """Samples by (epoch, index); everything random depends on (seed, epoch, index) and nothing else."""

    def __init__(self, source: AffinitySource, crop: int, stride: int, data: DataConfig, seed: int) -> None:
        """Of `data` the jitter and the flip are read."""
        self.source, self.crop, self.stride, self.data, self.seed = source, crop, stride, data, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Image (crop, crop, 3), valid (crop, crop), cell labels: jitter, crop without rescaling, flip, block means."""
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        image = colour_jitter(self.source.image(index), self.data.jitter, rng)
        low, high = self.source.scores(index)
        box = random_crop(image.shape[0], image.shape[1], self.crop, rng)
        # Scores are padded with 0, which fuse_labels turns into IGNORE.
        scores = place(np.concatenate([low, high]).transpose(1, 2, 0), box, 0.0)
        placed, valid = place(image, box, FILL), place(np.ones(image.shape[:2], np.bool_), box, False)
        if rng.random() < self.data.flip:
            placed, valid, scores = placed[:, ::-1], valid[:, ::-1], scores[:, ::-1]
        cells = block_mean(scores.transpose(2, 0, 1), self.stride)
        label = fuse_labels(cells[: len(low)], cells[len(low) :])
        return np.ascontiguousarray(placed), np.ascontiguousarray(valid), label


def collate(samples: list[Sample]) -> AffinityBatch:
    """Stack samples into a batch."""
    images, valid, labels = (torch.from_numpy(np.stack(parts)) for parts in zip(*samples, strict=True))
    return AffinityBatch(images, valid, labels)


def affinity_job(
    network: AffinityNet,
    source: AffinitySource,
    config: AffinityConfig,
    data: DataConfig,
    *,
    seed: int,
    bf16: bool = False,
) -> TrainingJob[Sample, AffinityBatch]:
    """Make the job that trains AffinityNet.

    Of `data` the crop (unless `config.crop` is set), flip, jitter and workers are read. Raises InputError when there
    are fewer images than a batch holds, or the crop is too small to hold a pair.
    """
    crop = config.crop or data.crop
    cells = -(-crop // network.stride)

    def losses(module: nn.Module, batch: AffinityBatch, _: float) -> Mapping[str, Tensor]:
        affinities = pair_affinities(module(normalise(batch.images, batch.valid)), config.radius)
        return affinity_loss(affinities, pair_labels(batch.labels, config.radius))

    job = TrainingJob(
        section="affinity",
        settings=config,
        optimizer=config.optimizer,
        network=network,
        groups=lambda: parameter_groups(network, config.lr, config.head_lr_factor, config.weight_decay),
        samples=AffinitySamples(source, crop, network.stride, data, seed),
        count=len(source),
        collate=collate,
        losses=losses,
        epochs=config.epochs,
        seed=seed,
        workers=data.workers,
        bf16=bf16,
    )
    if source_shape(cells, cells, config.radius) == (0, 0):
        raise InputError(f"affinity.radius: {config.radius} leaves no pair in {cells} x {cells} cells; lower it")
    return job
