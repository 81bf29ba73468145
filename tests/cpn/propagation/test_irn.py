from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cpn.config.crf import CrfConfig
from cpn.config.data import DataConfig
from cpn.config.irn import IrnConfig, LabelCrfConfig
from cpn.core.errors import InputError
from cpn.models.scene_backbone import SceneBackbone
from cpn.propagation.affinity import pair_labels
from cpn.propagation.irn import (
    IrnSamples,
    combine_labels,
    confident_label,
    displacement_loss,
    hard_label_crf,
    head_groups,
    irn_job,
    irn_loss,
)
from cpn.propagation.irn_network import IrnNet
from cpn.propagation.irn_walk import irn_pseudo_label, path_affinities
from cpn.propagation.random_walk import pair_offsets
from cpn.training.loop import TrainingContext
from cpn.training.training_job import fit
from tests.cpn.propagation.test_crf import exact_mean_field, scene
from tests.cpn.training.resumed import resumed_to_the_same_bits

SILENT = TrainingContext(device=torch.device("cpu"), report=lambda _: None)
DATA = DataConfig(workers=0)
WIDE = CrfConfig(sxy_bilateral=4, srgb_bilateral=40)


def changed(**values: object) -> IrnConfig:
    small = {"crop": 32, "radius": 3, "batch_size": 3, "epochs": 1, "displacement": False}
    return IrnConfig.model_validate({**small, **values})


class Discs:
    """Bright discs on dark noise; labels know their middle and the far ground, and ignore a ring."""

    def __init__(self, count: int = 6, size: int = 40) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def distance(self, index: int) -> NDArray[np.float64]:
        rows, columns = np.mgrid[: self.size, : self.size]
        return np.hypot(rows - 18 - index, columns - 22 + index)

    def image(self, index: int, /) -> NDArray[np.uint8]:
        image = np.random.default_rng(index).integers(0, 60, (self.size, self.size, 3))
        image[self.distance(index) < 12] += 180
        return image.astype(np.uint8)

    def label(self, index: int, /) -> NDArray[np.uint8]:
        far = self.distance(index)
        return np.where(far < 10, 3, np.where(far < 14, 255, 0)).astype(np.uint8)


def test_the_truth_table_of_labels() -> None:
    strict = np.array([[3, 3, 0, 0, 3]], np.uint8)
    loose = np.array([[3, 0, 0, 3, 5]], np.uint8)
    before = strict.copy()
    combined = combine_labels(strict, loose)
    assert combined.tolist() == [[3, 3, 0, 255, 3]] and combined.dtype == np.uint8
    assert np.array_equal(strict, before)


def test_the_crf_of_labels_agrees_with_the_exact_mean_field() -> None:
    image, scores = scene()
    label = scores.argmax(axis=0)
    believed = np.where(label == np.arange(3)[:, None, None], 0.7, 0.15).astype(np.float32)
    refined = hard_label_crf(image, label, 3, 0.7, WIDE)
    exact = exact_mean_field(image, believed, WIDE).argmax(axis=0)
    assert (refined == exact).mean() >= 0.975 and (refined != label).mean() > 0.05
    assert refined.dtype == np.uint8
    still = hard_label_crf(image, label, 3, 0.7, WIDE.model_copy(update={"w_gaussian": 0.0, "w_bilateral": 0.0}))
    assert np.array_equal(still, label)


