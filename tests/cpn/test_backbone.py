import pytest
import torch
from torch import Tensor, nn

from cpn.backbone import BACKBONES, Backbone, build_backbone
from cpn.errors import InputError
from cpn.scene_backbone import SceneBackbone


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


def no_module() -> object:
    class Almost:
        channels, stride = (1, 1, 1), 8

        def frozen_parameters(self) -> list[nn.Parameter]:
            return []

        def __call__(self, images: Tensor) -> None: ...

    return Almost()


def test_by_name() -> None:
    assert isinstance(build_backbone("scene"), SceneBackbone)
    assert set(BACKBONES) == {"scene", "resnet38"}


def test_a_users_own() -> None:
    backbone = build_backbone(f"{__name__}:OwnBackbone")
    assert isinstance(backbone, OwnBackbone) and isinstance(backbone, Backbone)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet", "'resnet' is unknown; use resnet38, scene"),
        ("", "'' is unknown"),
        ("not_a_module:Factory", "cannot be imported"),
        ("cpn.scene_backbone:Nothing", "cannot be imported"),
        (":Factory", "':Factory' is unknown"),
        (".scene_backbone:SceneBackbone", "is unknown"),
        ("cpn.scene_backbone:", "is unknown"),
        ("torch.nn:Identity", "makes a Identity; it needs to be an nn.Module with"),
        (f"{__name__}:no_module", "makes a Almost; it needs to be an nn.Module"),
    ],
)
def test_errors_are_one_line_that_names_the_key(name: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        build_backbone(name)
    message = str(refused.value)
    assert message.startswith("network.backbone: ") and words in message and "\n" not in message


@pytest.fixture
def scene() -> SceneBackbone:
    torch.manual_seed(0)
    return SceneBackbone().eval()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 33), (30, 47), (4, 1), (8, 5)])
def test_sizes_of_the_scene_backbone(scene: SceneBackbone, height: int, width: int) -> None:
    maps = scene(torch.randn(2, 3, height, width))
    assert scene.channels == tuple(m.shape[1] for m in maps) == (32, 64, 96) and scene.stride == 4
    assert all(m.shape[-2:] == (-(-height // 4), -(-width // 4)) for m in maps) and all(len(m) == 2 for m in maps)


def test_the_receptive_field_is_15_pixels(scene: SceneBackbone) -> None:
    for parameter in scene.parameters():
        parameter.data.abs_()  # nothing cancels, and no ReLU closes
    images = torch.rand(1, 3, 65, 65, requires_grad=True)
    for map_ in scene(images):
        (gradient,) = torch.autograd.grad(map_[0, :, 8, 8].sum(), images, retain_graph=True)
        rows, columns = (gradient[0].abs().sum(0).sum(axis).nonzero().flatten().tolist() for axis in (1, 0))
        assert rows == columns == list(range(32 - 7, 32 + 8))


def test_batch_norm_keeps_its_statistics_in_training(scene: SceneBackbone) -> None:
    before = {name: value.clone() for name, value in scene.named_buffers()}
    scene.train()
    norms = [m for m in scene.modules() if isinstance(m, nn.BatchNorm2d)]
    assert scene.training and len(norms) == 7 and not any(norm.training for norm in norms)
    scene(torch.randn(2, 3, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in scene.named_buffers())
    scene.freeze_batch_norm = False
    scene.train()
    scene(torch.randn(2, 3, 16, 16))
    assert all(norm.training for norm in norms)
    assert not torch.equal(norms[0].running_mean, before["stem.0.1.running_mean"])


def test_a_module_above_it_keeps_it_frozen(scene: SceneBackbone) -> None:
    nn.Sequential(nn.Sequential(scene)).train()
    assert not any(m.training for m in scene.modules() if isinstance(m, nn.BatchNorm2d))


def test_what_the_scene_backbone_freezes(scene: SceneBackbone) -> None:
    frozen = {id(p) for p in scene.frozen_parameters()}
    names = {name for name, p in scene.named_parameters() if id(p) in frozen}
    assert len(names) == 14
    assert names == {name for name, p in scene.named_parameters() if p.ndim == 1}


def test_the_size_of_the_scene_backbone_is_what_its_docstring_says(scene: SceneBackbone) -> None:
    assert round(sum(p.numel() for p in scene.parameters()) / 1000) == 27
