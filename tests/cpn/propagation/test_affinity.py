import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cpn.config.affinity import AffinityConfig
from cpn.config.data import DataConfig
from cpn.config.random_walk import RandomWalkConfig
from cpn.core.errors import InputError
from cpn.data.transforms import normalise
from cpn.models.resnet38d import ResNet38
from cpn.propagation.affinity import (
    AffinityNet,
    AffinitySamples,
    PairLabels,
    affinity_job,
    affinity_loss,
    fuse_labels,
    pair_affinities,
    pair_labels,
    pair_offsets,
)
from cpn.propagation.random_walk import pair_indices, pseudo_label
from cpn.training.loop import TrainingContext
from cpn.training.optimizer import parameter_groups
from cpn.training.training_job import fit
from tests.cpn.training.resumed import resumed_to_the_same_bits

SILENT = TrainingContext(device=torch.device("cpu"), report=lambda _: None)
REFERENCE = Path(__file__).parents[2] / "reference"
PLAIN = DataConfig(crop=32, flip=0, jitter=(0, 0, 0, 0), workers=0)


@pytest.fixture(scope="module")
def reference() -> dict[str, NDArray[np.generic]]:
    with np.load(REFERENCE / "affinity_labels.npz", allow_pickle=False) as file:
        return dict(file)


class TinyBackbone(nn.Module):
    """Stride 4, three maps of 4, 5 and 6 channels, a frozen first layer."""

    channels = (4, 5, 6)
    stride = 4

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 4, 1, bias=False)
        self.second = nn.Conv2d(4, 5, 1)
        self.third = nn.Conv2d(5, 6, 1, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stage3 = self.first(images)
        stage4 = torch.relu(self.second(stage3))
        return stage3, stage4, self.third(stage4)

    def frozen_parameters(self) -> list[nn.Parameter]:
        return [self.first.weight]


def tiny_network(seed: int = 0) -> AffinityNet:
    torch.manual_seed(seed)
    return AffinityNet(TinyBackbone(), (3, 3, 4))


class Discs:
    """Bright discs on dark noise with the scores of a CRF that knows their middle and the far ground."""

    def __init__(self, count: int = 6, size: int = 32) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def distance(self, index: int) -> NDArray[np.float64]:
        rows, columns = np.mgrid[: self.size, : self.size]
        return np.hypot(rows - 12 - index, columns - 18 + index)

    def image(self, index: int, /) -> NDArray[np.uint8]:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 60, (self.size, self.size, 3))
        image[self.distance(index) < 9] += 180
        return image.astype(np.uint8)

    def scores(self, index: int, /) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        far = self.distance(index)
        low, high = (np.stack([far >= edge, far < edge]).astype(np.float32) for edge in (7, 11))
        return low, high


def test_offsets_equal_the_reference(reference: dict[str, NDArray[np.generic]]) -> None:
    assert np.array_equal(pair_offsets(5), reference["search_offsets_dy_dx"])
    sources, targets = pair_indices(14, 14, 5)
    assert np.array_equal(sources, reference["indices_from"])
    assert np.array_equal(targets.reshape(-1), reference["indices_to"])


def test_pair_labels_equal_the_reference(reference: dict[str, NDArray[np.generic]]) -> None:
    labels = pair_labels(torch.from_numpy(reference["label_map"])[None], 5)
    for mine, name in zip(labels, ("bg_pos", "fg_pos", "neg"), strict=True):
        assert np.array_equal(mine[0].numpy(), reference[name].astype(bool)), name


def test_pair_labels_equal_a_slow_loop() -> None:
    maps = np.random.default_rng(0).choice([0, 1, 2, 255], (2, 6, 7)).astype(np.uint8)
    labels = pair_labels(torch.from_numpy(maps), 3)
    for b in range(2):
        n = 0
        for y in range(4):
            for x in range(2, 5):
                for p, (dy, dx) in enumerate(pair_offsets(3)):
                    one, two = maps[b, y, x], maps[b, y + dy, x + dx]
                    known = one != 255 and two != 255
                    kinds = [known and one == two == 0, known and one == two != 0, known and one != two]
                    assert [bool(part[b, p, n]) for part in labels] == kinds
                n += 1
        assert n == labels.negative.shape[2]


