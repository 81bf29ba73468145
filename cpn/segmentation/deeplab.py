"""DeepLab (LargeFOV) on the same backbone, trained on pseudo labels: the segmentation network of method.md (i)."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from cpn.config.data import DataConfig
from cpn.config.deeplab import DeepLabConfig, decided
from cpn.core.errors import InputError
from cpn.core.opencv import cv2
from cpn.data.image_memory import DEEPLAB_CURE, image_of
from cpn.data.segmentation_samples import Sample, SegmentationBatch, SegmentationSource, collate, scale_flip_crop
from cpn.data.transforms import normalise, resize
from cpn.data.voc import IGNORE, Split
from cpn.models.backbone import Backbone, frozen_of, maps_of
from cpn.propagation.crf import refine_label
from cpn.propagation.crf_processes import refined_labels
from cpn.scoring.metrics import hard_counts
from cpn.scoring.shown_sizes import limited_size
from cpn.training.optimizer import parameter_groups
from cpn.training.training_job import TrainingJob


class DeepLab(nn.Module):
    """3x3 dilated, BN, ReLU, 1x1, BN, ReLU, dropout, 1x1 classifier on the backbone's top; official layer names."""

    def __init__(self, backbone: nn.Module, classes: int, config: DeepLabConfig) -> None:
        """`classes` is C, with background. Takes over `backbone`: what it trains is set anew from `config`."""
        super().__init__()
        self.backbone = backbone
        self.classes = classes
        self.batch_norm_train = decided(config.batch_norm_train)
        top = cast(Backbone, backbone).channels[2]
        dilation, width = decided(config.dilation), config.width
        self.conv_fov = nn.Conv2d(top, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn_fov = nn.BatchNorm2d(width)
        self.conv_fov2 = nn.Conv2d(width, width, 1, bias=False)
        self.bn_fov2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(config.dropout)
        self.cls_conv = nn.Conv2d(width, classes, 1)
        for layer in (self.conv_fov, self.conv_fov2, self.cls_conv):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if config.classifier_std is not None:
            nn.init.normal_(self.cls_conv.weight, std=config.classifier_std)
            nn.init.zeros_(cast(nn.Parameter, self.cls_conv.bias))
        self._freeze(config)

    def _freeze(self, config: DeepLabConfig) -> None:
        for parameter in self.parameters():
            parameter.requires_grad_(True)
        if config.freeze_stem:
            for parameter in frozen_of(self.backbone):
                parameter.requires_grad_(False)
        for norm in self._batch_norms():
            norm.momentum = decided(config.bn_momentum)
            for parameter in norm.parameters():
                parameter.requires_grad_(config.affine_train)

    def _batch_norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> Self:
        """Like `nn.Module.train`; the backbone's batch norm uses batch statistics only if `batch_norm_train` says so.

        The new layers' batch norm always does: it has no pretrained statistics.
        """
        super().train(mode)
        for norm in self._batch_norms():
            norm.train(mode and (self.batch_norm_train or norm in (self.bn_fov, self.bn_fov2)))
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images -> logits (B, C, H, W), upsampled bilinear with align_corners True."""
        top = maps_of(self.backbone, images)[2]
        field = torch.relu(self.bn_fov(self.conv_fov(top)))
        field = torch.relu(self.bn_fov2(self.conv_fov2(field)))
        logits = self.cls_conv(self.dropout(field))
        return functional.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=True)

    def new_layers(self) -> list[nn.Module]:
        """Return the layers that start from random weights."""
        return [self.conv_fov, self.bn_fov, self.conv_fov2, self.bn_fov2, self.cls_conv]


def jitter_hsv(image: NDArray[np.uint8], strength: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shift hue (round the circle of 180), saturation and value (cut at 0 and 255) by integers within +- strength."""
    if strength == 0:
        return image.copy()
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int16) + rng.integers(-strength, strength + 1, 3)
    hsv[..., 0] %= 180
    return np.asarray(cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)


def augment_pair(
    image: NDArray[np.uint8],
    label: NDArray[np.uint8],
    crop: int,
    config: DeepLabConfig,
    rng: np.random.Generator,
) -> Sample:
    """Colours of the image, then scale, flip and crop of both: (H, W, 3), (H, W) -> image, valid, label of the crop.

    The label is scaled to the nearest pixel; outside the image it is IGNORE, and `valid` is False.
    """
    jittered = jitter_hsv(image, config.hsv_jitter, rng)
    return scale_flip_crop(jittered, label, crop, decided(config.scale), config.flip, rng)


