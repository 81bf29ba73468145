"""How DeepLab is trained on fewer images than VOC's: `deeplab.schedule: by_images`.

The released values (method.md (i)) were made for 10,582 images of 500 pixels, a crop of 448 and a stride of 8. The rule
is one function of these four numbers that gives the released values at them. With few steps the released recipe was
seen to end at one mask for every image, and AdamW at 3e-4 to train. From its large classifier the released loss was
still 2.2 after 92 steps on 370 photographs of 7 classes, above ln 7 = 1.9; AdamW's was .9 from a small one, at 1e-4 and
ten times that for the new layers (mIoU 32 for both so early), and 1.1 at 3e-4 for all layers (mIoU 20).
"""

from dataclasses import dataclass

from cpn.config.deeplab import DEFAULTS, RULED, DeepLabConfig

IMAGES, SIDE, CROP, STRIDE = 10_582, 500, 448, 8
"""Training images, their longer side in pixels, crop and stride that the released values were made for."""
ITERATIONS, BATCH = 20_000, 10
"""The released training: 18.9 epochs."""
FEW_EPOCHS, FEWEST_STEPS = 6.0, 240
"""Epochs of a small list, growing to the released ones at `IMAGES`, and steps that no list goes below."""
FEW_LR, FEW_STD = 3e-4, 0.01
"""AdamW's learning rate, and the spread of the classifier's initial weights."""
BN_STEPS = 6.0
"""Batch-norm momentum times steps, as released: the running statistics have seen the last sixth of the training."""


@dataclass(frozen=True)
class Facts:
    """What the rule reads of the data and the backbone."""

    images: int
    """Images of the training list."""
    side: int
    """Their median longer side in pixels."""
    crop: int
    """Side of the training crop in pixels."""
    stride: int
    """Stride of the backbone."""


def schedule_for(config: DeepLabConfig, facts: Facts) -> DeepLabConfig:
    """`config` with every value of `RULED` decided: a given one stays, the others follow from `facts`.

    Under `schedule: released` it is `config` itself.

    Steps        18.9 epochs from 10,582 images on; below 6 epochs and more in proportion to the images, at least 240
    AdamW        below 10,582 images, on frozen first layers and pretrained batch norm, from a small classifier
    bn_momentum  6 / steps, at most .1: of the two new layers
    scale(s)     in proportion to crop / longer side, so that a crop shows as much of an image as the released one
    dilation     in proportion to the crop's cells: 12 of 56
    """
    if config.schedule == "released":
        return config
    few = facts.images < IMAGES
    iterations = config.iterations or iterations_for(facts.images, config.batch_size)
    zoom = (facts.crop / CROP) * (SIDE / facts.side)
    smallest, largest = DEFAULTS["scale"]
    rule = {
        "dilation": max(1, round(DEFAULTS["dilation"] * (facts.crop / facts.stride) / (CROP / STRIDE))),
        "iterations": iterations,
        "optimizer": "adamw" if few else DEFAULTS["optimizer"],
        "lr": FEW_LR if few else DEFAULTS["lr"],
        "scale": (round(smallest * zoom, 3), round(largest * zoom, 3)),
        "freeze_stem": few,
        "batch_norm_train": not few,
        "bn_momentum": min(0.1, BN_STEPS / iterations),
        "scales": tuple(round(scale * zoom, 3) for scale in DEFAULTS["scales"]),
        "classifier_std": FEW_STD if few else None,
    }
    return config.model_copy(update={name: rule[name] for name in RULED if getattr(config, name) is None})


def iterations_for(images: int, batch_size: int) -> int:
    """Optimizer steps for `images` images; 20,000 for 10,582 in batches of 10."""
    share = images / IMAGES
    released = ITERATIONS * BATCH / IMAGES
    epochs = released if share >= 1 else FEW_EPOCHS + (released - FEW_EPOCHS) * share
    return max(FEWEST_STEPS, round(epochs * images / batch_size))