def test_fused_labels_equal_the_reference(reference: dict[str, NDArray[np.generic]]) -> None:
    low, high = (reference[f"scores_{name}_alpha"].transpose(2, 0, 1) for name in ("low", "high"))
    assert np.array_equal(fuse_labels(low, high), reference["fused_label"])


def test_fused_labels_by_hand() -> None:
    # Columns: sure foreground, sure background, in doubt, without scores.
    low = np.array([[[0.1, 0.9, 0.9, 0.0]], [[0.5, 0.0, 0.3, 0.0]], [[0.7, 0.1, 0.1, 0.0]]])
    high = np.array([[[0.0, 0.8, 0.1, 0.0]], [[0.5, 0.0, 0.3, 0.0]], [[0.7, 0.1, 0.1, 0.0]]])
    before = low.copy()
    assert fuse_labels(low, high).tolist() == [[2, 0, 255, 255]]
    assert np.array_equal(low, before)


def test_loss_and_gradient_equal_the_reference(reference: dict[str, NDArray[np.generic]]) -> None:
    affinities = torch.from_numpy(reference["aff"]).requires_grad_()
    labels = PairLabels(*(torch.from_numpy(reference[name] > 0)[None] for name in ("bg_pos", "fg_pos", "neg")))
    terms = affinity_loss(affinities, labels)
    for mine, name in (
        ("background", "bg_loss"),
        ("foreground", "fg_loss"),
        ("negative", "neg_loss"),
        ("total", "loss"),
    ):
        np.testing.assert_allclose(terms[mine].item(), reference[name], rtol=1e-5)
    terms["total"].backward()
    np.testing.assert_allclose(affinities.grad.numpy(), reference["grad_aff"], rtol=1e-5, atol=1e-9)


def test_loss_gradient_is_right_through_the_features() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = pair_labels(torch.randint(0, 3, (1, 5, 6), generator=generator).to(torch.uint8), 2)
    features = torch.rand(1, 2, 5, 6, dtype=torch.float64, generator=generator)

    def double(maps: Tensor) -> Tensor:
        sources, targets = (torch.from_numpy(i) for i in pair_indices(5, 6, 2))
        flat = maps.flatten(2)
        distance = (flat[:, :, sources][:, :, None] - flat[:, :, targets]).abs().mean(1)
        return affinity_loss(torch.exp(-distance), labels)["total"]

    features.requires_grad_()
    assert torch.autograd.gradcheck(double, features, atol=1e-6)
    # The gather above is the slow form of pair_affinities; both have to send the same gradient to the features.
    (slow,) = torch.autograd.grad(double(features), features)
    (fast,) = torch.autograd.grad(affinity_loss(pair_affinities(features, 2), labels)["total"], features)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-6)


def test_loss_of_a_batch_without_pairs_is_zero() -> None:
    none = torch.zeros(1, 4, 3, dtype=torch.bool)
    terms = affinity_loss(torch.full((1, 4, 3), 1.0), PairLabels(none, none, none))
    assert all(value == 0 for value in terms.values())


def test_loss_falls_when_affinities_are_right() -> None:
    labels = pair_labels(torch.tensor([[[0, 0, 1, 1]] * 4], dtype=torch.uint8), 2)
    together = (labels.background | labels.foreground).float()
    right, wrong = (affinity_loss(a, labels)["total"] for a in (together, 1 - together))
    assert right < 0.001 and wrong > 5


def test_affinities_by_hand() -> None:
    features = torch.zeros(1, 2, 2, 3)
    features[0, 0, 1, 1] = 2.0
    # Source (0, 1), targets (0, 2), (1, 0), (1, 1), (1, 2): only (1, 1) differs, by (2 + 0) / 2.
    np.testing.assert_allclose(pair_affinities(features, 2)[0, :, 0], [1, 1, np.exp(-1), 1], rtol=1e-6)


