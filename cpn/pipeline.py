"""From a trained CAM network to a segmentation network: what each stage after the CAM run computes and writes.

    cam          maps of the training list, un-halved, present classes only
    crf          scores of both background exponents, after the dense CRF: what AffinityNet learns from
    affinity     AffinityNet
    random_walk  pseudo labels as palette PNGs
    deeplab      the segmentation network and its masks' scores on the validation list

Stages that go image by image take the indices they shall do, so that they can be spread over processes; a file that is
there already is whole and is not made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from cpn.affinity import AffinityNet, train_affinity
from cpn.backbone import build_backbone
from cpn.cam import load_maps, multi_scale_maps, present_classes, save_maps
from cpn.checkpoint import load_model, read_metadata, save_model
from cpn.config import Config, config_from
from cpn.crf import crf_scores, dense_crf
from cpn.deeplab import DeepLab, evaluate, train_deeplab
from cpn.errors import InputError
from cpn.files import digest, whole_file
from cpn.loop import Report
from cpn.metrics import hard_counts, miou
from cpn.random_walk import pseudo_label
from cpn.run import load_run, load_weights, select_and_confirm
from cpn.voc import Pack, Split, palette

SCORE_LEVELS = 255
"""CRF scores are kept as uint8: twice the maps of a whole training list have to fit on a disk."""


@dataclass(frozen=True)
class Inputs:
    """What a stage may read."""

    model: Path
    """model.safetensors of the CAM run."""
    config: Config
    """The run's configuration with the later stages' sections."""
    pack: Pack
    cache: Path
    device: torch.device
    folders: dict[str, Path]
    """Output folders of the stages before this one, by name."""

    @property
    def split(self) -> Split:
        """The training list, for which pseudo labels are made."""
        return self.pack.split(self.config.data.train)

    @property
    def classes(self) -> int:
        """C, with background."""
        return len(self.pack.classes) + 1


def make_cams(inputs: Inputs, indices: Sequence[int], out: Path) -> None:
    """Write the maps of the images at `indices` of the training list to `out`/<id>.npz."""
    network, _, _ = load_run(inputs.model)
    network.to(inputs.device)
    split, config = inputs.split, inputs.config
    for index in indices:
        target = out / f"{split.ids[index]}.npz"
        if not target.exists():
            present = present_classes(split.labels[index])
            save_maps(target, multi_scale_maps(network, split.image(index), present, config.cam), present)


def make_crf_scores(inputs: Inputs, indices: Sequence[int], out: Path) -> None:
    """Write the CRF'd scores of both background exponents to `out`/<id>.npz: uint8 (P + 1, H, W), `low` and `high`."""
    split, config = inputs.split, inputs.config.crf
    for index in indices:
        target = out / f"{split.ids[index]}.npz"
        if target.exists():
            continue
        maps, _ = load_maps(inputs.folders["cam"] / target.name)
        image = split.image(index)
        low, high = (crf_scores(image, maps, alpha, config) for alpha in (config.alpha_low, config.alpha_high))
        with whole_file(target) as file:
            np.savez_compressed(file, low=quantised(low), high=quantised(high))


def quantised(scores: np.ndarray) -> np.ndarray:
    """Scores in [0, 1] as uint8."""
    levels: np.ndarray = np.round(np.clip(scores, 0, 1) * SCORE_LEVELS).astype(np.uint8)
    return levels


class ScoredImages:
    """Images of the training list with their CRF scores, as AffinityNet reads them."""

    def __init__(self, split: Split, folder: Path) -> None:
        self.split, self.folder = split, folder

    def __len__(self) -> int:
        return len(self.split)

    def image(self, index: int, /) -> np.ndarray:
        """RGB, uint8 (H, W, 3)."""
        return self.split.image(index)

    def scores(self, index: int, /) -> tuple[np.ndarray, np.ndarray]:
        """Scores of alpha_low and alpha_high in all C classes, background first: two float32 (C, H, W)."""
        present = present_classes(self.split.labels[index])
        rows = np.concatenate([[0], present])
        with np.load(self.folder / f"{self.split.ids[index]}.npz", allow_pickle=False) as file:
            parts = [file["low"], file["high"]]
        full = []
        for part in parts:
            scores = np.zeros((self.split.labels.shape[1] + 1, *part.shape[1:]), np.float32)
            scores[rows] = part.astype(np.float32) / SCORE_LEVELS
            full.append(scores)
        return full[0], full[1]


