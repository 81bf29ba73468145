"""Training losses: L_cls (CPN Eq. 13), L_tcp (14), L_cpcr (15), background (16), L_all (17); and SEAM's for comparison.

Maps are (B, C, H, W), C classes with background first, at input size and in float32 (in bfloat16 the 1e-5 would
vanish); labels (B, F), F = C - 1, are 0 or 1; lam (B,) is the visible share of I_h. The defaults compute what the
released code computes; docstrings say where the paper differs (method.md (e)).

Absent classes have a map of zeros and an error of exactly 0, so only present ones are computed (cpn/models/present.py):
maps (B, K, H, W) below are of all F classes, or of P slots an image with their mask (B, K). Where fewer than all are
given, `classes` says over how many the mean is taken.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from cpn.config.loss import Background, LossConfig, Norm, Scope
from cpn.models.present import gather_maps, present_of, upsample, upsampled_mean, with_first_channel

EPSILON = 1e-5


class Branch(NamedTuple):
    """What the network gives for one image batch: raw maps (B, C, H, W), background first; or before upsampling."""

    cam: Tensor
    refined_cam: Tensor


def classification_loss(cam: Tensor, labels: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """l_cls of CPN Eq. 13: multi-label soft margin on the global average of the raw foreground channels. A scalar.

    cam (B, C, H, W), at another resolution than `size` = (H, W) where that is given; labels (B, F). Mean over
    foreground classes and batch; the background channel is not trained.
    """
    return functional.multilabel_soft_margin_loss(upsampled_mean(cam[:, 1:], size), labels)


def amp_loss(refined: Tensor, mask: Tensor) -> Tensor:
    """Adaptive min pooling: mean of the smallest quarter of each image's best present class, ReLU first. A scalar.

    Raw refined maps (B, K, H, W) of foreground classes, mask (B, K). An absent class's 0 wins over negative scores,
    which the ReLU sets to 0 anyway. A leftover of SEAM in the released code, not in the paper.
    """
    best = (refined * mask[:, :, None, None]).amax(dim=1).flatten(1)
    smallest = best.topk(max(1, best.shape[1] // 4), dim=1, largest=False).values
    return functional.relu(smallest).mean()


def normalise_cam(cam: Tensor, norm: Norm = "min_max") -> Tensor:
    """N(Y): the ReLU of each class map divided by its maximum, (B, K, H, W) -> the same shape in [0, 1).

    `min_max` (released code): ReLU(y - min - e) / (max - min + e); `max` (text under CPN Eq. 16): y / (max + e).
    Gradients flow through minimum and maximum too.
    """
    positive = functional.relu(cam)
    top = positive.amax(dim=(2, 3), keepdim=True)
    if norm == "max":
        return positive / (top + EPSILON)
    low = positive.amin(dim=(2, 3), keepdim=True)
    return functional.relu(positive - low - EPSILON) / (top - low + EPSILON)


def background_score(foreground: Tensor, alpha: float = 1.0) -> Tensor:
    """CPN Eq. 16: (1 - max over classes)^alpha, (B, F, H, W) -> (B, 1, H, W); base >= 1e-5 unless alpha is 1."""
    rest = 1 - foreground.amax(dim=1, keepdim=True)
    # A power of a number at or below 0 has no finite gradient; maps that are not normalised can exceed 1.
    return rest if alpha == 1 else rest.clamp(min=EPSILON) ** alpha


def with_background(
    foreground: Tensor, share: Tensor, formed: Background = "after_lambda", alpha: float = 1.0
) -> Tensor:
    """Scale maps by `share` and put the background first: (B, F, H, W), (B,) -> (B, C, H, W).

    `share` is lam for I_h, 1 - lam for its complement, 1 for the original. `before_lambda` (paper) scales the
    background as well: share (1 - max). `after_lambda` (released code) takes it from the scaled maps: 1 - share max.
    """
    scaled = per_image(share) * foreground
    if formed == "after_lambda":
        return torch.cat([background_score(scaled, alpha), scaled], dim=1)
    return torch.cat([per_image(share) * background_score(foreground, alpha), scaled], dim=1)


def tcp_loss(original: Tensor, hidden: Tensor, complement: Tensor, classes: int | None = None) -> Tensor:
    """Return one line of CPN Eq. 14: mean |hidden + complement - original|, maps (B, K, H, W) scaled by their share. A
    scalar.

    The caller decides where gradients stop. The paper's norm is a sum; the released code takes the mean.
    """
    return mean_over(classes, (hidden + complement - original).abs())


def keep_peak(maps: Tensor) -> Tensor:
    """H: keep the largest class of each pixel, ties too, and set the others to 0: (B, K, H, W) -> the same shape."""
    return torch.where(maps == maps.amax(dim=1, keepdim=True), maps, torch.zeros_like(maps))


def cpcr_error(original: Tensor, part: Tensor, refined: Tensor, onehot_target: bool = True) -> Tensor:
    """Return one line of CPN Eq. 15 before averaging: |H(original - part) - refined|, maps (B, C, H, W) with
    background.

    `part` is the scaled CAM of one of the pair, `refined` the scaled refined CAM of the other (Eq. 15 prints its first
    line without the tilde). Gradients reach `refined` only. H includes the background channel; the paper has no H.

    No absent class is missed by H: where m, the largest class score of the original, is above all of `part`, its gap is
    positive, and elsewhere the background's, with (1 - m)^alpha at least the part's, is not negative.
    """
    target = (original - part).detach()
    if onehot_target:
        target = keep_peak(target)
    return (target - refined).abs()


def hardest_mean(error: Tensor, ratio: float | None, scope: Scope = "image", classes: int | None = None) -> Tensor:
    """OHEM: mean of the largest `ratio` of errors (B, K, H, W) per image or over the batch; None takes all. A scalar.

    Errors are >= 0, and those of classes that are not given are 0: where more are kept than there are, all are. At
    least one error is kept. CPN Sec. 3.4 says batch, the released code takes each image.
    """
    if ratio is None:
        return mean_over(classes, error)
    rows = error.flatten(1) if scope == "image" else error.reshape(1, -1)
    of_all = rows.shape[1] // error.shape[1] * (classes or error.shape[1])
    count = max(1, int(of_all * ratio))
    if count < rows.shape[1]:
        rows = rows.topk(count, dim=1, sorted=False).values
    return rows.sum() / (len(rows) * count)


def cpcr_loss(
    original: Tensor,
    pair: tuple[Tensor, Tensor],
    refined_pair: tuple[Tensor, Tensor],
    config: LossConfig,
    classes: int | None = None,
) -> Tensor:
    """CPN Eq. 15, both lines, from A_o, (A_h, A_hb), (B_h, B_hb): scaled maps (B, K, H, W) with background. A scalar.

    The gap that one of the pair leaves in the original is the target for the refined map of the other. `classes` counts
    the background as well.
    """
    first = cpcr_error(original, pair[0], refined_pair[1], config.onehot_target)
    second = cpcr_error(original, pair[1], refined_pair[0], config.onehot_target)
    ratio, scope = config.ohem_ratio, config.ohem_scope
    return hardest_mean(first, ratio, scope, classes) + hardest_mean(second, ratio, scope, classes)


def ramp_weight(progress: float, ramp: float) -> float:
    """Factor of w_tcp and w_cpcr after the share `progress` of all steps: min(1, progress / ramp), 1 without a ramp."""
    return min(1.0, progress / ramp) if ramp > 0 else 1.0


def cpn_losses(
    original: Branch,
    hidden: Branch,
    complement: Branch,
    labels: Tensor,
    lam: Tensor,
    config: LossConfig,
    progress: float = 1.0,
    size: tuple[int, int] | None = None,
    most_classes: int | None = None,
) -> dict[str, Tensor]:
    """L_all of CPN Eq. 17 and its terms, as scalars: cls, amp, tcp, tcp_refined, cpcr, total.

    total = w_cls (cls + amp_weight amp) + r w_tcp (tcp + tcp_refined) + r w_cpcr cpcr, r = `ramp_weight(progress)` with
    progress in [0, 1]. The terms are given unweighted; one whose configured weight is 0 is not computed and given as 0.
    Maps at a low resolution are losses at `size` = (H, W): those of present classes are upsampled to it first.
    `most_classes` is the largest number that an image shows; None counts it, for which a GPU is waited for.

    Gradients: cls and the first line of Eq. 14 (original branch only) reach the raw CAMs, everything else the refined
    maps; in Eq. 15 only those of the pair.
    """
    branches = (original, hidden, complement)
    zero = original.cam.new_zeros(())
    cls = amp = tcp = tcp_refined = cpcr = zero
    present, classes = present_of(labels, most_classes), labels.shape[1]
    with_amp, with_tcp_refined = config.w_cls * config.amp_weight > 0, config.w_tcp > 0 and config.tcp_refined
    if with_amp or with_tcp_refined or config.w_cpcr > 0:
        raw_refined = [gather_maps(branch.refined_cam, present, size) for branch in branches]
    if config.w_cls > 0:
        cls = torch.stack([classification_loss(branch.cam, labels, size) for branch in branches]).mean()
    if with_amp:
        amp = torch.stack([amp_loss(maps, present.mask) for maps in raw_refined]).mean()

    if config.w_tcp > 0 or config.w_cpcr > 0:
        lam = lam.to(original.cam.dtype)
        shares = (torch.ones_like(lam), lam, 1 - lam)
        raw = [
            gather_maps(maps, present, size) for maps in (original.cam, hidden.cam.detach(), complement.cam.detach())
        ]
        cams = [present_maps(maps, present.mask, config) for maps in raw]
    if with_tcp_refined or config.w_cpcr > 0:
        refined = [present_maps(maps, present.mask, config, refined=True) for maps in raw_refined]
    if config.w_tcp > 0:
        a_o, a_h, a_b = (per_image(share) * maps for share, maps in zip(shares, cams, strict=True))
        tcp = tcp_loss(a_o, a_h, a_b, classes)
    if with_tcp_refined:
        b_o, b_h, b_b = (per_image(share) * maps for share, maps in zip(shares, refined, strict=True))
        if config.tcp_refined_detach:
            b_h, b_b = b_h.detach(), b_b.detach()
        tcp_refined = tcp_loss(b_o, b_h, b_b, classes)
    if config.w_cpcr > 0:
        a_o, a_h, a_b = (
            with_background(maps.detach(), share, config.background, config.alpha)
            for maps, share in zip(cams, shares, strict=True)
        )
        b_h, b_b = (
            with_background(maps, share, config.background, config.alpha)
            for maps, share in zip(refined[1:], shares[1:], strict=True)
        )
        cpcr = cpcr_loss(a_o, (a_h, a_b), (b_h, b_b), config, classes + 1)

    grown = ramp_weight(progress, config.ramp)
    total = config.w_cls * (cls + config.amp_weight * amp)
    total = total + grown * (config.w_tcp * (tcp + tcp_refined) + config.w_cpcr * cpcr)
    return {"cls": cls, "amp": amp, "tcp": tcp, "tcp_refined": tcp_refined, "cpcr": cpcr, "total": total}


def seam_losses(
    first: Branch,
    second: Branch,
    labels: Tensor,
    config: LossConfig,
    progress: float = 1.0,
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None,
    most_classes: int | None = None,
) -> dict[str, Tensor]:
    """SEAM's losses as released, for the comparison rows: scalars cls, amp, er, ecr, total (method.md (e), end).

    `first` (B, C, H, W) comes from the images, `second` (B, C, h, w) from the same images at a smaller scale (.3);
    `sizes` are (H, W) and (h, w) where the maps are at a low resolution. The first maps are normalised, then resized to
    the second's size. er = mean |A1 - A2| over the foreground; ecr compares each image's H(A), detached, with the
    other's refined map. H leaves the background channel alone, and refined maps keep their own background channel.
    w_tcp weighs er, w_cpcr weighs ecr; norm, amp_weight, onehot_target, alpha, OHEM and ramp act as in CPN, the other
    switches have no meaning here. `most_classes` as there.
    """
    branches, both = (first, second), sizes or (None, None)
    zero = first.cam.new_zeros(())
    cls = amp = er = ecr = zero
    present, classes = present_of(labels, most_classes), labels.shape[1]
    with_first = with_first_channel(present)
    if config.w_cls * config.amp_weight > 0 or config.w_cpcr > 0:
        raw = [gather_maps(branch.refined_cam, with_first, size) for branch, size in zip(branches, both, strict=True)]
    if config.w_cls > 0:
        of_each = [classification_loss(branch.cam, labels, size) for branch, size in zip(branches, both, strict=True)]
        cls = torch.stack(of_each).mean()
        if config.amp_weight > 0:
            amp = torch.stack([amp_loss(maps[:, 1:], present.mask) for maps in raw]).mean()

    if config.w_tcp > 0 or config.w_cpcr > 0:
        a1, a2 = (
            normalise_cam(gather_maps(branch.cam, present, size), config.norm)
            for branch, size in zip(branches, both, strict=True)
        )
        smaller = (int(a2.shape[2]), int(a2.shape[3]))
        a1, a2 = (maps * present.mask[:, :, None, None] for maps in (upsample(a1, smaller), a2))
    if config.w_tcp > 0:
        er = mean_over(classes, (a1 - a2).abs())
    if config.w_cpcr > 0:
        r1, r2 = (normalise_cam(maps, config.norm) for maps in raw)
        r1, r2 = (maps * with_first.mask[:, :, None, None] for maps in (upsample(r1, smaller), r2))
        for maps, refined in ((a2, r1), (a1, r2)):
            fixed = maps.detach()
            foreground = keep_peak(fixed) if config.onehot_target else fixed
            target = torch.cat([background_score(fixed, config.alpha), foreground], dim=1)
            ecr = ecr + hardest_mean((target - refined).abs(), config.ohem_ratio, config.ohem_scope, classes + 1)

    grown = ramp_weight(progress, config.ramp)
    total = config.w_cls * (cls + config.amp_weight * amp) + grown * (config.w_tcp * er + config.w_cpcr * ecr)
    return {"cls": cls, "amp": amp, "er": er, "ecr": ecr, "total": total}


def present_maps(raw: Tensor, mask: Tensor, config: LossConfig, *, refined: bool = False) -> Tensor:
    """Normalised maps of raw foreground maps (B, K, H, W), 0 where the mask (B, K) is: -> the same shape."""
    unscaled = refined and not config.normalise_refined
    maps = functional.relu(raw) if unscaled else normalise_cam(raw, config.norm)
    return maps * mask[:, :, None, None]


def mean_over(classes: int | None, values: Tensor) -> Tensor:
    """Return the mean of (B, K, H, W) over `classes` classes (None: K), those that are not given being 0. A scalar."""
    count, gathered, height, width = values.shape
    return values.sum() / (count * (classes or gathered) * height * width)


def per_image(share: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), to scale maps."""
    return share[:, None, None, None]