def test_affinities_equal_a_slow_loop() -> None:
    """exp(-mean |f_i - f_j|) pair by pair in float64, in the order of `pair_indices`."""
    features = torch.randn(2, 7, 6, 9, generator=torch.Generator().manual_seed(0))
    sources, targets = pair_indices(6, 9, 3)
    cells = features.double().flatten(2).numpy()
    for image in range(2):
        expected = [
            [
                np.exp(-np.mean([abs(row[i] - row[j]) for row in cells[image]]))
                for i, j in zip(sources, line, strict=True)
            ]
            for line in targets
        ]
        np.testing.assert_allclose(pair_affinities(features, 3)[image], expected, rtol=1e-6)


def test_forward_equals_the_layers_by_hand() -> None:
    """Method.md (h): an ELU after each reduction, all three joined, 1x1, ELU; nothing is detached."""
    network = tiny_network()
    images = torch.randn(2, 3, 20, 24)
    maps = network.backbone(images)
    weights = (network.f8_3.weight, network.f8_4.weight, network.f8_5.weight)
    joined = torch.cat(
        [elu(torch.einsum("oi,bihw->bohw", w[..., 0, 0], m)) for w, m in zip(weights, maps, strict=True)], 1
    )
    expected = elu(torch.einsum("oi,bihw->bohw", network.f9.weight[..., 0, 0], joined))
    assert joined.shape == (2, 10, 5, 6)
    torch.testing.assert_close(network(images), expected)
    network(images).square().sum().backward()
    assert network.backbone.second.weight.grad is not None and network.backbone.second.weight.grad.any()
    assert network.backbone.first.weight.grad is None, "what the backbone freezes for CPN is frozen here too"


def elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.exp(x) - 1)


def test_initial_weights_have_the_spread_of_the_method() -> None:
    torch.manual_seed(0)
    network = AffinityNet(TinyBackbone(), (64, 128, 256))
    for layer, inputs in ((network.f8_3, 4), (network.f8_4, 5), (network.f8_5, 6)):
        assert float(layer.weight.detach().std()) == pytest.approx((2 / inputs) ** 0.5, rel=0.1)
    bound = 4 * (6 / (448 + 448)) ** 0.5
    assert 0.98 * bound < float(network.f9.weight.detach().abs().max()) <= bound


