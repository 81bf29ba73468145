"""One contract over every backbone, ours and a user's own; what is none; an own one in training."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from cpn.config import config_from
from cpn.config.data import ScenesConfig
from cpn.config.deeplab import DeepLabConfig
from cpn.config.network import NetworkConfig
from cpn.core.errors import InputError
from cpn.models.backbone import BACKBONES, Backbone, batch_norm_note, build_backbone, frozen_of
from cpn.models.network import build_network
from cpn.models.scene_backbone import SceneBackbone
from cpn.propagation.affinity import AffinityNet
from cpn.segmentation.deeplab import DeepLab
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.training.cam_training import train
from cpn.training.loop import TrainingContext


class OwnBackbone(nn.Module):
    """A user's own, as small as one can be."""

    channels = (2, 3, 4)
    stride = 2

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, c, 3, 2, 1) for c in self.channels])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, second, third = (layer(images) for layer in self.layers)
        return first, second, third

    def frozen_parameters(self) -> list[nn.Parameter]:
        return list(self.layers[0].parameters())


OWN = f"{__name__}:OwnBackbone"
NORMED = f"{__name__}:Normed"
OURS = ("scene", "resnet38", "resnet50", "efficientnet_lite0", "efficientnet_lite0_stride8")
SIZES = [(64, 64), (65, 33), (31, 49), (8, 1)]


def test_all_names_are_held_to_the_contract() -> None:
    assert set(OURS) == set(BACKBONES)
    assert isinstance(build_backbone("scene"), SceneBackbone) and isinstance(build_backbone(OWN), OwnBackbone)


@pytest.fixture(params=[*OURS, OWN])
def name(request: pytest.FixtureRequest) -> str:
    """Every backbone by name. They stand on the meta device: shapes and gradients' ways without numbers or memory."""
    return str(request.param)


