"""PCM and PRCM: the released code's numbers, a slow version of the formulas, hand-computed cases, gradients."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from cpn.models import correlation
from cpn.models.correlation import background_and_peak, pcm, prcm, prcm_attention, region_features

REFERENCE = Path(__file__).parents[2] / "reference" / "pcm_prcm.npz"
E = 1e-5


@pytest.fixture(scope="module")
def stored() -> dict[str, torch.Tensor]:
    with np.load(REFERENCE, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def features_and_phi(stored, suffix):
    x = stored["f" + suffix]
    return x, functional.conv2d(x, stored["w_f9"]), partial(functional.conv2d, weight=stored["w_f10"])


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("suffix", ["", "_small"])
def test_the_official_numbers_are_reproduced(stored, suffix):
    cam = stored["cam"]
    x, g, phi = features_and_phi(stored, suffix)
    smoothed, attention = pcm(cam, g), prcm_attention(cam, x, g, phi, False)
    close(smoothed, stored["y_pcm" + suffix])
    close(region_features(cam, x), stored["z" + suffix])
    close(attention, stored["prcm_attention" + suffix])
    close(prcm(cam, x, g, phi, False), stored["prcm_attention" + suffix] * cam)
    close(smoothed + prcm(cam, x, g, phi, False), stored["y_refined" + suffix])


def test_the_paper_form_differs_as_was_measured(stored):
    x, g, phi = features_and_phi(stored, "")
    paper = prcm_attention(stored["cam"], x, g, phi, True)
    assert float((paper - stored["prcm_attention"]).abs().max()) == pytest.approx(0.99, abs=0.005)


def slow_pcm(cam, g):
    """Eq. 9-10 pixel by pixel for one image: (C, HW), (D, HW)."""
    pixels = cam.shape[1]
    unit = [g[:, i] / (np.sqrt((g[:, i] ** 2).sum()) + E) for i in range(pixels)]
    refined = np.zeros_like(cam)
    for j in range(pixels):
        weights = np.array([max(0.0, unit[i] @ unit[j]) for i in range(pixels)])
        refined[:, j] = cam @ weights / (weights.sum() + E)
    return refined


def softmax(row):
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def slow_prcm(cam, x, g, phi, transposed):
    """Eq. 11-12 class by class for one image: (C, HW), (D1, HW), (D, HW), (D, D1)."""
    classes, wide = len(cam), len(g)
    z = np.stack([x @ softmax(cam[c]) for c in range(classes)])
    q = np.maximum(np.stack([phi @ z[c] for c in range(classes)]), 0)
    if not transposed:
        memory = [q[c, d] for d in range(wide) for c in range(classes)]
        q = np.array(memory).reshape(classes, wide)
    return np.stack([cam[c] * softmax(q[c] @ np.maximum(g, 0) / np.sqrt(classes)) for c in range(classes)])


def random_inputs(seed=0, classes=4, height=3, width=5, wide=7, deep=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    cam = torch.rand(2, classes, height, width, generator=generator, dtype=dtype)
    x = torch.randn(2, wide, height, width, generator=generator, dtype=dtype)
    g_weight = torch.randn(deep, wide, 1, 1, generator=generator, dtype=dtype)
    phi_weight = torch.randn(deep, wide, 1, 1, generator=generator, dtype=dtype)
    return cam, x, g_weight, phi_weight


def test_pcm_equals_the_formula_written_out():
    cam, x, g_weight, _ = random_inputs()
    g = functional.conv2d(x, g_weight)
    expected = np.stack([slow_pcm(c.flatten(1).numpy(), f.flatten(1).numpy()) for c, f in zip(cam, g, strict=True)])
    np.testing.assert_allclose(pcm(cam, g).flatten(2).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("block", [1, 4, 7, 512])
def test_blocks_change_neither_sums_nor_gradients(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(correlation, "BLOCK", block)
    torch.manual_seed(0)
    rows = torch.rand(3, 11, dtype=torch.float64, requires_grad=True)
    unit = torch.randn(5, 11, dtype=torch.float64, requires_grad=True)
    expected = rows @ functional.relu(unit.T @ unit)
    torch.testing.assert_close(correlation.weighted_sums(rows, unit), expected)
    assert torch.autograd.gradcheck(correlation.weighted_sums, (rows, unit))
    alone = rows.detach()  # as in training: maps have no gradient
    assert torch.autograd.gradcheck(lambda given: correlation.weighted_sums(alone, given), (unit,))


def test_under_autocast_pcm_multiplies_in_bf16() -> None:
    torch.manual_seed(0)
    cam, features = torch.rand(1, 3, 6, 5), torch.randn(1, 8, 6, 5, requires_grad=True)
    exact = pcm(cam, features)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = pcm(cam, features)
    assert rounded.dtype == torch.bfloat16 and 1e-5 < (rounded.float() - exact).abs().max() < 2e-2
    (of_rounded,) = torch.autograd.grad(rounded.float().square().sum(), features)
    (of_exact,) = torch.autograd.grad(exact.square().sum(), features)
    assert of_rounded.dtype == torch.float32 and (of_rounded - of_exact).norm() < 0.05 * of_exact.norm()


@pytest.mark.parametrize("transposed", [False, True])
def test_prcm_equals_the_formula_written_out(transposed):
    cam, x, g_weight, phi_weight = random_inputs()
    g = functional.conv2d(x, g_weight)
    actual = prcm(cam, x, g, partial(functional.conv2d, weight=phi_weight), transposed)
    for image in range(2):
        arrays = [maps[image].flatten(1).numpy() for maps in (cam, x, g)]
        expected = slow_prcm(*arrays, phi_weight[:, :, 0, 0].numpy(), transposed)
        np.testing.assert_allclose(actual[image].flatten(1).numpy(), expected, rtol=1e-10)


def test_pcm_by_hand_averages_pixels_that_look_alike():
    # Pixels: two along the first axis (their lengths do not matter), one along the second, one opposite to the first.
    features = torch.tensor([[[[1.0, 4.0], [0.0, -2.0]], [[0.0, 0.0], [3.0, 0.0]]]])
    cam = torch.tensor([[[[0.2, 0.6], [0.5, 1.0]]]])
    torch.testing.assert_close(pcm(cam, features), torch.tensor([[[[0.4, 0.4], [0.5, 1.0]]]]), rtol=0, atol=2e-5)


def test_prcm_by_hand():
    # One class, two pixels: Z is the mean of X (softmax of equal scores), Q = Z, S = Q . X, both softmaxes over pixels.
    cam = torch.tensor([[[[1.0, 1.0]]]])
    x = torch.tensor([[[[2.0, 0.0]]]])
    attention = prcm_attention(cam, x, x, lambda z: z, True)
    first = float(np.exp(2.0) / (np.exp(2.0) + 1))
    torch.testing.assert_close(attention, torch.tensor([[[[first, 1 - first]]]]))


def test_pcm_keeps_constants_and_prcm_attention_sums_to_one():
    cam, x, g_weight, phi_weight = random_inputs(seed=3)
    g = functional.conv2d(x, g_weight)
    torch.testing.assert_close(pcm(torch.ones_like(cam), g), torch.ones_like(cam), rtol=0, atol=2e-5)
    attention = prcm_attention(cam, x, g, partial(functional.conv2d, weight=phi_weight), True)
    torch.testing.assert_close(attention.sum(dim=(2, 3)), torch.ones(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_reach_the_features_and_both_embeddings(transposed):
    cam, x, g_weight, phi_weight = random_inputs(classes=3, height=2, width=2, wide=3, deep=4)

    def refined(x, g_weight, phi_weight):
        g = functional.conv2d(x, g_weight)
        return pcm(cam, g) + prcm(cam, x, g, partial(functional.conv2d, weight=phi_weight), transposed)

    leaves = [tensor.requires_grad_() for tensor in (x, g_weight, phi_weight)]
    assert torch.autograd.gradcheck(refined, leaves)
    gradients = torch.autograd.grad(refined(*leaves).square().sum(), leaves)
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients)


def test_background_and_peak_by_hand():
    cam = torch.tensor([[[[9.0, 9.0], [9.0, 9.0]], [[4.0, 2.0], [-1.0, 0.0]], [[0.0, 1.0], [2.0, -3.0]]]])
    expected = torch.tensor([[[[0.0, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]]])
    # Pixel 1: classes tie at one half of their peaks up to 1e-5, the larger one is kept.
    actual = background_and_peak(cam)
    assert {float(actual[0, 1, 0, 1]) > 0, float(actual[0, 2, 0, 1]) > 0} == {True, False}
    actual[0, 1:, 0, 1] = 0
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5)


def test_background_and_peak_keeps_ties_and_stops_the_gradient():
    same = torch.tensor([[1.0, 0.25], [0.5, 0.0]])
    cam = torch.stack([torch.full_like(same, 7.0), same, same])[None].requires_grad_()
    prepared = background_and_peak(cam)
    assert torch.equal(prepared[:, 1], prepared[:, 2])
    assert float(prepared[0, 1, 1, 0]) == pytest.approx(0.5, abs=2e-5)
    assert not prepared.requires_grad
    assert torch.equal(cam.detach()[:, 0], torch.full((1, 2, 2), 7.0)), "the argument is not written into"


@pytest.mark.parametrize("blocks", [3, correlation.COUNTED_BLOCKS], ids=["few", "as many as counted"])
def test_a_count_takes_the_blocks_of_the_computation(blocks: int) -> None:
    unit = torch.empty(1, blocks * correlation.BLOCK, device="meta")
    found = [affinity.shape[1] for _, affinity in correlation.affinity_blocks(unit)]
    assert found == [correlation.BLOCK] * blocks


def test_the_blocks_of_a_count_are_limited() -> None:
    unit = torch.empty(1, 3 * correlation.COUNTED_BLOCKS * correlation.BLOCK + 1, device="meta")
    found = [affinity.shape[1] for _, affinity in correlation.affinity_blocks(unit)]
    assert len(found) <= correlation.COUNTED_BLOCKS and sum(found) == unit.shape[1]
