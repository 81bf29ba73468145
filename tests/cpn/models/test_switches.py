"""Every switch that tells `official` from `paper`, and those of `scenes`: what each does, by number, set by its name.

The formulas themselves are checked in test_losses_formulas.py, test_correlation.py and test_patches.py; here one switch
is turned in a configuration, and what it must change, and by how much, is compared.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from cpn.config import Config, with_values
from cpn.data.patches import hidden_mask
from cpn.models.correlation import prcm_attention
from cpn.models.losses import Branch, cpn_losses, hardest_mean, normalise_cam, present_maps, with_background
from cpn.models.network import CPN, build_network
from cpn.scoring.cam import multi_scale_maps
from cpn.training.optimizer import build_optimizer

LABELS = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
LAM = torch.tensor([0.25, 0.75], dtype=torch.float64)
SMALL = {
    "network.backbone": "scene",
    "network.stage3_channels": 6,
    "network.stage4_channels": 7,
    "network.correlation_channels": 8,
}


def config(**dotted: object) -> Config:
    """The defaults with values changed; `__` stands for the dot."""
    return with_values(Config(), {name.replace("__", "."): value for name, value in dotted.items()}, "test")


def branches(seed: int = 0) -> list[Branch]:
    """Raw maps (2, 4, 5, 6) of the original, the hidden image and its complement."""
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64) + 0.5 for _ in range(6)]
    return [Branch(maps[i], maps[i + 3]) for i in range(3)]


def losses(settings: Config, parts: list[Branch], progress: float = 1.0) -> dict[str, float]:
    found = cpn_losses(parts[0], parts[1], parts[2], LABELS, LAM, settings.loss, progress)
    return {name: float(value) for name, value in found.items()}


def test_amp_weight_adds_exactly_the_amp_term() -> None:
    one, none, half = (losses(config(loss__amp_weight=weight), branches()) for weight in (1, 0, 0.5))
    assert one["amp"] > 0 == none["amp"]
    assert one["total"] - none["total"] == pytest.approx(one["amp"])
    assert half["total"] - none["total"] == pytest.approx(one["amp"] / 2)


def test_onehot_target_moves_the_other_channels_error() -> None:
    """With H all but the largest channel of the target are 0, so that their error is the refined map."""
    parts, plain = branches(), config().loss
    scaled = [
        with_background(present_maps(maps[:, 1:], LABELS, plain), share)
        for maps, share in (
            (parts[0].cam, torch.ones(2).double()),
            (parts[1].cam, LAM),
            (parts[2].refined_cam, 1 - LAM),
        )
    ]
    gap = scaled[0] - scaled[1]
    largest = gap == gap.amax(dim=1, keepdim=True)
    expected = {True: torch.where(largest, gap, 0) - scaled[2], False: gap - scaled[2]}
    second = with_background(present_maps(parts[2].cam[:, 1:], LABELS, plain), 1 - LAM)
    other = with_background(present_maps(parts[1].refined_cam[:, 1:], LABELS, plain), LAM)
    gap = scaled[0] - second
    largest = gap == gap.amax(dim=1, keepdim=True)
    for onehot, error in expected.items():
        rest = (torch.where(largest, gap, 0) if onehot else gap) - other
        found = losses(config(loss__onehot_target=onehot, loss__ohem_ratio=None), parts)["cpcr"]
        assert found == pytest.approx(float(error.abs().mean() + rest.abs().mean()))


def test_ohem_scope_by_hand_on_one_easy_and_one_hard_image() -> None:
    """Errors 0 and 8: of the top half each image gives its own 0 or 8, the whole batch gives 8 alone."""
    error = torch.stack([torch.zeros(3, 2, 2), torch.full((3, 2, 2), 8.0)])
    for scope, expected in (("image", 4.0), ("batch", 8.0)):
        settings = config(loss__ohem_scope=scope, loss__ohem_ratio=0.5).loss
        assert float(hardest_mean(error, settings.ohem_ratio, settings.ohem_scope)) == expected


def test_ohem_is_a_weight_where_few_elements_differ() -> None:
    """Method.md (e): 1 of 3 classes present leaves half of the elements 0: a ratio of .5 keeps all the mass."""
    parts, one_class = branches(), torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).double()
    kept, mean = (
        float(cpn_losses(*parts, one_class, LAM, config(loss__ohem_ratio=ratio).loss)["cpcr"]) for ratio in (0.5, None)
    )
    assert kept == pytest.approx(2 * mean)


@pytest.mark.parametrize(("background", "expected"), [("after_lambda", 0.9), ("before_lambda", 0.15)])
def test_background_is_formed_after_or_before_lambda(background: str, expected: float) -> None:
    """Largest score .4 under a share of .25: 1 - .25 x .4, or .25 x (1 - .4)."""
    settings = config(loss__background=background).loss
    foreground = torch.tensor([0.4, 0.1, 0.0]).reshape(1, 3, 1, 1)
    maps = with_background(foreground, torch.tensor([0.25]), settings.background, settings.alpha)
    assert float(maps[0, 0]) == pytest.approx(expected)
    torch.testing.assert_close(maps[:, 1:], 0.25 * foreground)


@pytest.mark.parametrize(("norm", "expected"), [("min_max", [0.0, 0.5, 1.0]), ("max", [0.5, 0.75, 1.0])])
def test_norm_takes_the_minimum_off_or_leaves_it(norm: str, expected: list[float]) -> None:
    settings = config(loss__norm=norm).loss
    found = normalise_cam(torch.tensor([2.0, 3.0, 4.0]).reshape(1, 1, 1, 3), settings.norm)
    assert found.flatten().tolist() == pytest.approx(expected, abs=2e-5)


def test_alpha_is_the_exponent_of_the_background() -> None:
    for alpha in (1.0, 0.5, 3.0):
        settings = config(loss__alpha=alpha).loss
        maps = with_background(torch.tensor([[[[0.36]]]]), torch.ones(1), settings.background, settings.alpha)
        assert float(maps[0, 0]) == pytest.approx(0.64**alpha)


def test_tcp_refined_is_the_second_line_of_eq_14() -> None:
    on, off = (losses(config(loss__tcp_refined=value), branches()) for value in (True, False))
    assert on["tcp_refined"] > 0 == off["tcp_refined"] and on["tcp"] == off["tcp"]
    assert on["total"] - off["total"] == pytest.approx(on["tcp_refined"])


def test_tcp_refined_detach_stops_the_pair_and_keeps_the_value() -> None:
    for detach in (False, True):
        parts = [Branch(part.cam, part.refined_cam.requires_grad_()) for part in branches()]
        settings = config(loss__tcp_refined_detach=detach).loss
        found = cpn_losses(*parts, LABELS, LAM, settings)["tcp_refined"]
        assert float(found.detach()) == pytest.approx(losses(config(), branches())["tcp_refined"])
        gradients = torch.autograd.grad(found, [part.refined_cam for part in parts], allow_unused=True)
        assert [gradient is not None and bool(gradient.any()) for gradient in gradients] == [
            True,
            not detach,
            not detach,
        ]


def test_without_normalising_the_refined_maps_size_counts() -> None:
    """Without N the second line of Eq. 14 grows with the maps; with N a factor hardly shows."""
    for normalised, factor in ((False, 3.0), (True, 1.0)):
        settings = config(loss__normalise_refined=normalised)
        larger = [Branch(part.cam, 3 * part.refined_cam) for part in branches()]
        one, three = losses(settings, branches())["tcp_refined"], losses(settings, larger)["tcp_refined"]
        assert three == pytest.approx(factor * one, rel=1e-4)


def test_the_ramp_grows_both_regularisers_from_nothing() -> None:
    full = losses(config(), branches())
    for progress, share in ((0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (1.0, 1.0)):
        found = losses(config(loss__ramp=0.4), branches(), progress)
        expected = full["cls"] + full["amp"] + share * (full["tcp"] + full["tcp_refined"] + full["cpcr"])
        assert found["total"] == pytest.approx(expected)


@pytest.mark.parametrize("momentum", [0.0005, 0.9])
def test_sgd_momentum_is_what_a_second_equal_gradient_adds(momentum: float) -> None:
    settings = config(train__sgd_momentum=momentum, train__weight_decay=0.0).train
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = build_optimizer(
        settings.optimizer, [{"params": [weight], "lr": 0.1}], sgd_momentum=settings.sgd_momentum, weight_decay=0.0
    )
    seen = []
    for _ in range(2):
        before = weight.item()
        weight.grad = torch.ones(1)
        optimizer.step()
        seen.append(before - weight.item())
    assert seen == pytest.approx([0.1, 0.1 * (1 + momentum)], rel=1e-4)


@pytest.mark.parametrize(("draw", "visible"), [("with_replacement", 0.607), ("bernoulli", 0.5)])
def test_draw_decides_how_much_superpixels_leave_visible(
    draw: str, visible: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lambda is .607 on average at p_h = .5 with the released draw of 200 superpixels, .5 with Bernoulli's."""
    cells = (np.arange(200, dtype=np.int32)).reshape(10, 20)
    monkeypatch.setattr("cpn.data.patches.superpixel_labels", lambda image, n: cells)
    settings, rng = config(patches__draw=draw).patches, np.random.default_rng(0)
    shares = [hidden_mask(np.zeros((10, 20, 3), np.uint8), settings, rng)[1] for _ in range(400)]
    assert np.mean(shares) == pytest.approx(visible, abs=0.006)


