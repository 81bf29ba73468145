"""Losses of present classes alone against the same losses with every class computed at full size."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from cpn.config.loss import LossConfig
from cpn.models.losses import (
    Branch,
    background_score,
    cpcr_error,
    cpn_losses,
    keep_peak,
    normalise_cam,
    seam_losses,
    with_background,
)
from cpn.models.present import gather_maps, present_of, upsample, upsampled_mean, with_first_channel

PAPER: dict[str, Any] = {
    "amp_weight": 0.0,
    "tcp_refined_detach": True,
    "normalise_refined": False,
    "onehot_target": False,
    "ohem_scope": "batch",
    "background": "before_lambda",
    "norm": "max",
}
SWITCHES: list[dict[str, Any]] = [
    {},
    PAPER,
    {"onehot_target": False},
    {"ohem_ratio": None},
    {"ohem_ratio": 0.6},
    {"ohem_ratio": 0.05, "ohem_scope": "batch"},
    {"background": "before_lambda", "alpha": 2.0},
    {"alpha": 0.5, "norm": "max"},
    {"normalise_refined": False, "amp_weight": 0.3, "ohem_scope": "batch"},
    {"w_cls": 0.0},
    {"w_tcp": 0.0, "tcp_refined": False},
    {"w_cpcr": 0.0, "tcp_refined": False},
]
LOW, FULL, SMALL_LOW, SMALL_FULL = (4, 5), (13, 17), (2, 2), (4, 5)


def dense_hardest(error: Tensor, ratio: float | None, scope: str) -> Tensor:
    if ratio is None:
        return error.mean()
    rows = error.flatten(1) if scope == "image" else error.reshape(1, -1)
    return rows.topk(max(1, int(rows.shape[1] * ratio)), dim=1).values.mean()


def dense_amp(refined: Tensor, labels: Tensor) -> Tensor:
    best = (refined[:, 1:] * labels[:, :, None, None]).amax(dim=1).flatten(1)
    return functional.relu(best.topk(max(1, best.shape[1] // 4), dim=1, largest=False).values).mean()


def dense_maps(maps: Tensor, labels: Tensor, config: LossConfig, refined: bool = False) -> Tensor:
    foreground = maps[:, 1:]
    unscaled = refined and not config.normalise_refined
    foreground = functional.relu(foreground) if unscaled else normalise_cam(foreground, config.norm)
    return foreground * labels[:, :, None, None]


def dense_cls(cam: Tensor, labels: Tensor) -> Tensor:
    return functional.multilabel_soft_margin_loss(cam[:, 1:].mean(dim=(2, 3)), labels)


def dense_cpn(branches: list[Branch], labels: Tensor, lam: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """All classes of maps at full size, as the losses were computed before absent ones were left out."""
    shares = (torch.ones_like(lam), lam, 1 - lam)
    cams = [dense_maps(branch.cam, labels, config) for branch in branches]
    refined = [dense_maps(branch.refined_cam, labels, config, True) for branch in branches]
    a_o, a_h, a_b = (s[:, None, None, None] * maps for s, maps in zip(shares, cams, strict=True))
    b_o, b_h, b_b = (s[:, None, None, None] * maps for s, maps in zip(shares, refined, strict=True))
    tcp = (a_h.detach() + a_b.detach() - a_o).abs().mean()
    pair = (b_h.detach() + b_b.detach()) if config.tcp_refined_detach else b_h + b_b
    tcp_refined = (pair - b_o).abs().mean()
    a_o, a_h, a_b = (with_background(m, s, config.background, config.alpha) for m, s in zip(cams, shares, strict=True))
    _, b_h, b_b = (with_background(m, s, config.background, config.alpha) for m, s in zip(refined, shares, strict=True))
    errors = [cpcr_error(a_o, a_h, b_b, config.onehot_target), cpcr_error(a_o, a_b, b_h, config.onehot_target)]
    return {
        "cls": torch.stack([dense_cls(branch.cam, labels) for branch in branches]).mean(),
        "amp": torch.stack([dense_amp(branch.refined_cam, labels) for branch in branches]).mean(),
        "tcp": tcp,
        "tcp_refined": tcp_refined,
        "cpcr": torch.stack([dense_hardest(e, config.ohem_ratio, config.ohem_scope) for e in errors]).sum(),
    }


def dense_seam(first: Branch, second: Branch, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """SEAM's, likewise."""
    size = (int(second.cam.shape[2]), int(second.cam.shape[3]))
    mask = torch.cat([torch.ones_like(labels[:, :1]), labels], dim=1)[:, :, None, None]
    a1, r1 = (upsample(normalise_cam(maps, config.norm), size) * mask for maps in first)
    a2, r2 = (normalise_cam(maps, config.norm) * mask for maps in second)
    errors = []
    for maps, refined in ((a2[:, 1:], r1), (a1[:, 1:], r2)):
        fixed = maps.detach()
        kept = keep_peak(fixed) if config.onehot_target else fixed
        errors.append((torch.cat([background_score(fixed, config.alpha), kept], dim=1) - refined).abs())
    return {
        "cls": torch.stack([dense_cls(branch.cam, labels) for branch in (first, second)]).mean(),
        "amp": torch.stack([dense_amp(branch.refined_cam, labels) for branch in (first, second)]).mean(),
        "er": (a1 - a2)[:, 1:].abs().mean(),
        "ecr": torch.stack([dense_hardest(e, config.ohem_ratio, config.ohem_scope) for e in errors]).sum(),
    }


