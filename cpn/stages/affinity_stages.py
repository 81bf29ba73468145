"""AffinityNet's stages between CAMs and pseudo labels: scores to learn from, the network, the walk."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cpn.config import Config
from cpn.config.random_walk import RandomWalkConfig
from cpn.core.checked import reading
from cpn.core.files import whole_file
from cpn.core.run_files import MODEL
from cpn.cost.inference_memory import check_crf, check_walk
from cpn.data.image_memory import SCALE_DOWN, image_of
from cpn.data.map_files import load_maps, present_classes, save_label
from cpn.data.voc import Split
from cpn.models.backbone import build_backbone
from cpn.models.checkpoint import load_model, save_model
from cpn.propagation.affinity import AffinityNet, affinity_job
from cpn.propagation.crf import crf_scores, dense_crf
from cpn.propagation.random_walk import pseudo_label
from cpn.propagation.walk_rule import crf_alphas
from cpn.stages.inputs import Inputs, pretrained_backbone, stage_metadata
from cpn.training.loop import Report
from cpn.training.training_job import fit

SCORE_LEVELS = 255
"""CRF scores are kept as uint8: twice the maps of a whole training list have to fit on a disk."""


def make_crf_scores(inputs: Inputs, indices: Sequence[int], out: Path) -> None:
    """Write the CRF'd scores of both background exponents to `out`/<id>.npz: uint8 (P + 1, H, W), `low` and `high`."""
    split, config = inputs.split, inputs.config.crf
    alphas = crf_alphas(config, inputs.beta)
    left = [index for index in indices if not (out / f"{split.ids[index]}.npz").exists()]
    check_crf(split, left)
    for index in left:
        target = out / f"{split.ids[index]}.npz"
        with image_of(split, index, SCALE_DOWN):
            maps, _ = load_maps(inputs.folders["cam"] / target.name)
            image = split.image(index)
            low, high = (crf_scores(image, maps, alpha, config) for alpha in alphas)
        with whole_file(target) as file:
            np.savez_compressed(file, low=quantised(low), high=quantised(high))


def quantised(scores: np.ndarray) -> np.ndarray:
    """Return the scores in [0, 1] as uint8."""
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
        """Return the scores of alpha_low and alpha_high in all C classes, background first: two float32 (C, H, W)."""
        present = present_classes(self.split.labels[index])
        rows = np.concatenate([[0], present])
        path = self.folder / f"{self.split.ids[index]}.npz"
        with reading(path), open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            parts = [file["low"], file["high"]]
        full = []
        for part in parts:
            scores = np.zeros((self.split.labels.shape[1] + 1, *part.shape[1:]), np.float32)
            scores[rows] = part.astype(np.float32) / SCORE_LEVELS
            full.append(scores)
        return full[0], full[1]


def train_affinities(inputs: Inputs, out: Path, report: Report) -> dict[str, float]:
    """Train AffinityNet from the pretrained backbone and write `out`/model.safetensors."""
    config = inputs.config
    torch.manual_seed(config.train.seed)
    network = AffinityNet(pretrained_backbone(inputs), config.affinity.widths)
    source = ScoredImages(inputs.split, inputs.folders["crf"])
    job = affinity_job(network, source, config.affinity, config.data, seed=config.train.seed, bf16=inputs.bf16)
    history = fit(job, inputs.training(out, report))
    save_model(out / MODEL, network, {"kind": "affinity", **stage_metadata(inputs)})
    return {"loss_total": history[-1]["loss_total"]}


def affinity_network(config: Config, inputs: Inputs | None = None) -> AffinityNet:
    """AffinityNet over the backbone that the configuration names; trained and ready to walk if `inputs` are given."""
    network = AffinityNet(build_backbone(config.network.backbone), config.affinity.widths)
    if inputs is not None:
        load_model(inputs.folders["affinity"] / MODEL, network)
        network.to(inputs.device).eval()
    return network


def walk_affinities(inputs: Inputs, walk: RandomWalkConfig, indices: Sequence[int], out: Path) -> None:
    """Walk the maps of the images at `indices` and write the pseudo labels to `out`/<id>.png in VOC colours.

    `walk` is the section with its numbers, none of them `auto`.
    """
    config, split = inputs.config, inputs.split
    left = [index for index in indices if not (out / f"{split.ids[index]}.png").exists()]
    if not left:
        return
    check_walk(config, split.subset([split.ids[index] for index in left]), inputs.device)
    network = affinity_network(config, inputs)
    once = config.crf.model_copy(update={"iterations": 1})
    for index in left:
        with image_of(split, index, SCALE_DOWN):
            maps, present = load_maps(inputs.folders["cam"] / f"{split.ids[index]}.npz")
            label = pseudo_label(split.image(index), maps, present, network, walk, partial(dense_crf, config=once))
            save_label(out / f"{split.ids[index]}.png", label)