@pytest.mark.parametrize("guard", [False, True])
def test_guard_redraws_what_shows_everything_or_nothing(guard: bool) -> None:
    """One cell in one draw of two: without the guard lambda is 0 or 1 in more than half of the draws."""
    settings, rng = (
        config(patches__kind="grid", patches__K=[8, 16], patches__guard=guard).patches,
        np.random.default_rng(0),
    )
    shares = [hidden_mask(np.zeros((16, 16, 3), np.uint8), settings, rng)[1] for _ in range(200)]
    extreme = np.mean([share in (0, 1) for share in shares])
    # 16: always. 8: four cells alike, 2 of 16 draws.
    assert extreme == (0 if guard else pytest.approx(0.5 + 0.5 / 8, abs=0.08))


def network(**dotted: object) -> CPN:
    torch.manual_seed(0)
    settings = with_values(Config(), {**SMALL, **{k.replace("__", "."): v for k, v in dotted.items()}}, "test")
    return build_network(settings.network, 4).eval()


def test_pcm_prcm_and_average_refined_by_number() -> None:
    images = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    maps = {
        "both": network(),
        "pcm": network(network__prcm=False),
        "prcm": network(network__pcm=False),
        "mean": network(network__average_refined=True),
    }
    refined: dict[str, Tensor] = {name: part(images).refined_cam.detach() for name, part in maps.items()}
    torch.testing.assert_close(refined["both"], refined["pcm"] + refined["prcm"])
    torch.testing.assert_close(refined["mean"], (refined["pcm"] + refined["prcm"]) / 2)
    # PCM averages Y0 with weights that sum to 1: a pixel's background and largest class stay within [0, 1].
    assert 0 <= refined["pcm"].min() and refined["pcm"].max() <= 1 + 1e-5


