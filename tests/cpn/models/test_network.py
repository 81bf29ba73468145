import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cpn.config.loss import LossConfig
from cpn.config.network import NetworkConfig
from cpn.data.patches import complementary_pair
from cpn.models.correlation import background_and_peak, pcm, prcm
from cpn.models.losses import classification_loss, cpn_losses
from cpn.models.network import CPN, build_network, shared_dropout2d
from cpn.models.present import upsample

REFINING = {"f8_3", "f8_4", "f9", "f10"}
CLASSES = 5
SMALL = {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8}


def make(**values: object) -> CPN:
    """A network with the same weights whatever its switches."""
    torch.manual_seed(0)
    return build_network(NetworkConfig.model_validate({**SMALL, **values}), CLASSES).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 30, 41, generator=torch.Generator().manual_seed(1))


def reached(network: CPN, loss: Tensor) -> set[str]:
    """The parts of the network (first part of the parameters' names) whose weights the loss moves."""
    network.zero_grad()
    loss.backward()
    return {n.split(".")[0] for n, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("views", [1, 3])
def test_workers_drop_the_channels_of_one_batch(world: int, views: int, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.arange(1.0, 1 + views * 6 * 5)[:, None, None, None].expand(-1, 1, 2, 2).reshape(views * 6, 5, 2, 2)
    torch.manual_seed(3)
    whole = functional.dropout2d(maps, 0.4, True).unflatten(0, (views, 6))
    assert 0 < (whole == 0).float().mean() < 1
    for rank in range(world):
        monkeypatch.setattr("cpn.models.network.rank_and_world", lambda rank=rank: (rank, world))
        torch.manual_seed(3)
        mine = maps.unflatten(0, (views, 6))[:, rank::world].flatten(0, 1)
        assert torch.equal(shared_dropout2d(mine, 0.4, True, views).unflatten(0, (views, -1)), whole[:, rank::world])
        assert torch.equal(shared_dropout2d(mine, 0.4, False, views), mine)


def test_losses_on_refined_maps_train_the_refining_layers_alone(images: Tensor) -> None:
    network = make()
    refined = network(images).refined_cam
    weight = torch.randn(refined.shape, generator=torch.Generator().manual_seed(2))
    assert reached(network, (refined * weight).sum()) == REFINING
    for name, parameter in network.named_parameters():
        if name.split(".")[0] not in REFINING:
            assert parameter.grad is None, name


def test_classification_trains_backbone_and_classifier_alone(images: Tensor) -> None:
    network = make()
    labels = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]])
    assert reached(network, classification_loss(network(images).cam, labels)) == {"backbone", "fc8"}
    assert network.fc8.weight.grad is not None
    moved = network.fc8.weight.grad.abs().sum(dim=(1, 2, 3)) > 0
    assert moved.tolist() == [False, True, True, True, True]  # the background channel is not trained
    assert all(network.backbone.get_parameter(f"{s}.0.weight").grad is not None for s in ("stage3", "stage4", "top"))


def test_what_the_backbone_freezes_is_frozen() -> None:
    network = make()
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, p in network.named_parameters() if n.startswith("backbone.") and p.ndim == 1} != set()


@pytest.mark.parametrize(("height", "width"), [(30, 41), (16, 16), (17, 33)])
def test_outputs_have_the_size_of_the_input(height: int, width: int) -> None:
    branch = make()(torch.randn(3, 3, height, width))
    assert branch.cam.shape == branch.refined_cam.shape == (3, CLASSES, height, width)


def test_the_maps_are_the_formulas(images: Tensor) -> None:
    network = make(prcm_transposed=True)
    branch = network(images)
    stage3, stage4, top = network.backbone(images)
    low = functional.conv2d(top, network.fc8.weight)
    assert low.shape[-2:] == (8, 11)
    torch.testing.assert_close(branch.cam, upsample(low, (30, 41)))
    # X: the image at stride resolution, then ReLU of both reduced stages (method.md (c)).
    small = functional.interpolate(images, (8, 11), mode="bilinear", align_corners=True)
    reduced = [
        functional.relu(functional.conv2d(s, f.weight)) for s, f in ((stage3, network.f8_3), (stage4, network.f8_4))
    ]
    x = torch.cat([small, *reduced], dim=1)
    assert x.shape[1] == 3 + 6 + 7
    y0, g = background_and_peak(low), functional.conv2d(x, network.f9.weight)
    expected = pcm(y0, g) + prcm(y0, x, g, network.f10, transposed=True)
    torch.testing.assert_close(branch.refined_cam, upsample(expected, (30, 41)))


