"""The losses against their formulas written out in slow float64: CPN with each switch, SEAM, properties, gradcheck."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from cpn.config.loss import LossConfig
from cpn.models.losses import Branch, amp_loss, classification_loss, cpn_losses, seam_losses

NAMES = ("cam_o", "ref_o", "cam_h", "ref_h", "cam_hb", "ref_hb")
E = 1e-5


def branches(maps):
    return tuple(Branch(maps[f"cam_{side}"], maps[f"ref_{side}"]) for side in ("o", "h", "hb"))


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


def test_equal_maps_at_lambda_one_half_give_zero_tcp():
    maps, labels, _ = random_case()
    same = Branch(maps["cam_o"], maps["ref_o"])
    losses = cpn_losses(same, same, same, labels, torch.tensor([0.5, 0.5]).double(), LossConfig())
    assert float(losses["tcp"]) == pytest.approx(0, abs=1e-12)
    assert float(losses["tcp_refined"]) == pytest.approx(0, abs=1e-12)


@settings(max_examples=30)
@given(lam=st.floats(0, 1), seed=st.integers(0, 999))
def test_equal_maps_give_zero_tcp_for_every_lambda(lam, seed):
    maps, labels, _ = random_case(seed)
    same = Branch(maps["cam_o"], maps["ref_o"])
    losses = cpn_losses(same, same, same, labels, torch.tensor([lam, 1 - lam]).double(), LossConfig())
    assert float(losses["tcp"] + losses["tcp_refined"]) == pytest.approx(0, abs=1e-12)
    assert all(np.isfinite(float(value)) for value in losses.values())


@settings(max_examples=20)
@given(seed=st.integers(0, 999), factor=st.floats(1.5, 50))
def test_the_scale_of_raw_maps_hardly_matters(seed, factor):
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
    amp = (amp_loss(first.refined_cam[:, 1:], labels) + amp_loss(second.refined_cam[:, 1:], labels)) / 2
    torch.testing.assert_close(losses["cls"], cls)
    torch.testing.assert_close(losses["amp"], amp)
    torch.testing.assert_close(losses["total"], cls + amp + losses["er"] + losses["ecr"])


def test_er_reaches_both_cams_and_ecr_only_refined_maps():
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