def test_each_pixel_believes_its_label_and_the_others_equally(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[NDArray[np.float32]] = []
    monkeypatch.setattr(
        "cpn.propagation.irn.dense_crf", lambda image, believed, config: seen.append(believed) or believed
    )
    label = np.array([[0, 2], [1, 3]])
    refined = hard_label_crf(np.zeros((2, 2, 3), np.uint8), label, 4, 0.7, WIDE)
    assert np.array_equal(refined, label)
    expected = np.where(label == np.arange(4)[:, None, None], 0.7, 0.1)
    np.testing.assert_allclose(seen[0], expected, rtol=1e-6)


def test_a_sure_label_is_harder_to_move() -> None:
    image, scores = scene()
    label = scores.argmax(axis=0)
    weak = WIDE.model_copy(update={"w_gaussian": 0.5, "w_bilateral": 2.0})
    moved = [(hard_label_crf(image, label, 3, p, weak) != label).mean() for p in (0.4, 0.7, 0.99999)]
    assert moved[0] > moved[1] > moved[2]


def test_confident_labels_without_a_crf_are_thresholds() -> None:
    """The CRF is weighted 0 here, so that every pixel keeps the label it brings."""
    config = IrnConfig(crf=LabelCrfConfig(w_gaussian=0, w_bilateral=0))
    maps = np.array([[[0.0, 0.04, 0.05, 0.06, 0.3, 0.31, 0.5]], [[0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.6]]], np.float32)
    image = np.zeros((1, 7, 3), np.uint8)
    label = confident_label(image, maps, np.array([4, 9]), config)
    assert label.tolist() == [[0, 0, 0, 255, 255, 4, 9]] and label.dtype == np.uint8


def test_confident_labels_use_the_crf_once_for_each_score() -> None:
    image, _ = scene()
    maps = np.zeros((1, 14, 17), np.float32)
    maps[0, 3:13, 4:15] = 0.2
    maps[0, 3:10, 4:8] = 0.9
    label = confident_label(image, maps, np.array([6]), IrnConfig(crf=LabelCrfConfig(**WIDE.model_dump())))
    strict = hard_label_crf(image, (maps[0] > 0.3).astype(np.uint8), 2, 0.7, WIDE) * 6
    loose = hard_label_crf(image, (maps[0] > 0.05).astype(np.uint8), 2, 0.7, WIDE) * 6
    assert np.array_equal(label, combine_labels(strict, loose))
    assert set(np.unique(label)) == {0, 6, 255} and (label == 6).sum() > 28, "the box of 35 pixels is filled"


def test_no_class_present_is_all_background() -> None:
    image, _ = scene()
    label = confident_label(image, np.zeros((0, 14, 17), np.float32), np.zeros(0, int), IrnConfig())
    assert label.shape == (14, 17) and not label.any()


def labelled(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label_map = torch.randint(0, 4, (2, 6, 7), generator=generator).to(torch.uint8)
    label_map[label_map == 3] = 255
    logits = torch.randn(2, 6, 7, dtype=torch.float64, generator=generator)
    return logits, torch.randn(2, 2, 6, 7, dtype=torch.float64, generator=generator), label_map


def test_losses_equal_slow_sums() -> None:
    logits, field, label_map = labelled()
    terms = irn_loss(logits.float(), field.float(), label_map, 3)
    affinities = path_affinities(torch.sigmoid(logits), 3)
    sums = {name: [0.0, 0] for name in ("bg", "fg", "neg", "dp_fg", "dp_bg")}

    def add(name: str, value: float) -> None:
        sums[name][0] += value
        sums[name][1] += 1

    for b in range(2):
        n = 0
        for y in range(4):
            for x in range(2, 5):
                for p, (dy, dx) in enumerate(pair_offsets(3).tolist()):
                    one, two = int(label_map[b, y, x]), int(label_map[b, y + dy, x + dx])
                    if 255 in (one, two):
                        continue
                    a = float(affinities[b, p, n])
                    moved = (field[b, :, y, x] - field[b, :, y + dy, x + dx]).numpy()
                    if one != two:
                        add("neg", -np.log(1 - a + 1e-5))
                    elif one == 0:
                        add("bg", -np.log(a + 1e-5))
                        add("dp_bg", np.abs(moved).sum() / 2)
                    else:
                        add("fg", -np.log(a + 1e-5))
                        add("dp_fg", np.abs(moved - (dy, dx)).sum() / 2)
                n += 1
    means = {name: total / count for name, (total, count) in sums.items()}
    assert all(count > 3 for _, count in sums.values())
    names = ("background", "foreground", "negative", "displacement_foreground", "displacement_background")
    for name, short in zip(names, ("bg", "fg", "neg", "dp_fg", "dp_bg"), strict=True):
        assert terms[name].item() == pytest.approx(means[short], rel=1e-4), name
    total = ((means["bg"] + means["fg"]) / 2 + means["neg"]) / 2 + (means["dp_fg"] + means["dp_bg"]) / 2
    assert terms["total"].item() == pytest.approx(total, rel=1e-4)
    without = irn_loss(logits.float(), None, label_map, 3)
    assert set(without) == {"background", "foreground", "negative", "total"}
    assert without["total"].item() == pytest.approx(((means["bg"] + means["fg"]) / 2 + means["neg"]) / 2, rel=1e-4)


@pytest.mark.parametrize("kind", ["foreground", "background", "negative"])
def test_gradients_of_the_edge_losses(kind: str) -> None:
    logits, _, label_map = labelled(1)
    pairs, edges = pair_labels(label_map, 3), torch.sigmoid(logits).requires_grad_()

    def loss(maps: Tensor) -> Tensor:
        affinities = path_affinities(maps, 3)
        error = -torch.log(1 - affinities if kind == "negative" else affinities)
        return (error * getattr(pairs, kind)).sum()

    assert torch.autograd.gradcheck(loss, edges)
    # The released terms move the edges the same way: up for pairs that differ, down for pairs of one kind.
    leaf = logits.float().requires_grad_()
    irn_loss(leaf, None, label_map, 3)[kind].backward()
    assert leaf.grad is not None and leaf.grad.abs().max() > 0
    assert (leaf.grad <= 0).all() if kind == "negative" else (leaf.grad >= 0).all()


@pytest.mark.parametrize("term", [0, 1])
def test_gradients_of_the_displacement_losses(term: int) -> None:
    _, field, label_map = labelled(2)
    pairs = pair_labels(label_map, 3)
    assert torch.autograd.gradcheck(lambda f: displacement_loss(f, pairs, 3)[term], field.requires_grad_())


def test_displacements_that_point_at_the_middle_cost_nothing() -> None:
    rows, columns = (grid.double() for grid in torch.meshgrid(torch.arange(5), torch.arange(6), indexing="ij"))
    field = torch.stack([2 - rows, 3 - columns])[None]
    one_object = pair_labels(torch.full((1, 5, 6), 4, dtype=torch.uint8), 3)
    assert displacement_loss(field, one_object, 3)[0] == 0
    assert displacement_loss(-field, one_object, 3)[0] > 1
    ground = pair_labels(torch.zeros((1, 5, 6), dtype=torch.uint8), 3)
    assert displacement_loss(torch.full_like(field, 7), ground, 3) == (0, 0)
    assert displacement_loss(field, ground, 3)[1] > 1


def test_a_batch_without_labels_costs_nothing() -> None:
    terms = irn_loss(torch.randn(1, 6, 7), torch.randn(1, 2, 6, 7), torch.full((1, 6, 7), 255).to(torch.uint8), 3)
    assert all(value == 0 for value in terms.values())


def test_samples_move_image_and_label_together() -> None:
    source, config = Discs(), changed(crop=48)
    sides = set()
    for epoch in range(8):
        image, valid, label = IrnSamples(source, config, seed=0)[(epoch, 1)]
        assert image.shape == (48, 48, 3) and label.shape == (12, 12) and label.dtype == np.uint8
        corner = image[::4, ::4, 0]
        assert (corner[label == 3] > 120).all() and (label == 3).any()
        # Scaling blurs the disc's rim, which the ignored ring covers.
        assert (corner[(label == 0) & valid[::4, ::4]] < 120).all()
        assert (label[~valid[::4, ::4]] == 255).all()
        sides.add(int(valid.any(1).sum()))
    assert min(sides) < 36 and max(sides) == 48


def test_samples_depend_on_seed_epoch_and_index_alone() -> None:
    first, again = (IrnSamples(Discs(), changed(), seed=5) for _ in range(2))
    again[(0, 1)]
    for one, two in zip(first[(3, 2)], again[(3, 2)], strict=True):
        assert np.array_equal(one, two)
    assert not np.array_equal(first[(0, 0)][0], first[(1, 0)][0])
    assert not np.array_equal(first[(0, 0)][0], IrnSamples(Discs(), changed(), seed=6)[(0, 0)][0])


def tiny(displacement: bool = False) -> IrnNet:
    torch.manual_seed(3)
    return IrnNet(SceneBackbone(), displacement)


def test_groups_are_the_two_heads() -> None:
    network = tiny(displacement=True)
    groups = head_groups(network, IrnConfig())
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 1.0])
    names = {id(p): name for name, p in network.named_parameters()}
    heads = [{names[id(p)].split(".")[0].rstrip("1234567") for p in group["params"]} for group in groups]
    assert heads == [{"fc_edge"}, {"fc_dp"}]
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert len(trained) == sum(len(group["params"]) for group in groups) == 17 + 22
    assert len(head_groups(tiny(), IrnConfig())) == 1