def test_the_corners_of_upsampling_are_aligned() -> None:
    maps = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    rows = [[top + across / 4 for across in range(5)] for top in (0, 0.5, 1, 1.5, 2)]
    torch.testing.assert_close(upsample(maps, (5, 5)), torch.tensor([[rows]]))


def test_every_switch_has_its_effect(images: Tensor) -> None:
    both, only_pcm, only_prcm = make(), make(prcm=False), make(pcm=False)
    maps = {name: n(images) for name, n in (("both", both), ("pcm", only_pcm), ("prcm", only_prcm))}
    for branch in maps.values():
        assert torch.equal(branch.cam, maps["both"].cam)
    refined = {name: branch.refined_cam for name, branch in maps.items()}
    torch.testing.assert_close(refined["both"], refined["pcm"] + refined["prcm"])
    assert refined["pcm"].abs().max() > 0 and refined["prcm"].abs().max() > 0
    torch.testing.assert_close(make(average_refined=True)(images).refined_cam, refined["both"] / 2)
    assert torch.equal(make(average_refined=True, prcm=False)(images).refined_cam, refined["pcm"])  # one part alone
    assert not torch.allclose(make(prcm_transposed=True)(images).refined_cam, refined["both"])
    assert torch.equal(make(prcm_transposed=True, prcm=False)(images).refined_cam, refined["pcm"])


def test_without_refinement_the_refined_map_is_the_cam(images: Tensor) -> None:
    branch = make(pcm=False, prcm=False)(images)
    assert torch.equal(branch.refined_cam, branch.cam)
    assert branch.cam.requires_grad and not branch.refined_cam.requires_grad


def test_dropout_acts_in_training_only_and_on_whole_channels(images: Tensor) -> None:
    network = make(dropout=0.5)
    assert torch.equal(network(images).cam, network(images).cam)
    network.train()
    assert not torch.equal(network(images).cam, network(images).cam)
    without = make(dropout=0.0).train()
    assert torch.equal(without(images).cam, network.eval()(images).cam)
    # With only one channel of the top read, dropout makes the map either 0 or twice itself.
    network = make(dropout=0.5)
    network.fc8.weight.data[:, 1:] = 0
    plain = network(images).cam
    network.train()
    factors = set()
    for _ in range(12):
        cam = network(images).cam
        for dropped, kept in zip(cam, plain, strict=True):
            factors.add(0 if not dropped.any() else 2)
            torch.testing.assert_close(dropped, kept * (2 if dropped.any() else 0))
    assert factors == {0, 2}


def test_new_layers_are_all_that_is_not_the_backbone() -> None:
    network = make()
    new = {id(p) for layer in network.new_layers() for p in layer.parameters()}
    assert new == {id(p) for n, p in network.named_parameters() if not n.startswith("backbone.")}
    shapes = {n: tuple(p.shape) for n, p in network.named_parameters() if not n.startswith("backbone.")}
    assert shapes == {
        "fc8.weight": (CLASSES, 96, 1, 1),
        "f8_3.weight": (6, 32, 1, 1),
        "f8_4.weight": (7, 64, 1, 1),
        "f9.weight": (8, 16, 1, 1),
        "f10.weight": (8, 16, 1, 1),
    }
    assert isinstance(network.f9, nn.Conv2d)


def test_initial_weights_have_the_spread_of_the_method() -> None:
    torch.manual_seed(0)
    wide = {"backbone": "scene", "stage3_channels": 64, "stage4_channels": 128, "correlation_channels": 192}
    network = build_network(NetworkConfig.model_validate(wide), 21)
    xavier = {"fc8": (6 / (96 + 21)) ** 0.5, "f9": 4 * (6 / (195 + 192)) ** 0.5, "f10": 4 * (6 / (195 + 192)) ** 0.5}
    for name, bound in xavier.items():
        largest = float(network.get_submodule(name).weight.detach().abs().max())
        assert 0.98 * bound < largest <= bound, name
    for name, inputs in (("f8_3", 32), ("f8_4", 64)):
        spread = float(network.get_submodule(name).weight.detach().std())
        assert spread == pytest.approx((2 / inputs) ** 0.5, rel=0.1), name