class SegmentationSamples(Dataset[Sample]):
    """Samples by (epoch, index); everything random depends on (seed, epoch, index) and nothing else."""

    def __init__(self, source: SegmentationSource, crop: int, config: DeepLabConfig, seed: int) -> None:
        self.source, self.crop, self.config, self.seed = source, crop, config, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        return augment_pair(self.source.image(index), self.source.label(index), self.crop, self.config, rng)


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, mean over the pixels that are not IGNORE: (B, C, H, W), uint8 (B, H, W) -> scalar; 0 if none."""
    known = (labels != IGNORE).sum().clamp(min=1)
    return functional.cross_entropy(logits.float(), labels.long(), ignore_index=IGNORE, reduction="sum") / known


def deeplab_job(
    network: DeepLab,
    source: SegmentationSource,
    config: DeepLabConfig,
    data: DataConfig,
    *,
    seed: int,
    bf16: bool = False,
) -> TrainingJob[Sample, SegmentationBatch]:
    """Make the job that trains DeepLab for `config.iterations` steps; `config` is what `schedule_for` decided.

    Of `data` the crop (unless `config.crop` is set) and the workers are read. Raises InputError when there are fewer
    images than a batch holds.
    """

    def losses(module: nn.Module, batch: SegmentationBatch, _: float) -> Mapping[str, Tensor]:
        return {"total": segmentation_loss(module(normalise(batch.images, batch.valid)), batch.labels)}

    return TrainingJob(
        section="deeplab",
        settings=config,
        optimizer=decided(config.optimizer),
        network=network,
        groups=lambda: parameter_groups(network, decided(config.lr), config.head_lr_factor, config.weight_decay),
        samples=SegmentationSamples(source, config.crop or data.crop, config, seed),
        count=len(source),
        collate=collate,
        losses=losses,
        iterations=decided(config.iterations),
        seed=seed,
        workers=data.workers,
        bf16=bf16,
    )


@torch.no_grad()
def predict_logits(network: DeepLab, image: NDArray[np.uint8], config: DeepLabConfig) -> Tensor:
    """Return mean of the logits over scales and flips: uint8 (H, W, 3) -> float32 (C, H, W). The network must be in
    eval mode.

    The image is scaled as `config.sizes` and `config.max_pixels` say; each result is scaled back bilinear with
    align_corners True.
    """
    height, width = image.shape[:2]
    device = network.cls_conv.weight.device
    stride = cast(Backbone, network.backbone).stride if config.sizes == "aligned" else None
    sizes = [limited_size(height, width, scale, stride, config.max_pixels) for scale in decided(config.scales)]
    resized = (torch.from_numpy(resize(image, size)[None]) for size in sizes)
    shown = (normalise(image.to(device, non_blocking=True)) for image in resized)
    return summed_logits(network, shown, (height, width), config.test_flip) / len(sizes)


@torch.no_grad()
def summed_logits(network: DeepLab, shown: Iterable[Tensor], size: tuple[int, int], flip: bool) -> Tensor:
    """Logits of an image of `size` = (H, W) as it is shown at each scale, (1, 3, h, w), summed over the scales, and
    their mean over both passes with `flip`: float32 (C, H, W).
    """
    total = torch.zeros(network.classes, *size, device=network.cls_conv.weight.device)
    for inputs in shown:
        views = torch.cat([inputs, inputs.flip(3)]) if flip else inputs
        logits = functional.interpolate(network(views).float(), size, mode="bilinear", align_corners=True)
        total += (logits[0] + logits[1].flip(2)) / 2 if flip else logits[0]
    return total


def class_probabilities(network: DeepLab, image: NDArray[np.uint8], config: DeepLabConfig) -> NDArray[np.float32]:
    """Softmax of the logits: uint8 (H, W, 3) -> float32 (C, H, W). Needs eval mode."""
    probabilities: NDArray[np.float32] = functional.softmax(predict_logits(network, image, config), dim=0).cpu().numpy()
    return probabilities


def predict(
    network: DeepLab, image: NDArray[np.uint8], config: DeepLabConfig
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Class of each pixel, without and with CRF: uint8 (H, W, 3) -> two uint8 (H, W). Needs eval mode."""
    probabilities = class_probabilities(network, image, config)
    return most_probable(probabilities), refine_label(image, probabilities, config.crf)


def predict_label(network: DeepLab, image: NDArray[np.uint8], config: DeepLabConfig, crf: bool) -> NDArray[np.uint8]:
    """Return the class of each pixel: the most probable one, or with `crf` what the CRF makes of it. Needs eval mode.

    uint8 (H, W, 3) -> uint8 (H, W).
    """
    probabilities = class_probabilities(network, image, config)
    return refine_label(image, probabilities, config.crf) if crf else most_probable(probabilities)


def most_probable(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(C, H, W) -> uint8 (H, W)."""
    best: NDArray[np.uint8] = probabilities.argmax(axis=0).astype(np.uint8)
    return best


def truth_of(split: Split, index: int) -> NDArray[np.uint8]:
    """Return the mask of an image, uint8 (H, W). Raises InputError without one."""
    truth = split.mask(index)
    if truth is None:
        raise InputError(f"{split.ids[index]}: has no mask, but list {split.name!r} is scored; add it, or set data.val")
    return truth


def evaluate(
    network: DeepLab, split: Split, config: DeepLabConfig, processes: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return counts of every image of a list, without and with CRF: two int64 (N, 3, C); their sum over N is scored.

    So many other `processes` run the CRF while this one runs the network; 0: this one does both. The counts are equal.
    """
    network.eval()
    plain: list[NDArray[np.int64]] = []
    refined: list[NDArray[np.int64]] = []

    def scored() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        for index in range(len(split)):
            with image_of(split, index, DEEPLAB_CURE):
                image, truth = split.image(index), truth_of(split, index)
                probabilities = class_probabilities(network, image, config)
                plain.append(hard_counts(most_probable(probabilities), truth, network.classes))
            yield image, probabilities

    with closing(refined_labels(scored(), config.crf, processes)) as labels:
        for index in range(len(split)):
            with image_of(split, index, DEEPLAB_CURE):
                refined.append(hard_counts(next(labels), truth_of(split, index), network.classes))
    return np.stack(plain), np.stack(refined)