def ceil(size: int, stride: int) -> int:
    return -(-size // stride)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_three_maps_of_the_promised_channels_and_of_one_size(name: str, height: int, width: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
        maps = backbone(torch.empty(2, 3, height, width))
    interface = cast(Backbone, backbone)
    size = (ceil(height, interface.stride), ceil(width, interface.stride))
    assert [tuple(m.shape) for m in maps] == [(2, channels, *size) for channels in interface.channels]


def test_exactly_what_is_not_frozen_gets_a_gradient(name: str) -> None:
    with torch.device("meta"):
        network = build_network(NetworkConfig(backbone=name), 4).train()
        sum(m.sum() for m in network.backbone(torch.empty(1, 3, 17, 24))).backward()
    frozen = {id(p) for p in cast(Backbone, network.backbone).frozen_parameters()}
    parameters = dict(network.backbone.named_parameters())
    assert 0 < len(frozen) < len(parameters) and frozen <= {id(p) for p in parameters.values()}
    assert {n for n, p in parameters.items() if not p.requires_grad} == {
        n for n, p in parameters.items() if id(p) in frozen
    }
    assert {n for n, p in parameters.items() if p.grad is None} == {n for n, p in parameters.items() if id(p) in frozen}


def test_only_the_classifier_reaches_the_backbone(name: str) -> None:
    with torch.device("meta"):
        network = build_network(NetworkConfig(backbone=name), 4).train()
        cam, refined = network(torch.empty(2, 3, 17, 24))
        assert cam.shape == refined.shape == (2, 4, 17, 24)
        refined.sum().backward()
        assert all(p.grad is None for p in network.backbone.parameters())
        cam.sum().backward()
    assert any(p.grad is not None for p in network.backbone.parameters())


def test_the_later_networks_stand_on_it_too(name: str) -> None:
    images = torch.empty(2, 3, 17, 24, device="meta")
    with torch.device("meta"):
        affinity, deeplab = AffinityNet(build_backbone(name)), DeepLab(build_backbone(name), 4, DeepLabConfig())
        frozen_deeplab = DeepLab(build_backbone(name), 4, DeepLabConfig(freeze_stem=True))
    stride = affinity.stride
    assert affinity(images).shape == (2, 64 + 128 + 256, ceil(17, stride), ceil(24, stride))
    assert deeplab(images).shape == (2, 4, 17, 24)
    for network in (affinity, frozen_deeplab):
        assert not any(p.requires_grad for p in cast(Backbone, network.backbone).frozen_parameters())


@pytest.mark.parametrize("name", OURS)
def test_ours_keep_the_statistics_of_batch_norm(name: str) -> None:
    with torch.device("meta"):
        network = build_network(NetworkConfig(backbone=name), 4).train()
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms and not any(norm.training for norm in norms)
        assert not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
        deeplab = DeepLab(network.backbone, 4, DeepLabConfig(batch_norm_train=True)).train()
    assert all(m.training for m in deeplab.modules() if isinstance(m, nn.BatchNorm2d))


def test_a_users_own_backbone_trains_one_step_on_scenes(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", ScenesConfig(train=4, val=1, size=32))
    pack = prepare(tmp_path / "scenes", ["train"])
    values: dict[str, Any] = {
        "data": {"train": "train", "crop": 32, "long_side": [28, 40], "workers": 0},
        "patches": {"kind": "grid", "K": [4, 8]},
        "network": {"backbone": OWN, "stage3_channels": 2, "stage4_channels": 2, "correlation_channels": 4},
        "train": {"batch_size": 4, "epochs": 1, "lr": 0.1},
    }
    config = config_from(values, "test")
    torch.manual_seed(0)
    network = build_network(config.network, len(pack.classes) + 1)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    history = train(
        network, pack.split("train"), config, TrainingContext(device=torch.device("cpu"), report=lambda _: None)
    )
    assert [entry["epoch"] for entry in history] == [1]
    moved = {n.removesuffix(".weight") for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    # Of the two trained maps the classifier reads the top alone; the refinement's gradient stops below itself.
    assert moved - {"backbone.layers.2.bias"} == {"backbone.layers.2", "fc8", "f8_3", "f8_4", "f9", "f10"}


def almost() -> object:
    class Almost:
        channels, stride = (1, 1, 1), 8

        def frozen_parameters(self) -> list[nn.Parameter]:
            return []

        def __call__(self, images: Tensor) -> None: ...

    return Almost()


def two_channels() -> nn.Module:
    backbone = OwnBackbone()
    backbone.channels = (2, 3)  # type: ignore[assignment]
    return backbone


def no_stride() -> nn.Module:
    backbone = OwnBackbone()
    backbone.stride = 0
    return backbone


def other_stride() -> nn.Module:
    backbone = OwnBackbone()
    backbone.stride = 4
    return backbone


def other_channels() -> nn.Module:
    backbone = OwnBackbone()
    backbone.channels = (2, 3, 5)
    return backbone


class OneMap(OwnBackbone):
    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        return self.layers[0](images)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "resnet",
            "'resnet' is unknown; use efficientnet_lite0, efficientnet_lite0_stride8, resnet38, resnet50, scene",
        ),
        ("", "'' is unknown"),
        ("not_a_module:Factory", "cannot be imported"),
        ("cpn.models.scene_backbone:Nothing", "cannot be imported"),
        (":Factory", "':Factory' is unknown"),
        (".scene_backbone:SceneBackbone", "is unknown"),
        ("cpn.models.scene_backbone:", "is unknown"),
        ("torch.nn:Conv2d", "cannot be called without arguments (missing a required argument: 'in_channels')"),
        ("cpn.data.voc:VOC_CLASSES", "cannot be called without arguments"),
        ("torch.nn:Identity", "makes a Identity; it needs to be an nn.Module with"),
        (f"{__name__}:almost", "makes a Almost; it needs to be an nn.Module"),
        (f"{__name__}:two_channels", "has channels (2, 3) and stride 2, not three whole numbers and one"),
        (f"{__name__}:no_stride", "has channels (2, 3, 4) and stride 0"),
        (f"{__name__}:OneMap", "returns a Tensor and not three maps"),
        (f"{__name__}:other_stride", "(1, 2, 17, 25), (1, 3, 17, 25), (1, 4, 17, 25)], not into [(1, 2, 9, 13)"),
        (f"{__name__}:other_channels", "turns (1, 3, 33, 50) into"),
    ],
)
def test_what_is_no_backbone_is_refused_by_its_key(name: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        build_backbone(name)
    message = str(refused.value)
    assert message.startswith("network.backbone: ") and words in message and "\n" not in message


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (["layers.0.weight"], "its frozen_parameters() lists a str; return the module's own nn.Parameter objects"),
        ([nn.Conv2d(1, 1, 1)], "its frozen_parameters() lists a Conv2d; return"),
        (None, "its frozen_parameters() raised TypeError"),
        (ValueError("no"), "its frozen_parameters() raised ValueError: no ("),
    ],
    ids=str,
)
def test_frozen_parameters_are_parameters(listed: object, words: str) -> None:
    def frozen_parameters() -> object:
        if isinstance(listed, Exception):
            raise listed
        return listed

    backbone = OwnBackbone()
    backbone.frozen_parameters = frozen_parameters  # type: ignore[method-assign, assignment]
    with pytest.raises(InputError) as refused:
        frozen_of(backbone)
    assert words in str(refused.value) and str(refused.value).startswith("network.backbone: ")


