"""The method on one image, step by step, with a trained network: what `python -m cpn.explain` shows.

Each step is a picture and a few sentences: how the image is cut, the complementary pair and its CAMs, what PCM and PRCM
make of a CAM, where each loss term finds fault, and what the background score beta decides. Numbers of the paper's
equations are given; the code is the one that trains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cpn.config import Config
from cpn.core.errors import InputError
from cpn.data.patches import complementary_pair, grid_labels, hidden_mask, superpixel_labels
from cpn.data.transforms import normalise
from cpn.models.backbone import maps_of
from cpn.models.correlation import EPSILON, background_and_peak, pcm, prcm, prcm_attention
from cpn.models.losses import Branch, cpcr_error, cpn_losses, per_image, present_maps, with_background
from cpn.models.network import CPN
from cpn.models.present import gather_maps, present_of
from cpn.plots.curves import beta_curve, overlay
from cpn.plots.panel import PanelRow, cam_panel
from cpn.plots.run_pictures import pseudo_mask
from cpn.scoring.cam import multi_scale_maps

Heat = NDArray[np.float32]
"""A map (H, W) in [0, 1]."""
FINER = 4
"""Patches are shown a few times larger and smaller than those that the run was trained with."""
SHARES = (0.1, 0.3, 0.5)
"""p_h that are shown."""
BETAS = (0.2, 0.4, 0.6)
LOST = 124
"""Grey of a hidden pixel in the pictures; in the network it is 0, the mean colour."""


@dataclass(frozen=True)
class Step:
    """One step of the explanation."""

    title: str
    words: str
    picture: bytes
    """PNG."""


@dataclass(frozen=True)
class Explained:
    """An image and what the network makes of it and of its complementary pair."""

    image: NDArray[np.uint8]
    """(H, W, 3) as the network sees it."""
    hidden: NDArray[np.bool_]
    """(H, W): what I_h lacks."""
    lam: float
    """The visible share of I_h."""
    inputs: Tensor
    """(3, 3, H, W): the image, I_h and I_hb, normalised."""
    branches: tuple[Branch, Branch, Branch]
    """Their CAMs and refined CAMs, each (1, C, H, W)."""
    present: list[int]
    """Classes in the image, 1..F, the one that single maps are of first."""
    labels: Tensor
    """(1, F)."""


def explain(
    network: CPN,
    config: Config,
    classes: Sequence[str],
    image: NDArray[np.uint8],
    present: Sequence[int],
    beta: float,
    seed: int = 0,
    curve: dict[str, Any] | None = None,
) -> list[Step]:
    """Return all steps for an image uint8 (H, W, 3) that shows the classes `present`, 1..F; single maps are of the
    first.

    The network must be in eval mode. `curve` is that of the run's manifest, mIoU in percent over beta. Raises
    InputError without a class.
    """
    if not present:
        raise InputError("--labels: names no class; give those that the image shows")
    explained = look(network, config, image, present, len(classes), seed)
    name = classes[present[0] - 1]
    steps = [cut_step(config, image), share_step(config, image, seed), cam_step(explained, config, name)]
    if network.config.pcm or network.config.prcm:
        steps.append(refine_step(network, explained, name))
    steps += [loss_step(explained, config), beta_step(network, config, classes, image, present, beta)]
    return steps if curve is None else [*steps, curve_step(curve, beta)]


@torch.no_grad()
def look(
    network: CPN, config: Config, image: NDArray[np.uint8], present: Sequence[int], classes: int, seed: int
) -> Explained:
    """Show the network the image and one complementary pair of it, drawn from `seed`."""
    hidden, lam = hidden_mask(image, config.patches, np.random.default_rng(seed))
    pixels = torch.from_numpy(image[None].copy()).to(next(network.parameters()).device)
    whole = normalise(pixels, None)
    pair = complementary_pair(whole, torch.from_numpy(hidden[None]).to(whole.device))
    inputs = torch.cat([whole, *pair])
    branch = network(inputs)
    cams, refined = branch.cam.float().split(1), branch.refined_cam.float().split(1)
    labels = torch.zeros(1, classes, device=whole.device)
    labels[0, [index - 1 for index in present]] = 1
    branches = tuple(Branch(cam, maps) for cam, maps in zip(cams, refined, strict=True))
    return Explained(image, hidden, lam, inputs, cast(tuple[Branch, Branch, Branch], branches), list(present), labels)


def cut_step(config: Config, image: NDArray[np.uint8]) -> Step:
    """Return the image cut into superpixels and grid cells of several sizes."""
    S_N, sizes = config.patches.S_N, config.patches.K
    counts = sorted({max(2, S_N // FINER), S_N, S_N * FINER})
    columns = {f"S_N = {n}": outlined(image, superpixel_labels(image, n)) for n in counts}
    height, width = image.shape[:2]
    columns |= {f"K = {size}": outlined(image, grid_labels(height, width, size)) for size in sizes}
    used = f"S_N = {S_N}" if config.patches.kind == "superpixel" else f"one of K = {', '.join(map(str, sizes))}"
    words = (
        "The image is cut into patches: S_N superpixels, whose edges follow colour, or square cells with a side of K "
        f"pixels. This configuration has {config.patches.kind} patches, {used}. Small patches hide parts of an object, "
        "large ones all of it."
    )
    return Step("1. Patches", words, panel("patches", image, columns))


def share_step(config: Config, image: NDArray[np.uint8], seed: int) -> Step:
    """Return what is hidden at several p_h, and the complement."""
    columns: dict[str, NDArray[Any]] = {}
    for share in sorted({*SHARES, config.patches.p_h}):
        patches = config.patches.model_copy(update={"p_h": share, "guard": False})
        hidden, lam = hidden_mask(image, patches, np.random.default_rng(seed))
        columns[f"I_h, p_h = {share:g}, lambda {lam:.2f}"] = without(image, hidden)
        if share == config.patches.p_h:
            columns[f"I_hb, p_h = {share:g}"] = without(image, ~hidden)
    words = (
        "Each patch is hidden with probability p_h. I_h shows what is left, I_hb exactly what I_h hides: together they "
        "hold all of the image, and what I_h's CAM cannot find has to be in I_hb's. lambda is I_h's share of the "
        "pixels: the fewer the patches are, the more of it is chance."
    )
    return Step("2. The complementary pair", words, panel("hidden patches", image, columns))


def cam_step(explained: Explained, config: Config, name: str) -> Step:
    """Return the CAMs of the image, of both parts, and of the two together."""
    original, hidden, complement = (cam_of(branch.cam, explained, config) for branch in explained.branches)
    both = explained.lam * hidden + (1 - explained.lam) * complement
    columns: dict[str, NDArray[Any]] = {
        "I_h": without(explained.image, explained.hidden),
        "I_hb": without(explained.image, ~explained.hidden),
        "CAM of the image": original,
        "CAM of I_h": hidden,
        "CAM of I_hb": complement,
        "both CAMs: lambda I_h + (1 - lambda) I_hb": shown(both),
    }
    words = (
        f"Class activation maps of {name}, each divided by its maximum (Eq. 1). The image's own CAM finds the most "
        "telling part. Where patches are hidden the network has to look for other parts, so that the two maps together "
        "cover more: training pulls the image's CAM towards their sum (Eq. 14)."
    )
    return Step("3. Three CAMs", words, panel(name, explained.image, columns, across=4))


@torch.no_grad()
def refine_step(network: CPN, explained: Explained, name: str) -> Step:
    """Return a CAM before and after PCM and PRCM, and what each of them weighs by."""
    images, index = explained.inputs[:1], explained.present[0]
    stage3, stage4, top = maps_of(network.backbone, images)
    low = network.fc8(top)
    x = network.scaled(network.parts_of_x(images, stage3, stage4))
    features, peak = network.f9(x), background_and_peak(low)
    columns: dict[str, NDArray[Any]] = {"CAM, one score for each cell of the features": shown(peak[0, index])}
    if network.config.pcm:
        unit = features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + EPSILON)
        row, column = np.unravel_index(int(peak[0, index].argmax()), peak.shape[2:])
        alike = torch.relu((unit[0] * unit[0, :, int(row), int(column)][:, None, None]).sum(0))
        columns["PCM: how like the CAM's peak each cell is"] = shown(alike)
        columns["after PCM"] = shown(pcm(peak, features)[0, index])
    if network.config.prcm:
        factor = network.config.prcm_scale if network.config.x_scale == "unit" else 1.0
        prcm_inputs = (peak, factor * x, factor * features, network.f10)
        columns["PRCM: attention of the class"] = shown(
            prcm_attention(*prcm_inputs, transposed=network.config.prcm_transposed)[0, index]
        )
        columns["after PRCM"] = shown(prcm(*prcm_inputs, transposed=network.config.prcm_transposed)[0, index])
    columns["refined CAM"] = shown(torch.relu(explained.branches[0].refined_cam[0, index]))
    words = f"The CAM of {name} is refined by what the features say of each pixel. "
    by_pixel = (
        "PCM gives a pixel the mean score of the pixels like it (Eq. 9-10): parts of an object that look alike get one "
        "score. "
    )
    by_region = "PRCM compares each pixel with the mean feature of the whole region (Eq. 11-12). "
    kinds = {"PCM": (network.config.pcm, by_pixel), "PRCM": (network.config.prcm, by_region)}
    words += "".join(said if there else f"This network has no {kind}. " for kind, (there, said) in kinds.items())
    both = "their sum" if network.config.pcm and network.config.prcm else "its outcome"
    words += f"The refined CAM is {both}, at the image's size; pseudo labels are made of it."
    return Step("4. PCM and PRCM", words, panel(name, explained.image, columns, across=4))


@torch.no_grad()
def loss_step(explained: Explained, config: Config) -> Step:
    """Return where each loss term finds fault, summed over the present classes, and its value."""
    loss, present = config.loss, present_of(explained.labels)
    lam = torch.full((1,), explained.lam, device=explained.labels.device)
    shares = (torch.ones_like(lam), lam, 1 - lam)
    raw = [
        (gather_maps(branch.cam, present), gather_maps(branch.refined_cam, present)) for branch in explained.branches
    ]
    cams = [present_maps(cam, present.mask, loss) for cam, _ in raw]
    refined = [present_maps(maps, present.mask, loss, refined=True) for _, maps in raw]
    a_o, a_h, a_b = (per_image(share) * maps for share, maps in zip(shares, cams, strict=True))
    b_o, b_h, b_b = (per_image(share) * maps for share, maps in zip(shares, refined, strict=True))
    whole, part, rest = (with_background(m, s, loss.background, loss.alpha) for m, s in zip(cams, shares, strict=True))
    _, fine, fine_rest = (
        with_background(m, s, loss.background, loss.alpha) for m, s in zip(refined, shares, strict=True)
    )
    faults = {
        "TCP, on CAMs": ((a_h + a_b - a_o).abs(), "tcp"),
        "TCP, on refined CAMs": ((b_h + b_b - b_o).abs(), "tcp_refined"),
        "CPCR: I_hb's refined CAM": (cpcr_error(whole, part, fine_rest, loss.onehot_target), ""),
        "CPCR: I_h's refined CAM": (cpcr_error(whole, rest, fine, loss.onehot_target), "cpcr"),
    }
    values = cpn_losses(*explained.branches, explained.labels, lam, loss)
    columns = {head: shown(maps[0].sum(0)) for head, (maps, _) in faults.items()}
    notes = {head: f"{key} {float(values[key]):.4f}" for head, (_, key) in faults.items() if key}
    words = (
        f"Bright is where a term pulls. TCP (Eq. 14): the maps of the pair, put together, differ from the image's. "
        "CPCR (Eq. 15): the refined map of one part differs from the gap that the other part leaves in the image's "
        f"CAM; of its pixels only the worst {'all' if loss.ohem_ratio is None else f'{loss.ohem_ratio:.0%}'} count. "
        f"The classification loss, {float(values['cls']):.4f}, has no map: it sees the mean of each CAM alone. In all, "
        f"with their weights (Eq. 17): {float(values['total']):.4f}. Each map is divided by its own maximum."
    )
    picture = panel("where each term pulls", explained.image, columns, notes=notes, scale="difference")
    return Step("5. Loss terms", words, picture)


def beta_step(
    network: CPN, config: Config, classes: Sequence[str], image: NDArray[np.uint8], present: Sequence[int], beta: float
) -> Step:
    """Return the pseudo masks at several beta."""
    indices = np.array(sorted(present), np.int64)
    maps = multi_scale_maps(network, image, indices, config.cam)
    columns: dict[str, NDArray[Any]] = {"maps of all scales": maps.max(axis=0, initial=0).astype(np.float32)}
    notes = {}
    for value in sorted({*BETAS, round(beta, 2)}):
        mask = pseudo_mask(maps, indices, value)
        head = f"beta {value:.2f}" + (" (the run's)" if value == round(beta, 2) else "")
        columns[head], notes[head] = overlay(image, mask), f"object: {np.mean(mask > 0):.0%}"
    words = (
        "A pixel is background where no class scores more than beta, and else of the class that scores most. A small "
        "beta lets objects grow into the background, a large one leaves their most telling parts."
    )
    picture = panel("pseudo masks", image, columns, notes=notes)
    return Step("6. From maps to a mask", words + f" Classes: {', '.join(classes[i - 1] for i in indices)}.", picture)


def curve_step(curve: Mapping[str, Any], beta: float) -> Step:
    """MIoU over beta on many images, as the run's manifest has it."""
    drawn = beta_curve(np.array(curve["beta"]), np.array(curve["miou"]) / 100, beta, "the run's select images")
    words = (
        "On many images: mIoU over beta. The run keeps the beta at the top, which costs no training: the maps are "
        "the same, only the threshold moves."
    )
    return Step("7. The beta of the run", words, drawn)


