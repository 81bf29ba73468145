"""The losses: the released code's numbers and gradients, hand-computed cases, weights and stops of the gradient."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cpn.config.loss import LossConfig
from cpn.models.losses import (
    Branch,
    amp_loss,
    background_score,
    classification_loss,
    cpcr_error,
    cpn_losses,
    hardest_mean,
    keep_peak,
    normalise_cam,
    present_maps,
    ramp_weight,
    tcp_loss,
    with_background,
)

REFERENCE = Path(__file__).parents[2] / "reference" / "cpn_losses.npz"
NAMES = ("cam_o", "ref_o", "cam_h", "ref_h", "cam_hb", "ref_hb")


@pytest.fixture(scope="module")
def stored() -> dict[str, torch.Tensor]:
    with np.load(REFERENCE, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture
def inputs(stored) -> dict[str, torch.Tensor]:
    """The stored maps as fresh leaves, so that each test has its own gradients."""
    return {name: stored[name].clone().requires_grad_() for name in NAMES}


def branches(maps):
    return tuple(Branch(maps[f"cam_{side}"], maps[f"ref_{side}"]) for side in ("o", "h", "hb"))


def official(stored, maps, progress=1.0, **changes):
    return cpn_losses(*branches(maps), stored["labels"], stored["lam"], LossConfig(**changes), progress)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def test_the_official_terms_are_reproduced(stored, inputs):
    losses = official(stored, inputs)
    close(losses["cls"] + losses["amp"], stored["loss_cls_plus_rvmin"])
    close(losses["tcp"], stored["loss_tcp"])
    close(losses["tcp_refined"], stored["loss_tcp_improved"])
    close(losses["tcp"] + losses["tcp_refined"], stored["loss_tcp_all"])
    close(losses["cpcr"], stored["loss_cpcr"])
    close(losses["total"], stored["loss"])


@pytest.mark.parametrize(("side", "number"), [("o", "0"), ("h", "1"), ("hb", "2")])
def test_the_official_classification_and_amp_of_each_branch(stored, side, number):
    close(classification_loss(stored[f"cam_{side}"], stored["labels"]), stored[f"loss_cls{number}"])
    amp = stored["loss_rvmin" + number.replace("0", "")]
    close(amp_loss(stored[f"ref_{side}"][:, 1:], stored["labels"]), amp)


def test_the_official_maps_errors_and_both_lines_of_eq_15(stored):
    lam, config = stored["lam"].float(), LossConfig()
    shares = {"o": torch.ones(3), "h": lam, "hb": 1 - lam}
    final = {
        f"{kind}_{side}": with_background(
            present_maps(stored[f"{kind}_{side}"][:, 1:], stored["labels"], config), share
        )
        for side, share in shares.items()
        for kind in ("cam", "ref")
    }
    for side, number in (("o", ""), ("h", "1"), ("hb", "2")):
        close(final[f"cam_{side}"], stored[f"final_cam{number}"])
        close(final[f"ref_{side}"], stored[f"final_cam_improved{number}"])
    for number, part, refined in (("1", "cam_h", "ref_hb"), ("2", "cam_hb", "ref_h")):
        error = cpcr_error(final["cam_o"], final[part], final[refined])
        close(error, stored[f"cpcr_elem{number}"])
        close(hardest_mean(error, 0.2), stored[f"loss_cpcr{number}_ohem"])


@pytest.mark.parametrize("name", NAMES)
def test_the_official_gradients_are_reproduced(stored, inputs, name):
    official(stored, inputs)["total"].backward()
    close(inputs[name].grad, stored[f"grad_total_{name}"])


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        ("loss_tcp", ("tcp",)),
        ("loss_tcp_improved", ("tcp_refined",)),
        ("loss_cpcr", ("cpcr",)),
        ("loss_cls", ("cls", "amp")),
    ],
)
def test_gradients_stop_where_the_official_ones_stop(stored, inputs, term, parts):
    losses = official(stored, inputs)
    gradients = torch.autograd.grad(sum(losses[part] for part in parts), list(inputs.values()), allow_unused=True)
    reached = {n: g is not None and bool(g.any()) for n, g in zip(inputs, gradients, strict=True)}
    assert reached == {name: bool(stored[f"hasgrad_{term}_{name}"]) for name in NAMES}


def one(*rows):
    """One image: each argument is a class map given as nested rows."""
    return torch.tensor([rows], dtype=torch.float64)


def test_classification_by_hand():
    cam = one([[5.0, 5.0], [5.0, 5.0]], [[1.0, -1.0], [2.0, -2.0]], [[4.0, 0.0], [0.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    # Averages 0 and 1; -log(sigmoid(0)) = log 2, -log(1 - sigmoid(1)) = log(1 + e).
    assert float(classification_loss(cam, labels)) == pytest.approx((np.log(2) + np.log(1 + np.e)) / 2)


def test_amp_takes_the_smallest_quarter_of_the_best_class():
    absent = [[9.0, 9.0, 9.0, 9.0], [9.0, 9.0, 9.0, 9.0]]
    refined = one(absent, [[0.5, 0.9, 0.8, -1.0], [0.7, 0.6, 0.4, 0.95]], absent)
    labels = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    # The best of the present class and 0 for the absent one: the lowest two are 0 (from -1) and .4.
    assert float(amp_loss(refined[:, 1:], labels)) == pytest.approx((0.0 + 0.4) / 2)


def test_amp_takes_no_credit_for_negative_scores():
    refined = one([[9.0, 9.0], [9.0, 9.0]], [[-3.0, 1.0], [1.0, 1.0]])
    assert float(amp_loss(refined[:, 1:], torch.ones(1, 1, dtype=torch.float64))) == 0


def test_normalisation_by_hand():
    cam = one([[1.0, 3.0], [2.0, -5.0]], [[1.0, 3.0], [2.0, 1.0]], [[-1.0, -1.0], [-1.0, -1.0]])
    low_high = one([[1 / 3, 1.0], [2 / 3, 0.0]], [[0.0, 1.0], [0.5, 0.0]], [[0.0, 0.0], [0.0, 0.0]])
    high = one([[1 / 3, 1.0], [2 / 3, 0.0]], [[1 / 3, 1.0], [2 / 3, 1 / 3]], [[0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(normalise_cam(cam), low_high, rtol=0, atol=3e-5)
    torch.testing.assert_close(normalise_cam(cam, "max"), high, rtol=0, atol=3e-5)


def test_background_by_hand():
    foreground = one([[0.5, 0.0], [1.0, 0.2]], [[0.25, 0.0], [0.0, 0.6]])
    half = torch.tensor([0.5], dtype=torch.float64)
    torch.testing.assert_close(background_score(foreground), one([[0.5, 1.0], [0.0, 0.4]]))
    torch.testing.assert_close(with_background(foreground, half)[:, :1], one([[0.75, 1.0], [0.5, 0.7]]))
    before = with_background(foreground, half, "before_lambda")
    torch.testing.assert_close(before, torch.cat([one([[0.25, 0.5], [0.0, 0.2]]), foreground / 2], dim=1))
    squared = with_background(foreground, half, "after_lambda", 2.0)[:, :1]
    torch.testing.assert_close(squared, one([[0.5625, 1.0], [0.25, 0.49]]))


def test_a_background_below_zero_keeps_finite_gradients():
    foreground = one([[0.5, 1.0], [1.7, 0.2]]).requires_grad_()
    background_score(foreground, 0.5).sum().backward()
    assert torch.isfinite(foreground.grad).all()


def test_tcp_by_hand():
    original, hidden, complement = (
        one([[1.0, 0.0], [0.5, 0.5]]),
        one([[0.5, 0.5], [0.0, 0.1]]),
        one([[0.2, 0, 0.5, 0.4]]),
    )
    # |.5+.2-1| + |.5+0-0| + |0+.5-.5| + |.1+.4-.5| over four pixels.
    assert float(tcp_loss(original, hidden, complement.reshape(1, 1, 2, 2))) == pytest.approx(0.8 / 4)


def test_cpcr_error_by_hand():
    original, part = one([[0.0, 0.5]], [[1.0, 0.75]]), one([[0.25, 0.25]], [[0.5, 0.5]])
    refined = one([[0.125, 0.125]], [[0.25, 1.0]])
    # Gaps: background -1/4, 1/4; class 1/2, 1/4. H keeps the class at the first pixel, both (a tie) at the second.
    torch.testing.assert_close(cpcr_error(original, part, refined), one([[0.125, 0.125]], [[0.25, 0.75]]))
    torch.testing.assert_close(cpcr_error(original, part, refined, False), one([[0.375, 0.125]], [[0.25, 0.75]]))


def test_keep_peak_keeps_ties_and_negative_peaks():
    maps = one([[1.0, -0.5]], [[1.0, -0.2]], [[0.5, -0.2]])
    assert keep_peak(maps).tolist() == [[[[1.0, 0.0]], [[1.0, -0.2]], [[0.0, -0.2]]]]


def test_hardest_mean_by_hand():
    error = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]], [[[5.0, 6.0, 7.0, 8.0]]]])
    assert float(hardest_mean(error, 0.25, "image")) == (4 + 8) / 2
    assert float(hardest_mean(error, 0.25, "batch")) == (7 + 8) / 2
    assert float(hardest_mean(error, 0.01)) == (4 + 8) / 2, "at least one error is kept"
    assert float(hardest_mean(error, None)) == float(hardest_mean(error, 1.0)) == 4.5


def test_the_total_is_eq_17_and_amp_counts_as_classification(stored, inputs):
    weights = {"w_cls": 2.0, "w_tcp": 3.0, "w_cpcr": 5.0, "amp_weight": 0.5}
    plain, weighted = official(stored, inputs), official(stored, inputs, **weights)
    expected = 2 * (plain["cls"] + 0.5 * plain["amp"])
    expected = expected + 3 * (plain["tcp"] + plain["tcp_refined"]) + 5 * plain["cpcr"]
    close(weighted["total"].detach(), expected.detach())
    assert all(torch.equal(weighted[name], plain[name]) for name in plain if name != "total"), "terms are unweighted"


@pytest.mark.parametrize(
    ("changes", "skipped"),
    [
        ({"w_cls": 0}, {"cls", "amp"}),
        ({"w_tcp": 0}, {"tcp", "tcp_refined"}),
        ({"w_cpcr": 0}, {"cpcr"}),
        ({"amp_weight": 0}, {"amp"}),
        ({"tcp_refined": False}, {"tcp_refined"}),
        ({"w_tcp": 0, "w_cpcr": 0, "amp_weight": 0}, {"tcp", "tcp_refined", "cpcr", "amp"}),
    ],
    ids=lambda value: str(sorted(value)),  # a set has another order in each process
)
def test_a_zero_weight_skips_its_terms_and_leaves_the_others(stored, inputs, changes, skipped):
    plain, changed = official(stored, inputs), official(stored, inputs, **changes)
    for name in set(plain) - {"total"}:
        assert changed[name].item() == (0 if name in skipped else plain[name].item()), name
        assert changed[name].requires_grad is (name not in skipped), name


def test_refined_losses_off_give_no_gradient_to_refined_maps(stored, inputs):
    official(stored, inputs, w_cpcr=0, amp_weight=0, tcp_refined=False)["total"].backward()
    assert all((inputs[name].grad is None) == name.startswith("ref") for name in NAMES)


def test_the_pair_can_be_detached_in_the_refined_line_too(stored, inputs):
    loss = official(stored, inputs, tcp_refined_detach=True)["tcp_refined"]
    close(loss.detach(), stored["loss_tcp_improved"])
    gradients = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    assert [name for name, g in zip(inputs, gradients, strict=True) if g is not None] == ["ref_o"]


def test_the_ramp_scales_the_regularisers_alone(stored, inputs):
    plain = official(stored, inputs)
    start, half, done, after = (official(stored, inputs, p, ramp=0.4)["total"].item() for p in (0.0, 0.2, 0.4, 0.9))
    base = (plain["cls"] + plain["amp"]).item()
    assert start == pytest.approx(base)
    assert half == pytest.approx((base + plain["total"].item()) / 2)
    assert done == after == pytest.approx(plain["total"].item())
    assert ramp_weight(0.0, 0.0) == 1.0


def test_at_the_start_of_a_ramp_every_map_still_gets_a_gradient(stored, inputs):
    # Distributed training waits for the gradient of each parameter: a term is skipped by its weight, not by the ramp.
    official(stored, inputs, 0.0, ramp=0.4, amp_weight=0)["total"].backward()
    assert all(inputs[name].grad is not None for name in NAMES)


@pytest.mark.parametrize(("present", "one"), [(1, True), (2, True), (3, True), (6, False)])
def test_ohem_is_a_weight_of_five_with_few_classes(present, one):
    """Method.md (e): of 21 classes the top 20 % are 4.2 HW errors, and an image with 3 labels has at most 4 HW above 0.

    So they are the same number with the same gradients as all errors with weight 5; with 6 labels they are less.
    """
    generator = torch.Generator().manual_seed(present)
    maps = [(torch.randn(1, 21, 10, 10, generator=generator) + 0.5).requires_grad_() for _ in range(6)]
    branches = [Branch(maps[i], maps[i + 3]) for i in range(3)]
    labels = torch.zeros(1, 20)
    labels[:, :present] = 1
    found = []
    for settings in (LossConfig(ohem_ratio=0.2, w_cpcr=1), LossConfig(ohem_ratio=None, w_cpcr=5)):
        terms = cpn_losses(*branches, labels, torch.tensor([0.6]), settings)
        found.append([settings.w_cpcr * terms["cpcr"], *torch.autograd.grad(terms["total"], maps[:1] + maps[4:])])
    same = [torch.allclose(a, b, rtol=1e-4, atol=1e-8) for a, b in zip(*found, strict=True)]
    assert all(same) if one else not same[0] and found[0][0] < 0.99 * found[1][0], same


@pytest.mark.parametrize(
    "wrong", [{"w_cls": -1}, {"ohem_ratio": 0}, {"ohem_ratio": 1.5}, {"ramp": 2}, {"alpha": 0}, {"norm": "mean"}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        LossConfig(**wrong)