def test_parameters_on_resnet38_equal_the_reference() -> None:
    layers = json.loads((REFERENCE / "aff_net_layers.json").read_text())
    with torch.device("meta"):
        network = AffinityNet(ResNet38())
    own = {"f8_3", "f8_4", "f8_5", "f9"}
    state = {k: list(v.shape) for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    expected = {(k if k.split(".")[0] in own else f"backbone.{k}"): shape for k, shape in layers["state_dict"]}
    assert state == expected
    assert sum(p.numel() for p in network.parameters()) == layers["n_parameters"]


def test_image_affinities_pad_to_the_stride() -> None:
    network = tiny_network().eval()
    image = np.random.default_rng(0).integers(0, 256, (22, 31, 3)).astype(np.uint8)
    affinities = network.image_affinities(image, 3)
    sources, targets = pair_indices(6, 8, 3)
    assert affinities.shape == targets.shape and affinities.dtype == np.float32
    assert 0 < affinities.min() and affinities.max() <= 1
    # The padding is the mean colour: an image that shows it there has the same affinities.
    images = normalise(torch.from_numpy(image[None]))
    canvas = torch.zeros(1, 3, 24, 32)
    canvas[:, :, :22, :31] = images
    with torch.no_grad():
        np.testing.assert_allclose(affinities, pair_affinities(network(canvas), 3)[0].numpy(), rtol=1e-6)


def test_parameter_groups_carry_the_rates_of_the_method() -> None:
    network = tiny_network()
    config = AffinityConfig(lr=0.01)
    groups = parameter_groups(network, config.lr, config.head_lr_factor, config.weight_decay)
    backbone = network.backbone
    expected = [
        ([backbone.second.weight, backbone.third.weight], 0.01, 5e-4),
        ([backbone.second.bias], 0.02, 0.0),
        ([network.f8_3.weight, network.f8_4.weight, network.f8_5.weight, network.f9.weight], 0.1, 5e-4),
    ]
    assert len(groups) == 3
    for group, (parameters, lr, decay) in zip(groups, expected, strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in parameters]
        assert group["lr"] == pytest.approx(lr) and group.get("weight_decay") == decay


def test_samples_depend_on_seed_epoch_and_index_alone() -> None:
    data = DataConfig(crop=24)
    first, again = (AffinitySamples(Discs(), 24, 4, data, seed=5) for _ in range(2))
    again[(0, 1)]
    for key in ((0, 0), (3, 2)):
        for one, two in zip(first[key], again[key], strict=True):
            assert np.array_equal(one, two)
    assert not np.array_equal(first[(0, 0)][0], first[(1, 0)][0])
    assert not np.array_equal(first[(0, 0)][0], AffinitySamples(Discs(), 24, 4, data, seed=6)[(0, 0)][0])


def test_sample_labels_follow_the_image() -> None:
    source = Discs(size=32)
    samples = AffinitySamples(source, 48, 4, PLAIN.model_copy(update={"flip": 0.5}), seed=0)
    for epoch in range(6):
        image, valid, label = samples[(epoch, 0)]
        assert image.shape == (48, 48, 3) and valid.sum() == 32 * 32 and label.shape == (12, 12)
        bright = image.reshape(12, 4, 12, 4, 3).mean((1, 3, 4))
        covered = valid.reshape(12, 4, 12, 4).mean((1, 3))
        assert (bright[label == 1] > 150).all() and (label == 1).any()
        assert (bright[(label == 0) & (covered == 1)] < 60).all()
        assert (label[covered == 0] == 255).all() and (label[covered == 1] == 255).any()


def test_training_learns_the_discs() -> None:
    source, network = Discs(), tiny_network()
    config = AffinityConfig(epochs=15, batch_size=3, optimizer="adamw", lr=0.01, radius=3)
    frozen = network.backbone.first.weight.clone()
    reported: list[dict[str, float]] = []
    history = fit(affinity_job(network, source, config, PLAIN, seed=0), replace(SILENT, report=reported.append))
    assert history == reported and len(history) == 15
    assert history[-1]["loss_total"] < 0.7 * history[0]["loss_total"]
    assert torch.equal(frozen, network.backbone.first.weight)
    # With these affinities the walk spreads a seed over its disc and not beyond.
    network.eval()
    maps = (source.distance(0) < 5)[None].astype(np.float32) * 0.8 + 0.1
    label = pseudo_label(source.image(0), maps, np.array([4]), network, RandomWalkConfig(radius=3, beta=4, logt=2))
    truth = source.distance(0) < 9
    assert set(np.unique(label)) == {0, 4}
    assert (label[truth] == 4).mean() > (maps[0] > 0.5)[truth].mean()
    assert (label[source.distance(0) > 12] == 0).mean() > 0.95


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    config = AffinityConfig(epochs=3, batch_size=2, radius=2)
    data = DataConfig(crop=24, workers=0)
    whole = resumed_to_the_same_bits(
        lambda: tiny_network(seed=3), lambda network: affinity_job(network, Discs(), config, data, seed=1), tmp_path, 1
    )
    assert not torch.equal(whole.f9.weight, tiny_network(seed=3).f9.weight)


@pytest.mark.parametrize(
    ("config", "key"), [(AffinityConfig(batch_size=7), "batch_size"), (AffinityConfig(batch_size=2), "radius")]
)
def test_impossible_settings_are_refused(config: AffinityConfig, key: str) -> None:
    with pytest.raises(InputError, match=f"affinity.{key}"):
        affinity_job(tiny_network(), Discs(), config, PLAIN, seed=0)