def make_affinity(inputs: Inputs, out: Path, report: Report) -> dict[str, float]:
    """Train AffinityNet from the pretrained backbone and write `out`/model.safetensors."""
    config = inputs.config
    torch.manual_seed(config.train.seed)
    network = AffinityNet(pretrained_backbone(inputs), config.affinity.widths)
    source = ScoredImages(inputs.split, inputs.folders["crf"])
    history = train_affinity(
        network,
        source,
        config.affinity,
        config.data,
        seed=config.train.seed,
        device=inputs.device,
        report=report,
        folder=out / "checkpoints",
        bf16=config.train.precision == "bf16",
    )
    save_model(out / "model.safetensors", network, {"kind": "affinity", **stage_metadata(inputs)})
    return {"loss_total": history[-1]["loss_total"]}


def make_pseudo_labels(inputs: Inputs, indices: Sequence[int], out: Path) -> None:
    """Walk the maps of the images at `indices` and write the pseudo labels to `out`/<id>.png in VOC colours."""
    config, split = inputs.config, inputs.split
    network = AffinityNet(build_backbone(config.network.backbone), config.affinity.widths)
    load_model(inputs.folders["affinity"] / "model.safetensors", network)
    network.to(inputs.device).eval()
    once = config.crf.model_copy(update={"iterations": 1})
    for index in indices:
        target = out / f"{split.ids[index]}.png"
        if not target.exists():
            maps, present = load_maps(inputs.folders["cam"] / f"{split.ids[index]}.npz")
            label = pseudo_label(
                split.image(index), maps, present, network, config.random_walk, partial(dense_crf, config=once)
            )
            save_label(target, label)


def score_pseudo_labels(inputs: Inputs, out: Path) -> dict[str, float]:
    """mIoU in percent of the pseudo labels in `out` over the scored list: confirm images, and all of them."""
    scored = inputs.pack.split(inputs.config.data.score)
    rows = []
    for index, name in enumerate(scored.ids):
        truth = scored.mask(index)
        path = out / f"{name}.png"
        if truth is None or not path.exists():
            raise InputError(
                f"{name}: list {scored.name!r} scores it, but it has no "
                f"{'mask' if truth is None else 'pseudo label'}; data.train must hold data.score"
            )
        rows.append(hard_counts(load_label(path), truth, inputs.classes))
    counts = np.stack(rows)
    _, confirm = select_and_confirm(scored.ids, inputs.config.cam)
    return {
        "miou_confirm": 100 * float(miou(counts[confirm].sum(0))),
        "miou_train": 100 * float(miou(counts.sum(0))),
    }


class PseudoLabelled:
    """Images of the training list with the pseudo labels that the random walk wrote, as DeepLab reads them."""

    def __init__(self, split: Split, folder: Path) -> None:
        self.split, self.folder = split, folder

    def __len__(self) -> int:
        return len(self.split)

    def image(self, index: int, /) -> np.ndarray:
        """RGB, uint8 (H, W, 3)."""
        return self.split.image(index)

    def label(self, index: int, /) -> np.ndarray:
        """Class indices, uint8 (H, W)."""
        return load_label(self.folder / f"{self.split.ids[index]}.png")


