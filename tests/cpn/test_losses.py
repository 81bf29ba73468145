"""The losses: the released code's numbers and gradients, a slow version of each formula, and each switch's effect."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional

from cpn.losses import (
    Branch,
    LossConfig,
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
    seam_losses,
    tcp_loss,
    with_background,
)

REFERENCE = Path(__file__).parents[1] / "reference" / "cpn_losses.npz"
NAMES = ("cam_o", "ref_o", "cam_h", "ref_h", "cam_hb", "ref_hb")
E = 1e-5


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


# --- the released code ---------------------------------------------------------------------------------------------


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
    close(amp_loss(stored[f"ref_{side}"], stored["labels"]), amp)


def test_the_official_maps_errors_and_both_lines_of_eq_15(stored):
    lam, config = stored["lam"].float(), LossConfig()
    shares = {"o": torch.ones(3), "h": lam, "hb": 1 - lam}
    final = {
        f"{kind}_{side}": with_background(present_maps(stored[f"{kind}_{side}"], stored["labels"], config), share)
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


# --- the formulas, slowly ------------------------------------------------------------------------------------------


def slow_normalise(row, norm):
    y = np.maximum(row, 0)
    if norm == "max":
        return y / (y.max() + E)
    return np.maximum(y - y.min() - E, 0) / (y.max() - y.min() + E)


def slow_losses(maps, labels, lam, config):
    """Method.md (e) with its switches, image by image, class by class and pixel by pixel, in float64."""
    count, classes, height, width = maps["cam_o"].shape
    pixels = height * width
    flat = {name: values.reshape(count, classes, pixels) for name, values in maps.items()}
    cls = amp = 0.0
    for side in ("o", "h", "hb"):
        for n in range(count):
            for c in range(1, classes):
                score, wanted = flat[f"cam_{side}"][n, c].mean(), labels[n, c - 1]
                chance = 1 / (1 + np.exp(-score))
                cls -= (wanted * np.log(chance) + (1 - wanted) * np.log(1 - chance)) / (classes - 1) / count / 3
            best = [
                max(flat[f"ref_{side}"][n, c, p] * labels[n, c - 1] for c in range(1, classes)) for p in range(pixels)
            ]
            smallest = sorted(best)[: pixels // 4]
            amp += sum(max(0.0, value) for value in smallest) / len(smallest) / count / 3

    done = {}
    for name, values in flat.items():
        share = {"o": np.ones(count), "h": lam, "hb": 1 - lam}[name.split("_")[1]]
        out = np.zeros_like(values)
        for n in range(count):
            for c in range(1, classes):
                raw = name.startswith("ref") and not config.normalise_refined
                row = np.maximum(values[n, c], 0) if raw else slow_normalise(values[n, c], config.norm)
                out[n, c] = row * labels[n, c - 1]
            if config.background == "before_lambda":
                out[n, 0] = (1 - out[n, 1:].max(axis=0)) ** config.alpha
                out[n] *= share[n]
            else:
                out[n, 1:] *= share[n]
                out[n, 0] = (1 - out[n, 1:].max(axis=0)) ** config.alpha
        done[name] = out

    tcp = {}
    for kind in ("cam", "ref"):
        gap = done[f"{kind}_h"] + done[f"{kind}_hb"] - done[f"{kind}_o"]
        tcp[kind] = np.abs(gap[:, 1:]).mean()
    cpcr = 0.0
    for part, refined in (("cam_h", "ref_hb"), ("cam_hb", "ref_h")):
        errors = np.zeros((count, classes, pixels))
        for n in range(count):
            for p in range(pixels):
                target = done["cam_o"][n, :, p] - done[part][n, :, p]
                if config.onehot_target:
                    target = np.where(target == target.max(), target, 0)
                errors[n, :, p] = np.abs(target - done[refined][n, :, p])
        groups = [errors] if config.ohem_ratio is None or config.ohem_scope == "batch" else list(errors)
        ratio = config.ohem_ratio or 1.0
        kept = [sorted(group.ravel(), reverse=True)[: int(group.size * ratio)] for group in groups]
        cpcr += np.mean([np.mean(values) for values in kept])
    return {"cls": cls, "amp": amp, "tcp": tcp["cam"], "tcp_refined": tcp["ref"], "cpcr": cpcr}


def random_case(seed=0, count=2, classes=4, height=4, width=5):
    generator = torch.Generator().manual_seed(seed)
    # Class c lies around c: some maps reach down to 0 and some do not, which is what tells the two norms apart.
    level = torch.arange(classes, dtype=torch.float64)[:, None, None]
    maps = {
        name: level + torch.randn(count, classes, height, width, generator=generator, dtype=torch.float64)
        for name in NAMES
    }
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)[:count, : classes - 1]
    return maps, labels, torch.tensor([0.3, 0.8], dtype=torch.float64)[:count]


SWITCHES = [
    {},
    {"onehot_target": False},
    {"ohem_ratio": None},
    {"ohem_ratio": 0.05},
    {"ohem_scope": "batch"},
    {"background": "before_lambda"},
    {"background": "before_lambda", "alpha": 2.0},
    {"norm": "max"},
    {"alpha": 2.0},
    {"normalise_refined": False, "norm": "max"},
    {"onehot_target": False, "ohem_scope": "batch", "background": "before_lambda", "norm": "max", "amp_weight": 0.0},
]


@pytest.mark.parametrize("changes", SWITCHES, ids=str)
def test_every_switch_equals_the_formula_written_out(changes):
    maps, labels, lam = random_case()
    config = LossConfig(**changes)
    actual = cpn_losses(*branches(maps), labels, lam, config)
    expected = slow_losses({n: m.numpy() for n, m in maps.items()}, labels.numpy(), lam.numpy(), config)
    for name in ("cls", "tcp", "tcp_refined", "cpcr", *(["amp"] if config.amp_weight else [])):
        assert float(actual[name]) == pytest.approx(float(expected[name]), rel=1e-10), name


@pytest.mark.parametrize("changes", [c for c in SWITCHES if c], ids=str)
def test_every_switch_changes_the_total(changes):
    maps, labels, lam = random_case()
    plain, changed = (float(cpn_losses(*branches(maps), labels, lam, LossConfig(**c))["total"]) for c in ({}, changes))
    assert changed != pytest.approx(plain, rel=1e-6)


# --- by hand -------------------------------------------------------------------------------------------------------


def one(*rows):
    """One image: each argument is a class map given as nested rows."""
    return torch.tensor([rows], dtype=torch.float64)


def test_classification_by_hand():
    cam = one([[5.0, 5.0], [5.0, 5.0]], [[1.0, -1.0], [2.0, -2.0]], [[4.0, 0.0], [0.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    # Averages 0 and 1; -log(sigmoid(0)) = log 2, -log(1 - sigmoid(1)) = log(1 + e).
    assert float(classification_loss(cam, labels)) == pytest.approx((np.log(2) + np.log(1 + np.e)) / 2)


def test_amp_by_hand_takes_the_smallest_quarter_of_the_best_present_class():
    absent = [[9.0, 9.0, 9.0, 9.0], [9.0, 9.0, 9.0, 9.0]]
    refined = one(absent, [[0.5, 0.9, 0.8, -1.0], [0.7, 0.6, 0.4, 0.95]], absent)
    labels = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    # The best of the present class and 0 for the absent one: the lowest two are 0 (from -1) and .4.
    assert float(amp_loss(refined, labels)) == pytest.approx((0.0 + 0.4) / 2)


def test_amp_takes_no_credit_for_negative_scores():
    refined = one([[9.0, 9.0], [9.0, 9.0]], [[-3.0, 1.0], [1.0, 1.0]])
    assert float(amp_loss(refined, torch.ones(1, 1, dtype=torch.float64))) == 0


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


# --- weights, switches of the gradient -----------------------------------------------------------------------------


def test_the_total_is_the_weighted_sum_of_eq_17_and_amp_counts_with_classification(stored, inputs):
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
    ids=str,
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


def test_the_ramp_scales_the_regularisers_and_not_the_classification(stored, inputs):
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


def test_equal_maps_at_lambda_one_half_give_zero_tcp():
    maps, labels, _ = random_case()
    same = Branch(maps["cam_o"], maps["ref_o"])
    losses = cpn_losses(same, same, same, labels, torch.tensor([0.5, 0.5]).double(), LossConfig())
    assert float(losses["tcp"]) == pytest.approx(0, abs=1e-12)
    assert float(losses["tcp_refined"]) == pytest.approx(0, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(lam=st.floats(0, 1), seed=st.integers(0, 999))
def test_equal_maps_give_zero_tcp_for_every_lambda(lam, seed):
    maps, labels, _ = random_case(seed)
    same = Branch(maps["cam_o"], maps["ref_o"])
    losses = cpn_losses(same, same, same, labels, torch.tensor([lam, 1 - lam]).double(), LossConfig())
    assert float(losses["tcp"] + losses["tcp_refined"]) == pytest.approx(0, abs=1e-12)
    assert all(np.isfinite(float(value)) for value in losses.values())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), factor=st.floats(1.5, 50))
def test_the_scale_of_raw_maps_hardly_matters_to_the_regularisers(seed, factor):
    maps, labels, lam = random_case(seed)
    larger = {name: values * factor for name, values in maps.items()}
    plain, scaled = (cpn_losses(*branches(m), labels, lam, LossConfig()) for m in (maps, larger))
    for name in ("tcp", "tcp_refined", "cpcr"):
        assert float(scaled[name]) == pytest.approx(float(plain[name]), abs=2e-4)


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_a_branch_without_an_image_stays_finite(lam):
    maps, labels, _ = random_case()
    for name in ("cam_h", "ref_h"):
        maps[name] = torch.zeros_like(maps[name])
    leaves = {name: values.requires_grad_() for name, values in maps.items()}
    losses = cpn_losses(*branches(leaves), labels, torch.tensor([lam, lam]).double(), LossConfig())
    losses["total"].backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves.values())


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": "max", "background": "before_lambda", "alpha": 2.0, "onehot_target": False, "ohem_scope": "batch"}],
    ids=str,
)
def test_gradcheck_where_nothing_is_detached(changes):
    maps, labels, lam = random_case(classes=3, height=2, width=3)
    config = LossConfig(**changes)
    leaves = [maps[name].requires_grad_() for name in NAMES]

    def attached(*values):
        losses = cpn_losses(*branches(dict(zip(NAMES, values, strict=True))), labels, lam, config)
        return losses["cls"], losses["amp"], losses["tcp_refined"]

    assert torch.autograd.gradcheck(attached, leaves)

    def refined_only(*refined):
        values = {**{n: maps[n].detach() for n in NAMES}, "ref_h": refined[0], "ref_hb": refined[1]}
        return cpn_losses(*branches(values), labels, lam, config)["cpcr"]

    assert torch.autograd.gradcheck(refined_only, [leaves[3], leaves[5]])

    def original_only(cam):
        return cpn_losses(*branches({**{n: maps[n].detach() for n in NAMES}, "cam_o": cam}), labels, lam, config)["tcp"]

    assert torch.autograd.gradcheck(original_only, [leaves[0]])


# --- SEAM ----------------------------------------------------------------------------------------------------------


def seam_case(seed=1):
    generator = torch.Generator().manual_seed(seed)
    size = {"generator": generator, "dtype": torch.float64}
    first = Branch(torch.randn(2, 4, 10, 10, **size), torch.randn(2, 4, 10, 10, **size))
    second = Branch(torch.randn(2, 4, 3, 3, **size), torch.randn(2, 4, 3, 3, **size))
    return first, second, random_case()[1]


def test_seam_equals_the_formula_written_out():
    first, second, labels = seam_case()
    losses = seam_losses(first, second, labels, LossConfig())

    def resized(rows):
        tensor = torch.from_numpy(rows)[None, None]
        return functional.interpolate(tensor, (3, 3), mode="bilinear", align_corners=True).numpy().ravel()

    er, ecr = [], []
    for n in range(2):
        mask = np.array([1.0, *labels[n].tolist()])
        a1, r1 = (np.stack([resized(slow_normalise(m.numpy(), "min_max")) for m in maps[n]]) for maps in first)
        a2, r2 = (np.stack([slow_normalise(m.numpy(), "min_max").ravel() for m in maps[n]]) for maps in second)
        a1, r1, a2, r2 = (maps * mask[:, None] for maps in (a1, r1, a2, r2))
        er.append(np.abs(a1[1:] - a2[1:]).mean())
        hard = 0.0
        for maps, refined in ((a1, r2), (a2, r1)):
            target = np.where(maps[1:] == maps[1:].max(axis=0), maps[1:], 0)
            target = np.concatenate([1 - maps[1:].max(axis=0)[None], target])
            errors = sorted(np.abs(target - refined).ravel(), reverse=True)
            hard += np.mean(errors[: int(0.2 * len(errors))])
        ecr.append(hard)
    assert float(losses["er"]) == pytest.approx(np.mean(er), rel=1e-10)
    assert float(losses["ecr"]) == pytest.approx(np.mean(ecr), rel=1e-10)
    cls = (classification_loss(first.cam, labels) + classification_loss(second.cam, labels)) / 2
    amp = (amp_loss(first.refined_cam, labels) + amp_loss(second.refined_cam, labels)) / 2
    torch.testing.assert_close(losses["cls"], cls)
    torch.testing.assert_close(losses["amp"], amp)
    torch.testing.assert_close(losses["total"], cls + amp + losses["er"] + losses["ecr"])


def test_seam_gradients_er_reaches_both_cams_and_ecr_only_refined_maps():
    first, second, labels = seam_case()
    leaves = [maps.requires_grad_() for maps in (*first, *second)]
    losses = seam_losses(first, second, labels, LossConfig())
    for name, expected in (("er", [True, False, True, False]), ("ecr", [False, True, False, True])):
        gradients = torch.autograd.grad(losses[name], leaves, allow_unused=True, retain_graph=True)
        assert [g is not None and bool(g.any()) for g in gradients] == expected
    assert torch.autograd.gradcheck(
        lambda *maps: seam_losses(Branch(*maps[:2]), Branch(*maps[2:]), labels, LossConfig(w_cpcr=0))["total"], leaves
    )


def test_seam_weights_and_skipping():
    first, second, labels = seam_case()
    plain = seam_losses(first, second, labels, LossConfig())
    weighted = seam_losses(first, second, labels, LossConfig(w_cls=2, w_tcp=3, w_cpcr=5, ramp=0.5), progress=0.25)
    expected = 2 * (plain["cls"] + plain["amp"]) + 1.5 * plain["er"] + 2.5 * plain["ecr"]
    torch.testing.assert_close(weighted["total"], expected)
    cls_only = seam_losses(first, second, labels, LossConfig(w_tcp=0, w_cpcr=0, amp_weight=0))
    assert float(cls_only["er"]) == float(cls_only["ecr"]) == float(cls_only["amp"]) == 0
    assert float(cls_only["total"]) == float(plain["cls"])
    plain_target = seam_losses(first, second, labels, LossConfig(onehot_target=False))
    assert float(plain_target["ecr"]) != float(plain["ecr"])


@pytest.mark.parametrize(
    "wrong", [{"w_cls": -1}, {"ohem_ratio": 0}, {"ohem_ratio": 1.5}, {"ramp": 2}, {"alpha": 0}, {"norm": "mean"}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        LossConfig(**wrong)