def leaves(seed: int, batch: int, classes: int, sizes: list[tuple[int, int]], shift: float) -> list[Tensor]:
    """Raw low maps in float64, around `shift`: below 0 every class map is mostly 0, and ties abound."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(batch, classes, *size, generator=generator, dtype=torch.float64) + shift for size in sizes]
    return [maps.requires_grad_() for maps in made]


def drawn_labels(numbers: list[int], classes: int, seed: int) -> Tensor:
    """One row for each of `numbers`, with that many random classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(len(numbers), classes - 1, dtype=torch.float64)
    for row, number in zip(labels, numbers, strict=True):
        row[torch.randperm(classes - 1, generator=generator)[: min(number, classes - 1)]] = 1
    return labels


def gradients(value: Tensor, maps: list[Tensor]) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in maps]
    return list(torch.autograd.grad(value, maps, retain_graph=True, allow_unused=True, materialize_grads=True))


def check_equal(found: dict[str, Tensor], dense: dict[str, Tensor], skipped: set[str], maps: list[Tensor]) -> None:
    for name in dense.keys() - skipped:
        torch.testing.assert_close(found[name], dense[name], rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
        for one, other in zip(gradients(found[name], maps), gradients(dense[name], maps), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


cases = given(
    numbers=st.lists(st.integers(0, 7), min_size=1, max_size=3),
    classes=st.integers(2, 8),
    seed=st.integers(0, 9999),
    shift=st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0]),
)


@pytest.mark.parametrize("changes", SWITCHES, ids=str)
@settings(max_examples=20, deadline=None)
@cases
def test_cpn_of_present_classes_equals_all_classes(
    changes: dict[str, Any], numbers: list[int], classes: int, seed: int, shift: float
) -> None:
    config = LossConfig(**changes)
    labels = drawn_labels(numbers, classes, seed)
    maps = leaves(seed, len(numbers), classes, [LOW] * 6, shift)
    lam = torch.rand(len(numbers), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low = [Branch(maps[i], maps[i + 3]) for i in range(3)]
    found = cpn_losses(low[0], low[1], low[2], labels, lam, config, 1.0, FULL)
    full = [Branch(upsample(branch.cam, FULL), upsample(branch.refined_cam, FULL)) for branch in low]
    skipped = {"cls", "amp"} if not config.w_cls else set() if config.amp_weight else {"amp"}
    skipped |= set() if config.w_cpcr else {"cpcr"}
    skipped |= set() if config.w_tcp and config.tcp_refined else {"tcp_refined"}
    check_equal(found, dense_cpn(full, labels, lam, config), skipped | (set() if config.w_tcp else {"tcp"}), maps)


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": "max", "alpha": 2.0}, {"onehot_target": False, "ohem_scope": "batch"}, {"ohem_ratio": None}],
    ids=str,
)
@settings(max_examples=20, deadline=None)
@cases
def test_seam_of_present_classes_equals_all_classes(
    changes: dict[str, Any], numbers: list[int], classes: int, seed: int, shift: float
) -> None:
    config = LossConfig(**changes)
    labels = drawn_labels(numbers, classes, seed)
    maps = leaves(seed, len(numbers), classes, [LOW, LOW, SMALL_LOW, SMALL_LOW], shift)
    first, second = Branch(maps[0], maps[1]), Branch(maps[2], maps[3])
    found = seam_losses(first, second, labels, config, 1.0, (FULL, SMALL_FULL))
    full = [Branch(upsample(b.cam, s), upsample(b.refined_cam, s)) for b, s in ((first, FULL), (second, SMALL_FULL))]
    check_equal(found, dense_seam(full[0], full[1], labels, config), set(), maps)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 9999),
    formed=st.sampled_from(["after_lambda", "before_lambda"]),
    alpha=st.sampled_from([0.3, 1.0, 2.0]),
    lam=st.floats(0, 1),
)
def test_the_largest_gap_of_a_target_is_never_negative(seed: int, formed: Any, alpha: float, lam: float) -> None:
    """Else an absent class's 0 would win the one-hot target, and could not be left out of it."""
    original, part = torch.rand(2, 1, 3, 9, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    one, share = torch.ones(1).double(), torch.tensor([lam]).double()
    gap = with_background(original, one, formed, alpha) - with_background(part, share, formed, alpha)
    assert float(gap.amax(dim=1).min()) >= -1e-12


def test_slots_hold_present_classes_then_absent_ones() -> None:
    labels = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    present = present_of(labels)
    assert present.channel[:, 0].tolist() == [2, 3, 1, 1] and present.channel[[0, 3], 1].tolist() == [4, 2]
    assert present.mask.tolist() == [[1, 1], [1, 0], [0, 0], [1, 1]]
    assert present_of(labels[2:3]).channel.shape == (1, 1), "no class at all: one slot that fills up"
    counted = present_of(labels, most=2)
    assert all(torch.equal(one, other) for one, other in zip(counted, present, strict=True))
    maps = torch.arange(5.0)[None, :, None, None].expand(4, 5, 2, 3)
    assert gather_maps(maps, present, (4, 7)).shape == (4, 2, 4, 7)
    assert gather_maps(maps, with_first_channel(present))[0, :, 0, 0].tolist() == [0, 2, 4]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.integers(0, 999))
def test_the_mean_of_an_upsampled_map_is_a_weighted_mean(h: int, w: int, height: int, width: int, seed: int) -> None:
    maps = torch.randn(2, 3, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(upsampled_mean(maps, (height, width)), upsample(maps, (height, width)).mean(dim=(2, 3)))
