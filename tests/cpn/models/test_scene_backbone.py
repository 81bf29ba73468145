import pytest
import torch
from torch import nn

from cpn.models.scene_backbone import SceneBackbone


@pytest.fixture
def scene() -> SceneBackbone:
    torch.manual_seed(0)
    return SceneBackbone().eval()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 33), (30, 47), (4, 1), (8, 5)])
def test_maps_have_the_sizes_and_channels_that_it_states(scene: SceneBackbone, height: int, width: int) -> None:
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


def test_it_freezes_the_affine_parameters_of_batch_norm(scene: SceneBackbone) -> None:
    frozen = {id(p) for p in scene.frozen_parameters()}
    names = {name for name, p in scene.named_parameters() if id(p) in frozen}
    assert len(names) == 14
    assert names == {name for name, p in scene.named_parameters() if p.ndim == 1}


def test_it_has_the_27_thousand_parameters_of_its_docstring(scene: SceneBackbone) -> None:
    assert round(sum(p.numel() for p in scene.parameters()) / 1000) == 27


def test_the_pyramid_ends_in_the_maps_of_forward(scene: SceneBackbone) -> None:
    images = torch.randn(1, 3, 20, 12)
    pyramid = scene.pyramid(images)
    assert [level.shape[1] for level in pyramid] == list(scene.pyramid_channels)
    strides = [(-(-20 // stride), -(-12 // stride)) for stride in scene.pyramid_strides]
    assert [tuple(level.shape[2:]) for level in pyramid] == strides
    assert all(torch.equal(one, other) for one, other in zip(pyramid[2:], scene(images), strict=True))