@pytest.mark.parametrize("values", [{}, {"prcm_transposed": True}, {"pcm": False}, {"average_refined": True}], ids=str)
def test_an_empty_image_has_finite_gradients(values: dict[str, object]) -> None:
    """lambda 0: I_h is 0 everywhere, and with it every feature; nothing divides by a norm, a peak or a sum of 0."""
    network = make(**values)
    branch = network(torch.zeros(1, 3, 24, 24))
    assert not branch.cam.any() and torch.isfinite(branch.refined_cam).all()
    # Y0 is background everywhere and features are 0: PCM's columns sum to 0, PRCM's attention is even over 36 cells.
    even = 1 / 36 / (2 if network.config.average_refined else 1)
    torch.testing.assert_close(branch.refined_cam[:, 0], torch.full((1, 24, 24), even))
    assert not branch.refined_cam[:, 1:].any()
    (branch.cam.square().sum() + branch.refined_cam.square().sum()).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("lam", [0.0, 1.0])
@pytest.mark.parametrize("changes", [{}, {"norm": "max", "background": "before_lambda", "alpha": 0.5}], ids=str)
def test_a_pair_of_everything_and_nothing_trains(images: Tensor, lam: float, changes: dict[str, object]) -> None:
    """The released code lets lambda be 0 or 1: the losses of the whole network and their gradients stay finite."""
    network = make()
    hidden = torch.full((2, 30, 41), lam == 0)
    pair = complementary_pair(images, hidden)
    assert [bool(part.any()) for part in pair] == [lam == 1, lam == 0]
    branches = [network(part) for part in (images, *pair)]
    labels = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]])
    losses = cpn_losses(*branches, labels, torch.full((2,), lam), LossConfig.model_validate(changes))
    assert all(torch.isfinite(value) for value in losses.values())
    # The whole image and one of the pair are alike, the other one adds nothing (method.md (e), consequence 5).
    torch.testing.assert_close(losses["tcp"], torch.zeros(()), rtol=0, atol=1e-6)
    losses["total"].backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())) == parameter.requires_grad, (
            name
        )


def with_larger_maps(network: CPN, factor: float) -> None:
    """Multiply stage 3 and 4 as another backbone might give them; the CAM stays."""
    plain = network.backbone.forward
    network.backbone.forward = (
        lambda images: (  # type: ignore[method-assign]
            *(factor * stage for stage in plain(images)[:2]),
            plain(images)[2],
        )
    )


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_unit_scale_removes_the_size_of_the_maps(images: Tensor, factor: float) -> None:
    usual, other = (make(x_scale="unit", prcm_transposed=True) for _ in range(2))
    with_larger_maps(other, factor)
    for network in (usual, other):
        network.measure_x([images, images + 1])
    torch.testing.assert_close(other.x_rms[1:], factor * usual.x_rms[1:])
    torch.testing.assert_close(other(images).refined_cam, usual(images).refined_cam)
    released = make(prcm_transposed=True)
    before = released(images).refined_cam
    with_larger_maps(released, factor)
    assert (released(images).refined_cam - before).abs().max() > 1e-3


def test_parts_of_x_have_the_stated_size(images: Tensor) -> None:
    network = make(x_scale="unit", x_image=0.25)
    network.measure_x([images])
    stage3, stage4, _ = network.backbone(images)
    x = network.scaled(network.parts_of_x(images, stage3, stage4))
    sizes = [float(part.detach().square().mean().sqrt()) for part in x.split([3, 6, 7], dim=1)]
    assert sizes == pytest.approx([0.25, 1.0, 1.0], rel=1e-5)
    assert "x_rms" in network.state_dict() and "x_rms" not in make().state_dict()


def test_prcm_scale_is_the_scale_of_x_in_prcm_alone(images: Tensor) -> None:
    network = make(x_scale="unit", prcm_scale=0.3, prcm_transposed=True)
    network.measure_x([images])
    stage3, stage4, top = network.backbone(images)
    low = network.fc8(top)
    x = network.scaled(network.parts_of_x(images, stage3, stage4))
    y0 = background_and_peak(low)
    expected = pcm(y0, network.f9(x)) + prcm(y0, 0.3 * x, network.f9(0.3 * x), network.f10, transposed=True)
    torch.testing.assert_close(network.refine(images, low, stage3, stage4), expected)