def test_prcm_transposed_reads_classes_unmixed() -> None:
    """Were phi(Z) the same for every class, the transposed view would give all classes one attention."""
    images = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    cam = torch.full((1, 4, 6, 6), 0.5)  # equal scores: every class gathers the same mean feature
    same = {}
    for transposed in (True, False):
        part = network(network__prcm_transposed=transposed)
        x = 5 * torch.randn(1, 16, 6, 6, generator=torch.Generator().manual_seed(2))
        attention = prcm_attention(cam, x, part.f9(x), part.f10, part.config.prcm_transposed).detach()
        same[transposed] = float((attention - attention[:, :1]).abs().max())
    assert same[True] < 1e-6 < 1e-3 < same[False]
    refined = [network(network__prcm_transposed=value)(images).refined_cam.detach() for value in (True, False)]
    assert not torch.allclose(*refined)


def test_cam_map_reads_the_plain_or_the_refined_map() -> None:
    part, image = network(), np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    maps = {
        kind: multi_scale_maps(part, image, np.array([1, 3]), config(cam__map=kind, cam__scales=[1.0]).cam)
        for kind in ("plain", "refined")
    }
    # Refinement reaches the refined map alone.
    part.f9.weight.data.mul_(-1).add_(0.3)
    again = {
        kind: multi_scale_maps(part, image, np.array([1, 3]), config(cam__map=kind, cam__scales=[1.0]).cam)
        for kind in ("plain", "refined")
    }
    assert np.array_equal(maps["plain"], again["plain"]) and not np.array_equal(maps["refined"], again["refined"])