def test_training_finds_the_discs_and_the_walk_stays_in_them() -> None:
    source, network = Discs(), tiny()
    config = changed(epochs=25, optimizer="adamw", lr=0.02, scale=(1.0, 1.0), crop=40)
    backbone = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    reported: list[dict[str, float]] = []
    history = fit(irn_job(network, source, config, DATA, seed=0), replace(SILENT, report=reported.append))
    assert history == reported and len(history) == 25
    assert history[-1]["loss_total"] < 0.6 * history[0]["loss_total"]
    assert all(torch.equal(value, backbone[name]) for name, value in network.backbone.state_dict().items())
    network.eval()
    far, edge = source.distance(0), network.image_edge(source.image(0))
    rim = np.abs(far[2::4, 2::4] - 12) < 3
    assert edge[rim].mean() > 2 * edge[far[2::4, 2::4] > 20].mean()
    maps = (far < 6)[None].astype(np.float32)
    label = irn_pseudo_label(maps, np.array([4]), edge, radius=3, beta=6, logt=4)
    assert (label[far < 10] == 4).mean() > 0.8 > (maps[0] > 0)[far < 10].mean()
    assert (label[far > 17] == 0).mean() > 0.7


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    config = changed(epochs=3, displacement=True)
    whole = resumed_to_the_same_bits(
        lambda: tiny(displacement=True), lambda network: irn_job(network, Discs(), config, DATA, seed=1), tmp_path, 1
    )
    assert not torch.equal(whole.fc_edge6.weight, tiny().fc_edge6.weight)
    assert whole.fc_dp7[4].running_mean.abs().min() > 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (changed(batch_size=7), "irn.batch_size: 7 is more than the 6 images; lower it"),
        (changed(radius=5), "irn.radius: 5 leaves no pair in 8 x 8 cells; lower it"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(config: IrnConfig, words: str) -> None:
    with pytest.raises(InputError) as refused:
        irn_job(tiny(), Discs(), config, DATA, seed=0)
    assert str(refused.value) == words
