"""IRN's stages between CAMs and pseudo labels: confident labels, the network that sees edges, the walk up to them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cpn.config import Config
from cpn.config.irn import IrnConfig
from cpn.core.run_files import MODEL
from cpn.cost.inference_memory import check_crf, check_walk
from cpn.data.image_memory import SCALE_DOWN, image_of
from cpn.data.map_files import load_maps, save_label
from cpn.models.checkpoint import load_model, save_model
from cpn.models.weights import WeightsReport
from cpn.propagation.irn import confident_label, irn_job
from cpn.propagation.irn_network import IrnNet, pyramid_backbone
from cpn.propagation.irn_walk import irn_pseudo_label
from cpn.propagation.walk_rule import power_of
from cpn.run import load_weights
from cpn.stages.inputs import Inputs, LabelledImages, stage_metadata
from cpn.training.loop import Report
from cpn.training.training_job import fit


def irn_network(config: Config) -> IrnNet:
    """IRN's network over the backbone that the configuration names. InputError for one without a pyramid."""
    own = config.irn.backbone
    backbone = pyramid_backbone(own, "irn.backbone") if own else pyramid_backbone(config.network.backbone)
    return IrnNet(backbone, config.irn.displacement)


def irn_weights(config: Config) -> str | None:
    """Return which pretrained weights lie under IRN's heads: those of its own backbone, or of the CAM network's."""
    return config.network.weights if config.irn.backbone is None else config.irn.weights


def check_irn(config: Config, cache: Path) -> WeightsReport | None:
    """Return what the weights file of IRN's own backbone had for it, if IRN is asked for and has one.

    Raises InputError if its backbone has no pyramid, or its weights don't fit.
    """
    if config.random_walk.kind != "irn":
        return None
    report = load_weights(irn_network(config).backbone, irn_weights(config), cache)
    return None if config.irn.backbone is None else report


def irn_maps(inputs: Inputs, maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return un-halved maps (P, H, W) in [0, 1] as IRN reads them: to the power of irn.map_power."""
    return maps ** np.float32(power_of(inputs.config.irn, inputs.beta))


def make_irn_labels(inputs: Inputs, indices: Sequence[int], out: Path) -> None:
    """Write the confident labels of the images at `indices` to `out`/<id>.png: class indices and IGNORE."""
    split = inputs.split
    left = [index for index in indices if not (out / f"{split.ids[index]}.png").exists()]
    check_crf(split, left)
    for index in left:
        name = split.ids[index]
        with image_of(split, index, SCALE_DOWN):
            maps, present = load_maps(inputs.folders["cam"] / f"{name}.npz")
            label = confident_label(split.image(index), irn_maps(inputs, maps), present, inputs.config.irn)
            save_label(out / f"{name}.png", label)


def train_edges(inputs: Inputs, out: Path, report: Report) -> dict[str, float]:
    """Train IRN's heads on the pretrained backbone and write `out`/model.safetensors."""
    config = inputs.config
    torch.manual_seed(config.train.seed)
    network = irn_network(config)
    load_weights(network.backbone, irn_weights(config), inputs.cache)
    source = LabelledImages(inputs.split, inputs.folders["crf"])
    job = irn_job(network, source, config.irn, config.data, seed=config.train.seed, bf16=inputs.bf16)
    history = fit(job, inputs.training(out, report))
    save_model(out / MODEL, network, {"kind": "irn", **stage_metadata(inputs)})
    return {"loss_total": history[-1]["loss_total"]}


def edge_network(inputs: Inputs) -> IrnNet:
    """Return the trained network, ready to walk."""
    network = irn_network(inputs.config)
    load_model(inputs.folders["affinity"] / MODEL, network)
    return network.to(inputs.device).eval()


def irn_label(
    image: NDArray[np.uint8],
    maps: NDArray[np.float32],
    present: NDArray[np.integer],
    network: IrnNet,
    config: IrnConfig,
) -> NDArray[np.uint8]:
    """Return the pseudo label of one image by its edges: uint8 (H, W, 3), un-halved maps (P, H, W) -> uint8 (H, W)."""
    numbers = (config.walk_radius, config.walk_beta, config.walk_logt, config.walk_threshold)
    return irn_pseudo_label(maps, present, network.image_edge(image), *numbers)


def walk_to_edges(inputs: Inputs, indices: Sequence[int], out: Path) -> None:
    """Walk the maps of the images at `indices` up to the edges and write the pseudo labels to `out`/<id>.png."""
    split = inputs.split
    left = [index for index in indices if not (out / f"{split.ids[index]}.png").exists()]
    if not left:
        return
    check_walk(inputs.config, split.subset([split.ids[index] for index in left]), inputs.device)
    network = edge_network(inputs)
    for index in left:
        name = split.ids[index]
        with image_of(split, index, SCALE_DOWN):
            maps, present = load_maps(inputs.folders["cam"] / f"{name}.npz")
            label = irn_label(split.image(index), irn_maps(inputs, maps), present, network, inputs.config.irn)
            save_label(out / f"{name}.png", label)