def make_deeplab(inputs: Inputs, out: Path, report: Report) -> dict[str, float]:
    """Train DeepLab on the pseudo labels, write `out`/model.safetensors and score it once on the validation list.

    Returns mIoU in percent without and with CRF: miou_val, miou_val_crf.
    """
    config = inputs.config
    torch.manual_seed(config.train.seed)
    network = DeepLab(pretrained_backbone(inputs), inputs.classes, config.deeplab)
    train_deeplab(
        network,
        PseudoLabelled(inputs.split, inputs.folders["random_walk"]),
        config.deeplab,
        config.data,
        seed=config.train.seed,
        device=inputs.device,
        report=report,
        folder=out / "checkpoints",
        bf16=config.train.precision == "bf16",
    )
    network.eval()
    save_model(out / "model.safetensors", network, {"kind": "deeplab", **stage_metadata(inputs)})
    plain, refined = evaluate(network, inputs.pack.split(config.data.val), config.deeplab)
    return {"miou_val": 100 * float(miou(plain.sum(0))), "miou_val_crf": 100 * float(miou(refined.sum(0)))}


def load_deeplab(model: Path) -> tuple[DeepLab, Config, tuple[str, ...]]:
    """A trained DeepLab in eval mode, its configuration and foreground classes. InputError for another checkpoint."""
    metadata = read_metadata(model)
    if metadata.get("kind") != "deeplab":
        raise InputError(f"{model}: a checkpoint of kind {metadata.get('kind')!r}, not of a segmentation network")
    config = config_from(metadata["config"], str(model))
    network = DeepLab(build_backbone(config.network.backbone), len(metadata["classes"]) + 1, config.deeplab)
    load_model(model, network)
    return network.eval(), config, tuple(metadata["classes"])


def pretrained_backbone(inputs: Inputs) -> nn.Module:
    """A fresh backbone with the pretrained weights that the CAM network started from."""
    backbone = build_backbone(inputs.config.network.backbone)
    load_weights(backbone, inputs.config.network.weights, inputs.cache)
    return backbone


def stage_metadata(inputs: Inputs) -> dict[str, Any]:
    """What the header of a stage's checkpoint says."""
    return {
        "config": inputs.config.model_dump(mode="json"),
        "classes": list(inputs.pack.classes),
        "fingerprint": inputs.pack.fingerprint,
    }


def save_label(path: Path, label: np.ndarray) -> None:
    """Write class indices uint8 (H, W) as a palette PNG in VOC colours, whole or absent."""
    picture = Image.fromarray(label)
    picture.putpalette(palette().tobytes())
    with whole_file(path) as file:
        picture.save(file, "PNG")


def load_label(path: Path) -> np.ndarray:
    """Read what `save_label` wrote."""
    with Image.open(path) as picture:
        return np.array(picture, dtype=np.uint8)


VERSIONS = {"cam": 1, "crf": 1, "affinity": 1, "random_walk": 1, "deeplab": 1}
"""Raised when a stage's results change for the same inputs; part of its key."""

PER_IMAGE = {"cam": make_cams, "crf": make_crf_scores, "random_walk": make_pseudo_labels}
TRAINED = {"affinity": make_affinity, "deeplab": make_deeplab}
"""Each stage is in one of the two: image by image, or one training."""


def stage_keys(model_digest: str, config: Config, fingerprint: str) -> dict[str, str]:
    """The key of every stage: its version, its own settings, and the keys of what it reads.

    So a changed setting makes anew what depends on it and nothing before it.
    """
    dump = config.model_dump(mode="json")
    augmentation = {name: dump["data"][name] for name in ("train", "crop", "jitter", "flip")}
    start = {**dump["network"], "seed": dump["train"]["seed"], "precision": dump["train"]["precision"]}
    split = {name: dump["cam"][name] for name in ("confirm_share", "confirm_seed")}
    keys: dict[str, str] = {}

    def add(stage: str, *inputs: Any) -> None:
        keys[stage] = digest([stage, VERSIONS[stage], *inputs])

    add("cam", model_digest, fingerprint, dump["cam"], dump["data"]["train"])
    add("crf", keys["cam"], dump["crf"])
    add("affinity", keys["crf"], dump["affinity"], augmentation, start)
    add("random_walk", keys["affinity"], dump["random_walk"], dump["data"]["score"], split)
    add("deeplab", keys["random_walk"], dump["deeplab"], augmentation, start, dump["data"]["val"])
    return keys
