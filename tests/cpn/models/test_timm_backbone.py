"""Backbones of timm, against what timm 1.0.31 said of its networks; where timm is installed, its own networks too."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cpn.config import config_from
from cpn.core.contents import by_content, is_code
from cpn.core.errors import InputError
from cpn.cost.backbone_check import run_checks
from cpn.data.transforms import MEAN, STD, normalise
from cpn.models.backbone import build_backbone
from cpn.models.checkpoint import network_metadata, save_model
from cpn.models.network import build_network
from cpn.models.timm_backbone import TimmBackbone, timm_backbone
from cpn.run import load_run

STAGES = {
    "resnet18": ((64, 2), (64, 4), (128, 8), (256, 16), (512, 32)),
    "convnext_tiny": ((96, 4), (192, 8), (384, 16), (768, 32)),
    "efficientnet_lite0": ((16, 2), (24, 4), (40, 8), (112, 16), (320, 32)),
    "densenet121": ((64, 2), (256, 4), (512, 8), (1024, 16), (1024, 32)),
    "swin_tiny_patch4_window7_224": ((96, 4), (192, 8), (384, 16), (768, 32)),
}
"""Channels and stride of each map, as `feature_info` has them at the network's own strides."""
UNDILATED = ("densenet121", "swin_tiny_patch4_window7_224")
TOKENS = {"vit_tiny_patch16_224": (192, 16, 12), "mixer_s32_224": (512, 32, 8)}
"""Width, patch and blocks."""
ONE_SIZE = ("swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "mixer_s32_224")
HALF = (0.5, 0.5, 0.5)


class Info:
    def __init__(self, stages: list[tuple[int, int]]) -> None:
        self.stages = stages

    def channels(self) -> list[int]:
        return [channels for channels, _ in self.stages]

    def reduction(self) -> list[int]:
        return [reduction for _, reduction in self.stages]


class Stages(nn.Module):
    """Maps with floor(side / reduction) cells, as networks without padding give them."""

    def __init__(self, stages: list[tuple[int, int]]) -> None:
        super().__init__()
        self.feature_info = Info(stages)
        self.stem = nn.Conv2d(3, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.middle = nn.Conv2d(8, 8, 1)
        self.heads = nn.ModuleList(nn.Conv2d(8, channels, 1) for channels, _ in stages[-1:])
        self.cut = [(channels, reduction) for channels, reduction in stages]

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.middle(self.norm(self.stem(images)))
        maps = [nn.functional.avg_pool2d(x, reduction).repeat(1, -(-c // 8), 1, 1)[:, :c] for c, reduction in self.cut]
        return [*maps[:-1], self.heads[0](nn.functional.avg_pool2d(x, self.cut[-1][1]))]


class Transformer(nn.Module):
    def __init__(self, width: int, patch: int, depth: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, patch, patch)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(depth))
        self.norm = nn.GroupNorm(1, width)
        self.asked: dict[str, Any] = {}

    def prune_intermediate_layers(self, indices: list[int], prune_norm: bool, prune_head: bool) -> list[int]:
        assert not prune_norm and prune_head
        return indices

    def forward_intermediates(self, images: Tensor, indices: list[int], norm: bool, **asked: Any) -> list[Tensor]:
        assert norm and asked == {"output_fmt": "NCHW", "intermediates_only": True}
        x, maps = self.patch_embed(images), []
        for index, block in enumerate(self.blocks):
            x = x + block(x)
            maps += [self.norm(x)] if index in indices else []
        return maps


def create_model(name: str, pretrained: bool = False, **asked: Any) -> nn.Module:
    """As timm's, for the recorded networks."""
    assert not pretrained
    plain, _, tag = name.partition(".")
    if tag not in ("", "augreg"):
        raise RuntimeError(f"Invalid pretrained tag ({tag}) for {plain}.")
    if asked.pop("features_only", False):
        if "output_stride" in asked and plain in UNDILATED:
            raise TypeError(f"{plain} got an unexpected keyword argument 'output_stride'")
        most = asked.get("output_stride", 32)
        stages = [(channels, min(reduction, most)) for channels, reduction in STAGES[plain]]
        return Stages([stages[index] for index in asked["out_indices"]])
    if plain in TOKENS and asked:
        if plain == "mixer_s32_224":
            raise TypeError("MlpMixer.__init__() got an unexpected keyword argument 'dynamic_img_size'")
        assert asked == {"num_classes": 0, "dynamic_img_size": True}
        return Transformer(*TOKENS[plain])
    sketch: Any = nn.Module()
    width, patch, depth = TOKENS.get(plain, (0, 0, 0))
    stages = STAGES.get(plain) or ((width, patch),) * depth
    sketch.feature_info = [{"num_chs": channels, "reduction": reduction} for channels, reduction in stages]
    mean, std = (HALF, HALF) if plain.startswith("vit") else (MEAN, STD)
    sketch.pretrained_cfg = {"mean": mean, "std": std, "fixed_input_size": plain in ONE_SIZE}
    return sketch  # type: ignore[no-any-return]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    timm: Any = ModuleType("timm")
    known = [*STAGES, *TOKENS]
    timm.__version__, timm.create_model, timm.list_models = "1.0.31", create_model, lambda: known
    timm.is_model = lambda name: name.partition(".")[0] in known
    monkeypatch.setitem(sys.modules, "timm", timm)


@pytest.mark.parametrize(
    ("name", "channels", "stride"),
    [
        ("timm:resnet18", (128, 256, 512), 16),
        ("timm:resnet18_stride8", (128, 256, 512), 8),
        ("timm:resnet18_stride32", (128, 256, 512), 32),
        ("timm:convnext_tiny", (192, 384, 768), 16),
        ("timm:efficientnet_lite0", (40, 112, 320), 16),
        ("timm:densenet121_stride32", (512, 1024, 1024), 32),
        ("timm:vit_tiny_patch16_224", (192, 192, 192), 16),
        ("timm:vit_tiny_patch16_224.augreg_stride16", (192, 192, 192), 16),
    ],
)
@pytest.mark.usefixtures("recorded")
def test_stride_and_taps_are_those_of_the_feature_info(name: str, channels: tuple[int, ...], stride: int) -> None:
    backbone: Any = build_backbone(name)  # which runs it on 33 x 50 pixels
    assert (backbone.channels, backbone.stride) == (channels, stride)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("name", ["timm:resnet18", "timm:vit_tiny_patch16_224"])
def test_it_passes_the_check(name: str) -> None:
    results = {check.check: check.result for check in run_checks(name, None, 3)}
    assert "failed" not in results.values()
    assert [results[check] for check in ("shapes", "maps", "batch norm", "gradients", "frozen")] == ["passed"] * 5


@pytest.mark.usefixtures("recorded")
def test_tokens_are_those_of_three_blocks() -> None:
    backbone: Any = timm_backbone("timm:vit_tiny_patch16_224")
    assert backbone.net.blocks == [5, 8, 11]


@pytest.mark.usefixtures("recorded")
def test_images_come_as_the_network_was_trained() -> None:
    """Grey levels are normalised by mean and deviation of timm's configuration; the mean colour is not its 0."""
    shown: list[Tensor] = []
    backbone = timm_backbone("timm:vit_tiny_patch16_224")
    backbone.net.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    grey = torch.randint(0, 256, (1, 32, 48, 3), dtype=torch.uint8)
    backbone(normalise(grey))
    torch.testing.assert_close(shown[0], (grey.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5, atol=1e-5, rtol=0)
    plain = timm_backbone("timm:resnet18")
    assert torch.equal(plain.scale, torch.ones(3, 1, 1)) and torch.equal(plain.shift, torch.zeros(3, 1, 1))
    assert not {"scale", "shift"} & set(plain.state_dict())


def test_a_finer_map_is_averaged_over_the_cells_of_the_last() -> None:
    class Two(nn.Module):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [images[:, :1], images[:, :1, ::2, ::2], images[:, :1, ::4, ::4]]

    backbone = TimmBackbone(Two(), (1, 1, 1), (1, 2, 4), MEAN, STD)
    image = torch.rand(1, 3, 8, 12)
    stage3, stage4, top = backbone(image)
    assert stage3.shape == stage4.shape == top.shape == (1, 1, 2, 3)
    torch.testing.assert_close(stage3[0, 0, 1, 2], image[0, 0, 4:, 8:].mean())
    assert [tuple(each.shape[2:]) for each in backbone(torch.rand(1, 3, 9, 12))] == [(3, 3)] * 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:resnet81", "timm 1.0.31 has no such network; did you mean timm:resnet18?"),
        ("timm:", "has no such network; print(timm.list_models()) lists them"),
        ("timm:hf-hub:somebody/net", "has no such network"),
        ("timm:resnet18.best", "Invalid pretrained tag (best)"),
        ("timm:densenet121", "cannot build it at stride 16 (TypeError: densenet121 got"),
        ("timm:densenet121_stride8", "timm:densenet121_stride32 takes its own strides"),
        ("timm:swin_tiny_patch4_window7_224_stride32", "for images of one size alone"),
        ("timm:mixer_s32_224", "for images of one size alone (TypeError: MlpMixer"),
        ("timm:vit_tiny_patch16_224_stride8", "its tokens are 16 pixels wide; leave out _stride8"),
    ],
)
@pytest.mark.usefixtures("recorded")
def test_what_is_refused(name: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        build_backbone(name)
    assert str(refused.value).startswith("network.backbone: ") and words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"needs the package timm \(.*\): pip install 'cpn-platform\[timm\]'"):
        build_backbone("timm:resnet18")


def test_a_torchvision_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="nms does not exist.*install the torchvision that fits torch"):
        build_backbone("timm:resnet18")


@pytest.mark.usefixtures("recorded")
def test_it_is_no_code_of_the_users(tmp_path: Path) -> None:
    """A checkpoint with it needs no --backbone, and a key holds its name alone."""
    assert not is_code("timm:resnet18") and by_content({"network.backbone": "timm:resnet18"}) == {
        "network.backbone": "timm:resnet18"
    }
    config = config_from({"network": {"backbone": "timm:resnet18", "weights": None}})
    torch.manual_seed(0)
    network = build_network(config.network, 3)
    metadata = {"kind": "cam", "config": config.model_dump(mode="json"), "classes": ["a", "b"]}
    save_model(tmp_path / "model.safetensors", network, metadata)
    assert network_metadata(tmp_path / "model.safetensors", "cam", "CAM network", None)[1] == ("a", "b")
    loaded, _, _ = load_run(tmp_path / "model.safetensors")
    assert torch.equal(
        loaded.state_dict()["backbone.net.stem.weight"], network.state_dict()["backbone.net.stem.weight"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:resnet18", "timm:vit_tiny_patch16_224", "timm:mobilenetv3_small_100_stride8"])
def test_networks_of_the_installed_timm_pass_the_check(name: str) -> None:
    """Random weights; skipped where timm is not installed, as it is no dependency."""
    pytest.importorskip("timm")
    results = {check.check: (check.result, check.finding) for check in run_checks(name, None, 3)}
    assert {result for result, _ in results.values()} <= {"passed", "note"}
    assert results["gradients"][0] == results["shapes"][0] == "passed"