def panel(
    title: str,
    image: NDArray[np.uint8],
    columns: dict[str, NDArray[Any]],
    across: int | None = None,
    notes: dict[str, str] | None = None,
    scale: str = "class score",
) -> bytes:
    """Draw one row of pictures as PNG, the image first; `scale` is what bright colours mean."""
    return cam_panel([PanelRow(title, image, None, columns, notes=notes or {})], across=across, scale=scale)


def cam_of(maps: Tensor, explained: Explained, config: Config) -> Heat:
    """Return the normalised map of the class that is explained: raw maps (1, C, H, W) -> (H, W)."""
    index = explained.present[0]
    chosen = present_maps(maps[:, index : index + 1], torch.ones(1, 1, device=maps.device), config.loss)
    return cast(Heat, chosen[0, 0].cpu().numpy())


def shown(values: Tensor | Heat) -> Heat:
    """Return a map (H, W) of any scale divided by its maximum."""
    array = values.cpu().numpy() if isinstance(values, Tensor) else values
    return cast(Heat, (array / max(float(array.max()), EPSILON)).clip(0, 1).astype(np.float32))


def without(image: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the image (H, W, 3) with hidden pixels grey."""
    return np.where(hidden[..., None], np.uint8(LOST), image)


def outlined(image: NDArray[np.uint8], labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return the image (H, W, 3) with the borders between its patches (H, W) white."""
    border = np.zeros(labels.shape, bool)
    border[:, 1:] = labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    return np.where(border[..., None], np.uint8(255), image)
