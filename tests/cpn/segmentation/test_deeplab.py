import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cpn.config.data import DataConfig
from cpn.config.deeplab import DeepLabConfig, SegmentationCrfConfig
from cpn.core.errors import InputError
from cpn.data.transforms import normalise, resize
from cpn.data.voc import Split
from cpn.models.resnet38d import ResNet38
from cpn.scoring.metrics import hard_counts, miou
from cpn.segmentation.deeplab import (
    DeepLab,
    SegmentationSamples,
    augment_pair,
    deeplab_job,
    evaluate,
    jitter_hsv,
    predict,
    predict_logits,
    segmentation_loss,
    truth_of,
)
from cpn.training.loop import TrainingContext
from cpn.training.optimizer import parameter_groups
from cpn.training.training_job import fit
from tests.cpn.training.resumed import resumed_to_the_same_bits

REFERENCE = Path(__file__).parents[2] / "reference"
SILENT = TrainingContext(device=torch.device("cpu"), report=lambda _: None)
TINY = DeepLabConfig(
    width=8, dilation=2, iterations=120, batch_size=3, optimizer="adamw", lr=0.01, head_lr_factor=2, bn_momentum=0.1,
    hsv_jitter=0, scales=(1.0,), scale=(0.9, 1.1), crf=SegmentationCrfConfig(iterations=1, sxy_bilateral=8),
)  # fmt: skip
DATA = DataConfig(crop=32, workers=0)


class TinyBackbone(nn.Module):
    """Stride 4, three maps of 4, 5 and 6 channels; a stem, batch norm with fixed statistics."""

    channels = (4, 5, 6)
    stride = 4

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1, bias=False)
        self.middle = nn.Conv2d(4, 5, 3, 2, 1)
        self.norm = nn.BatchNorm2d(5)
        self.top = nn.Conv2d(5, 6, 1, bias=False)
        for parameter in self.frozen_parameters():
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "TinyBackbone":
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stage3 = torch.relu(self.stem(images))
        stage4 = torch.relu(self.norm(self.middle(stage3)))
        return stage3, stage4, torch.relu(self.top(stage4))

    def frozen_parameters(self) -> list[nn.Parameter]:
        return [self.stem.weight, *self.norm.parameters()]


def tiny(config: DeepLabConfig = TINY, seed: int = 0, classes: int = 3) -> DeepLab:
    torch.manual_seed(seed)
    return DeepLab(TinyBackbone(), classes, config)


def changed(**values: object) -> DeepLabConfig:
    return TINY.model_copy(update=values)


class Boxes:
    """Red boxes (1) and blue boxes (2) on grey ground; also a fake of `cpn.data.voc.Split`."""

    name = "val"

    def __init__(self, count: int = 6, size: int = 32) -> None:
        self.count, self.size = count, size
        self.ids = [f"box{i}" for i in range(count)]

    def __len__(self) -> int:
        return self.count

    def label(self, index: int, /) -> NDArray[np.uint8]:
        label = np.zeros((self.size, self.size), np.uint8)
        top = 2 + 2 * (index % 5)
        label[top : top + 16, 6:26] = 1 + index % 2
        return label

    def mask(self, index: int) -> NDArray[np.uint8]:
        return self.label(index)

    def image(self, index: int, /) -> NDArray[np.uint8]:
        noise = np.random.default_rng(index).integers(0, 40, (self.size, self.size, 3))
        colours = np.array([[90, 90, 90], [200, 30, 30], [30, 30, 200]])
        return (colours[self.label(index)] + noise).astype(np.uint8)


