"""Batches for the three-branch training: augmented images with the mask that hides one half of each pair."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cpn.config.data import DataConfig
from cpn.config.patches import PatchesConfig
from cpn.core.errors import InputError
from cpn.data.batches import TensorBatch, batches_on
from cpn.data.hidden_value import hidden_picture
from cpn.data.patches import draw_S_N, hidden_mask
from cpn.data.superpixels import SuperpixelMaps
from cpn.data.transforms import augment_and_tell
from cpn.data.voc import Split


@dataclass(frozen=True)
class Batch(TensorBatch):
    """What one training step reads. Images stay uint8 until they are on the device."""

    images: Tensor
    """uint8 (B, crop, crop, 3), RGB."""
    valid: Tensor
    """bool (B, crop, crop): False where the crop's canvas shows no image."""
    hidden: Tensor
    """bool (B, crop, crop): hidden in I_h, visible in its complement."""
    lam: Tensor
    """float32 (B,): lambda, the visible share of I_h (`patches.lambda_by`)."""
    labels: Tensor
    """float32 (B, F): multi-hot image-level labels."""
    filling: Tensor | None = None
    """uint8 (B, crop, crop, 3): what lost pixels show; None: the mean colour."""
    most_classes: int | None = None
    """Most classes that one image shows, counted before the labels are on a GPU, for which a count waits; None: the
    losses count."""


class Sample(NamedTuple):
    """What `Batch` holds of one image, by the same names."""

    image: np.ndarray
    valid: np.ndarray
    hidden: np.ndarray
    lam: float
    labels: np.ndarray
    filling: np.ndarray | None


class TrainingSamples(Dataset[Sample]):
    """Samples of a split by (epoch, index): everything random depends on (seed, epoch, index) and nothing else.

    So a resumed run repeats an interrupted one exactly, whatever the number of loader processes.
    """

    def __init__(
        self,
        split: Split,
        data: DataConfig,
        patches: PatchesConfig | None,
        seed: int,
        superpixels: SuperpixelMaps | None = None,
    ) -> None:
        """Without `patches` nothing is hidden (lambda 1); with `patches.slic_on` image they need the split's
        `superpixels` (ValueError). InputError for a list without labels.
        """
        if patches is not None and patches.kind == "superpixel" and patches.slic_on == "image" and superpixels is None:
            raise ValueError("patches.slic_on is image, and no maps were given: see cpn.data.superpixels.maps_for")
        if not split.labelled:
            raise InputError(f"data.train: the images of list {split.name!r} have no labels; give trainaug or train")
        self.split, self.data, self.patches, self.seed = split, data, patches, seed
        self.superpixels = superpixels

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        image, valid, view = augment_and_tell(self.split.image(index), self.data, rng)
        labels, maps = self.split.labels[index], self.superpixels
        if self.patches is None:
            return Sample(image, valid, np.zeros(valid.shape, bool), 1.0, labels, None)
        superpixels = maps.of_sample(index, view, draw_S_N(self.patches, rng)) if maps is not None else None
        hidden, lam = hidden_mask(image, self.patches, rng, superpixels)
        return Sample(image, valid, hidden, lam, labels, hidden_picture(image, self.patches.hidden_value, rng))


def collate(samples: list[Sample]) -> Batch:
    """Stack samples into a Batch."""
    filling = [sample.filling for sample in samples if sample.filling is not None]
    labels = np.stack([sample.labels for sample in samples])
    return Batch(
        torch.from_numpy(np.stack([sample.image for sample in samples])),
        torch.from_numpy(np.stack([sample.valid for sample in samples])),
        torch.from_numpy(np.stack([sample.hidden for sample in samples])),
        torch.tensor([sample.lam for sample in samples], dtype=torch.float32),
        torch.from_numpy(labels.astype(np.float32)),
        torch.from_numpy(np.stack(filling)) if filling else None,
        int(labels.sum(axis=1).max()),
    )


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order in which an epoch visits `count` samples: a permutation from (seed, epoch)."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def epoch_keys(
    count: int, batch_size: int, seed: int, epoch: int, rank: int = 0, world: int = 1
) -> list[list[tuple[int, int]]]:
    """Return the batches of one epoch as (epoch, index) keys; the last short one is dropped (method.md (a)).

    With `world` workers each takes its share of every batch, so that all of them together take the steps of one.
    """
    order = epoch_order(count, seed, epoch)
    whole = count // batch_size * batch_size
    return [
        [(epoch, int(i)) for i in order[start : start + batch_size][rank::world]]
        for start in range(0, whole, batch_size)
    ]


def epoch_keys_of_passes(
    count: int, batch_size: int, seed: int, epoch: int, passes: int, rank: int = 0, world: int = 1
) -> list[list[tuple[int, int]]]:
    """Return the batches of an epoch that passes the samples `passes` times, each in an order of its own
    (`epoch_keys`).
    """
    numbers = range(epoch * passes, (epoch + 1) * passes)
    return [batch for number in numbers for batch in epoch_keys(count, batch_size, seed, number, rank, world)]


def load_batches(
    samples: TrainingSamples, keys: list[list[tuple[int, int]]], workers: int, device: torch.device
) -> Iterator[Batch]:
    """Return the batches of `keys` on `device`, decoded and augmented by `workers` processes (0: in this one)."""
    return batches_on(device, samples, keys, workers, collate)