class Normed(OwnBackbone):
    """Its batch norms know nothing of freezing."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Conv2d(3, c, 3, 2, 1), nn.BatchNorm2d(c)) for c in self.channels])


def test_the_batch_norms_of_a_users_own_stay_in_evaluation_mode() -> None:
    """In the CAM network and AffinityNet, whatever calls train(); DeepLab goes by its own setting."""
    images = torch.randn(3, 3, 17, 24)
    for network in (build_network(NetworkConfig(backbone=NORMED), 4), AffinityNet(build_backbone(NORMED))):
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        nn.Sequential(network).train()(images)
        assert len(norms) == 3 and not any(norm.training for norm in norms) and network.training
        assert all(torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean)) for norm in norms)  # type: ignore[arg-type,type-var]
    deeplab = DeepLab(build_backbone(NORMED), 4, DeepLabConfig(batch_norm_train=True)).train()
    assert all(module.training for module in deeplab.modules() if isinstance(module, nn.BatchNorm2d))
    note = batch_norm_note(build_backbone(NORMED), NORMED)
    assert note is not None and "3 batch norms" in note and batch_norm_note(SceneBackbone(), "scene") is None


class Fails(OwnBackbone):
    """Runs until it is told to fail, as a forward does that cannot do with some sizes."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if images.shape[0] > 1:
            raise ValueError("one image at a time")
        return super().forward(images)


def test_an_error_in_a_users_forward_is_one_line() -> None:
    name, images = f"{__name__}:Fails", torch.zeros(2, 3, 17, 24)
    networks = (
        build_network(NetworkConfig(backbone=name), 4),
        AffinityNet(build_backbone(name)),
        DeepLab(build_backbone(name), 4, DeepLabConfig()),
    )
    for network in networks:
        with pytest.raises(InputError, match=f"'{name}': its forward raised ValueError: one image .*{__file__}, line"):
            network(images)


def test_what_our_own_raise_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="expected input"):
        build_network(NetworkConfig(backbone="scene"), 4)(torch.zeros(1, 2, 8, 8))


def test_a_users_module_that_lacks_a_package_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import os\nimport a_package_that_is_absent\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        InputError, match="its module raised ModuleNotFoundError: .*a_package_that.*needs_more.py, line 2"
    ):
        build_backbone("needs_more:make")


def test_looking_at_a_users_own_leaves_it_in_training_mode() -> None:
    assert build_backbone(OWN).training