def test_parameters_on_resnet38_equal_the_reference() -> None:
    layers = json.loads((REFERENCE / "deeplab_net_layers.json").read_text())
    with torch.device("meta"):
        network = DeepLab(ResNet38(), 21, DeepLabConfig())
    state = {k: list(v.shape) for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert state == {name: shape for name, shape in layers["state_dict"]}
    assert sum(p.numel() for p in network.parameters()) == layers["n_parameters"]
    config = DeepLabConfig()
    groups = parameter_groups(network, config.lr, config.head_lr_factor, config.weight_decay)
    # The reference counts 42 pretrained weights, having frozen conv1a by a call of eval() before it counted.
    assert [len(group["params"]) for group in groups] == [43, 3, 1]
    assert [group["lr"] for group in groups] == pytest.approx([0.001, 0.01, 0.02])
    assert [group.get("weight_decay") for group in groups] == [5e-4, 5e-4, 0.0]


def test_forward_equals_the_layers_by_hand() -> None:
    network = tiny().eval()
    images = torch.rand(2, 3, 21, 30)
    x = network.backbone(images)[2]
    x = functional.conv2d(x, network.conv_fov.weight, padding=2, dilation=2)
    x = torch.relu(x / (1 + 1e-5) ** 0.5)
    x = torch.relu(functional.conv2d(x, network.conv_fov2.weight) / (1 + 1e-5) ** 0.5)
    x = functional.conv2d(x, network.cls_conv.weight, network.cls_conv.bias)
    expected = functional.interpolate(x, (21, 30), mode="bilinear", align_corners=True)
    torch.testing.assert_close(network(images), expected)
    assert not torch.equal(network.train()(images), network(images)), "dropout acts in training"


def test_the_initial_weights_have_the_spread_of_fan_out() -> None:
    network = tiny(changed(width=64), classes=40)
    for layer, fan_out in ((network.conv_fov, 64 * 9), (network.conv_fov2, 64), (network.cls_conv, 40)):
        assert float(layer.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


def test_a_small_classifier_starts_at_chance() -> None:
    source = Boxes()
    images = normalise(torch.from_numpy(np.stack([source.image(i) for i in range(6)])))
    labels = torch.from_numpy(np.stack([source.label(i) for i in range(6)]))
    small = tiny(changed(classifier_std=0.01)).train()
    assert float(small.cls_conv.weight.detach().abs().max()) < 0.05 and not small.cls_conv.bias.detach().any()
    assert segmentation_loss(small(images), labels).item() == pytest.approx(np.log(3), abs=0.05)
    assert abs(segmentation_loss(tiny().train()(images), labels).item() - np.log(3)) > 0.05


def test_padding_is_0_after_normalisation_and_ignored() -> None:
    """A canvas larger than the picture: what the network sees there is exactly the mean colour, its label is 255."""
    network, seen = tiny(), []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    config = changed(iterations=1, scale=(0.5, 0.5))
    fit(deeplab_job(network, Boxes(), config, DATA, seed=0), SILENT)
    shown = (seen[0] != 0).any(dim=1)
    assert shown.flatten(1).sum(dim=1).tolist() == [16 * 16] * 3, "pictures of 32 pixels at half size on a canvas of 32"
    samples = SegmentationSamples(Boxes(), 32, config, seed=0)
    assert ((samples[(0, 1)][2] == 255) == ~samples[(0, 1)][1]).all()


def trained(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_switches_say_what_is_trained() -> None:
    affine = {"backbone.norm.weight", "backbone.norm.bias"} | {
        f"{bn}.{kind}" for bn in ("bn_fov", "bn_fov2") for kind in ("weight", "bias")
    }
    everything = {name for name, _ in tiny().named_parameters()}
    assert trained(tiny()) == everything - affine
    assert trained(tiny(changed(affine_train=True))) == everything
    assert trained(tiny(changed(freeze_stem=True))) == everything - affine - {"backbone.stem.weight"}


@pytest.mark.parametrize("batch_norm_train", [True, False])
def test_batch_norm_of_the_backbone_follows_its_switch(batch_norm_train: bool) -> None:
    network = tiny(changed(batch_norm_train=batch_norm_train, bn_momentum=0.25))
    network.train()
    network(torch.rand(2, 3, 16, 16) + 3)
    moved = not torch.equal(network.backbone.norm.running_mean, torch.zeros(5))
    assert moved == batch_norm_train
    assert network.bn_fov.running_mean.abs().max() > 0
    assert network.backbone.norm.momentum == network.bn_fov2.momentum == 0.25
    network.eval()
    assert not any(m.training for m in network.modules())


def test_loss_ignores_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 3)
    logits[0, 1, 0, 1] = np.log(3)
    labels = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    assert segmentation_loss(logits, labels).item() == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)
    logits.requires_grad_()
    segmentation_loss(logits, labels).backward()
    assert torch.equal(logits.grad[..., 2], torch.zeros(1, 2, 1)) and (logits.grad[..., :2] != 0).all()
    assert segmentation_loss(logits, torch.full_like(labels, 255)) == 0


def test_hsv_jitter_moves_each_channel_within_its_bound() -> None:
    image = np.full((4, 4, 3), (60, 120, 90), np.uint8)
    values = [jitter_hsv(image, 10, np.random.default_rng(i))[0, 0] for i in range(200)]
    assert np.ptp([v.max() for v in values]) >= 18 and max(v.max() for v in values) <= 130
    assert min(v.max() for v in values) >= 110
    assert np.array_equal(jitter_hsv(image, 0, np.random.default_rng(0)), image)
    # Red lies where the circle of hues closes: it turns to both sides and stays reddish.
    red = np.full((1, 1, 3), (200, 0, 0), np.uint8)
    turned = np.array([jitter_hsv(red, 10, np.random.default_rng(i))[0, 0] for i in range(60)]).astype(int)
    assert (turned[:, 0] > 150).all() and (turned[:, 1] > turned[:, 2]).any() and (turned[:, 2] > turned[:, 1]).any()


def test_image_and_label_move_together() -> None:
    source = Boxes(size=40)
    config = changed(scale=(0.5, 1.5))
    sides = set()
    for seed in range(12):
        image, valid, label = augment_pair(source.image(1), source.label(1), 48, config, np.random.default_rng(seed))
        assert image.shape == (48, 48, 3) and label.shape == valid.shape == (48, 48)
        assert np.array_equal(label == 255, ~valid)
        blue = image[..., 2].astype(int) - image[..., 0] > 60
        assert (blue == (label == 2))[valid].mean() > 0.95
        assert set(np.unique(label)) <= {0, 2, 255}
        sides.add(int(valid.any(1).sum()))
    assert min(sides) < 30 and max(sides) == 48


def test_flip_and_crop_are_drawn() -> None:
    source, config = Boxes(), changed(scale=(1.0, 1.0), flip=1.0)
    image, _, label = augment_pair(source.image(0), source.label(0), 32, config, np.random.default_rng(0))
    assert np.array_equal(image, source.image(0)[:, ::-1]) and np.array_equal(label, source.label(0)[:, ::-1])


def test_samples_depend_on_seed_epoch_and_index_alone() -> None:
    config = changed(hsv_jitter=10, scale=(0.5, 1.5))
    first, again = (SegmentationSamples(Boxes(), 24, config, seed=5) for _ in range(2))
    again[(0, 1)]
    for one, two in zip(first[(3, 2)], again[(3, 2)], strict=True):
        assert np.array_equal(one, two)
    assert not np.array_equal(first[(0, 0)][0], first[(1, 0)][0])
    assert not np.array_equal(first[(0, 0)][0], SegmentationSamples(Boxes(), 24, config, seed=6)[(0, 0)][0])


def test_prediction_averages_logits_over_scales_and_flips() -> None:
    network = tiny().eval()
    image = Boxes(size=30).image(1)[:, :27]
    config = changed(scales=(0.5, 1.5), test_flip=True)
    expected = torch.zeros(3, 30, 27)
    with torch.no_grad():
        for height, width in ((15, 14), (45, 40)):  # 13.5 and 40.5 round to the even number
            for flip in (False, True):
                inputs = normalise(torch.from_numpy(resize(image, (height, width))[None]))
                logits = network(inputs.flip(3) if flip else inputs)
                logits = functional.interpolate(logits, (30, 27), mode="bilinear", align_corners=True)[0]
                expected += (logits.flip(2) if flip else logits) / 4
    torch.testing.assert_close(predict_logits(network, image, config), expected, rtol=1e-4, atol=1e-5)
    single = predict_logits(network, image, changed(test_flip=False))
    torch.testing.assert_close(single, network(normalise(torch.from_numpy(image.copy()[None])))[0])


def test_aligned_sizes_are_whole_strides_and_one() -> None:
    network, seen = tiny().eval(), []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    image = Boxes(size=30).image(1)[:, :27]
    for sizes in ("released", "aligned"):
        assert predict_logits(network, image, changed(scales=(0.5, 1.5), sizes=sizes)).shape == (3, 30, 27)
    assert seen == [(15, 14), (45, 40), (17, 13), (45, 41)], "the backbone's stride is 4"


def test_training_learns_and_is_evaluated() -> None:
    source, network = Boxes(), tiny()
    reported: list[dict[str, float]] = []
    history = fit(deeplab_job(network, source, TINY, DATA, seed=0), replace(SILENT, report=reported.append))
    assert history == reported and len(history) == 60
    assert history[-1]["loss_total"] < 0.6 * history[0]["loss_total"]
    network.train()
    plain, refined = evaluate(network, cast(Split, source), TINY)
    assert plain.shape == refined.shape == (6, 3, 3) and not network.training
    for counts, of_processes in zip((plain, refined), evaluate(network, cast(Split, source), TINY, 2), strict=True):
        np.testing.assert_array_equal(counts, of_processes)
    assert miou(plain.sum(0)) > 0.7 and miou(refined.sum(0)) > 0.7
    label, label_crf = predict(network, source.image(2), TINY)
    assert np.array_equal(plain[2], hard_counts(label, source.label(2), 3))
    assert np.array_equal(refined[2], hard_counts(label_crf, source.label(2), 3))
    assert not np.array_equal(label, label_crf)


def test_exactly_the_asked_iterations_are_taken() -> None:
    rates: list[float] = []
    config = changed(iterations=5, lr=0.1, optimizer="sgd", poly_power=1.0)
    network = tiny(config)
    steps = []
    network.register_forward_hook(lambda *_: steps.append(1))
    context = replace(SILENT, report=lambda entry: rates.append(entry["lr"]))
    fit(deeplab_job(network, Boxes(), config, DATA, seed=0), context)
    assert len(steps) == 5
    # Two steps an epoch: the rates of steps 1, 3 and 4 out of lr (1 - t/6).
    assert rates == pytest.approx([0.1 * 5 / 6, 0.1 * 3 / 6, 0.1 * 2 / 6])


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    config = changed(iterations=5, hsv_jitter=10)
    whole = resumed_to_the_same_bits(
        lambda: tiny(config, seed=3), lambda network: deeplab_job(network, Boxes(), config, DATA, seed=1), tmp_path, 2
    )
    assert not torch.equal(whole.cls_conv.weight, tiny(config, seed=3).cls_conv.weight)


def test_bad_input_is_refused_in_words() -> None:
    with pytest.raises(InputError, match=r"deeplab\.batch_size: 7 is more than the 6 images"):
        deeplab_job(tiny(), Boxes(), changed(batch_size=7), DATA, seed=0)
    unmasked = SimpleNamespace(ids=["a"], name="val", mask=lambda index: None)
    with pytest.raises(InputError, match="a: has no mask"):
        truth_of(cast(Split, unmasked), 0)
