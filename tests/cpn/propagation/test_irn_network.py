import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cpn.core.errors import InputError
from cpn.data.transforms import normalise
from cpn.models.resnet38d import ResNet38
from cpn.models.resnet50 import ResNet50
from cpn.models.scene_backbone import SceneBackbone
from cpn.propagation.irn_network import IrnNet, MeanShift, PyramidBackbone, coarser_to, finer_to, pyramid_backbone


class Steps(nn.Module):
    """A pyramid with the strides of IRN's own ResNet50; each map is the image's mean over its cells, repeated."""

    channels, stride = (3, 3, 3), 16
    pyramid_channels = (3, 6, 3, 6, 9)
    pyramid_strides = (4, 4, 8, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (functional.avg_pool2d(images, 16, ceil_mode=True),) * 3

    def pyramid(self, images: Tensor) -> tuple[Tensor, ...]:
        sizes = zip(self.pyramid_channels, self.pyramid_strides, strict=True)
        return tuple(
            self.dropout(functional.avg_pool2d(images, s, ceil_mode=True).repeat(1, c // 3, 1, 1)) * self.gain
            for c, s in sizes
        )

    def frozen_parameters(self) -> list[nn.Parameter]:
        return []


class NoPyramid(nn.Module):
    channels, stride = (3, 3, 3), 1

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return images, images, images

    def frozen_parameters(self) -> list[nn.Parameter]:
        return []


class WrongPyramid(NoPyramid):
    pyramid_channels, pyramid_strides = (3, 3, 3, 3, 3), (1, 1, 1, 1, 2)

    def pyramid(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images,) * 5


class Declared(NoPyramid):
    """A right pyramid; what is said of it, or what comes of it, is changed by the classes below."""

    pyramid_channels, pyramid_strides = (3, 3, 3, 3, 3), (1, 1, 1, 1, 1)

    def pyramid(self, images: Tensor) -> object:
        return (images,) * 5


class FourChannels(Declared):
    pyramid_channels = [3, 3, 3, 3]  # noqa: RUF012


class NoStride(Declared):
    pyramid_strides = (0, 1, 1, 1, 1)


class WrittenStride(Declared):
    pyramid_strides = ("1", 1, 1, 1, 1)


class NoStrides(Declared):
    pyramid_strides = None


class OddStride(Declared):
    pyramid_strides = (1, 1, 1, 1, 3)


class FallingStride(Declared):
    pyramid_strides = (1, 2, 1, 1, 1)


class NoMaps(Declared):
    def pyramid(self, images: Tensor) -> object:
        return None


class NamedMaps(Declared):
    def pyramid(self, images: Tensor) -> object:
        return dict(enumerate((images,) * 5))


class HalfMaps(Declared):
    def pyramid(self, images: Tensor) -> object:
        return (images.half(),) * 5


class Raising(Declared):
    def pyramid(self, images: Tensor) -> object:
        raise RuntimeError("no maps today")


def network(displacement: bool = True, seed: int = 0) -> IrnNet:
    torch.manual_seed(seed)
    return IrnNet(Steps(), displacement)


@pytest.mark.parametrize("backbone", [SceneBackbone, ResNet38, ResNet50])
@pytest.mark.parametrize(("height", "width"), [(33, 50), (16, 21)])
def test_pyramids_end_in_the_maps_of_the_backbone(backbone: type[nn.Module], height: int, width: int) -> None:
    with torch.device("meta"):
        module = backbone().eval()
        images = torch.empty(2, 3, height, width)
        maps, top = module.pyramid(images), module(images)
    assert isinstance(module, PyramidBackbone)
    assert [m.shape[1] for m in maps] == list(module.pyramid_channels)
    for m, stride in zip(maps, module.pyramid_strides, strict=True):
        assert m.shape == (2, m.shape[1], -(-height // stride), -(-width // stride))
    assert [m.shape for m in maps[2:]] == [m.shape for m in top]
    assert list(module.pyramid_strides) == sorted(module.pyramid_strides)


def test_the_scene_pyramid_ends_in_its_maps() -> None:
    torch.manual_seed(0)
    backbone, images = SceneBackbone().eval(), torch.rand(1, 3, 16, 20)
    for one, two in zip(backbone.pyramid(images)[2:], backbone(images), strict=True):
        assert torch.equal(one, two)


def test_layers_and_parameters_are_the_released_ones() -> None:
    class Shapes(Steps):
        pyramid_channels = (64, 256, 512, 1024, 2048)

    with torch.device("meta"):
        heads = {name: list(p.shape) for name, p in IrnNet(Shapes()).named_parameters() if "backbone" not in name}
    channels, widths = Shapes.pyramid_channels, (64, 128, 256, 256, 256)
    expected: dict[str, list[int]] = {"fc_edge6.weight": [1, 160, 1, 1], "fc_edge6.bias": [1]}
    for at in range(5):
        for head, width in (("fc_edge", 32), ("fc_dp", widths[at])):
            expected[f"{head}{at + 1}.0.weight"] = [width, channels[at], 1, 1]
            expected |= {f"{head}{at + 1}.1.{kind}": [width] for kind in ("weight", "bias")}
    for name, inputs in (("fc_dp6", 768), ("fc_dp7", 448)):
        expected[f"{name}.0.weight"] = [256, inputs, 1, 1]
        expected |= {f"{name}.1.{kind}": [256] for kind in ("weight", "bias")}
    expected["fc_dp7.3.weight"] = [2, 256, 1, 1]
    assert heads == expected
    groups = {m.num_groups for m in network().head_layers("fc_edge")[0] if isinstance(m, nn.GroupNorm)}
    assert groups == {4}
    parts = [layer[1].num_groups for layer in network().head_layers("fc_dp")]
    assert parts == [8, 16, 16, 16, 16, 16, 16]
    # Edges: 32 * 3904 in the five convolutions, 5 * 64 in their norms, 161 in the last layer.
    edges = sum(np.prod(shape) for name, shape in heads.items() if name.startswith("fc_edge"))
    assert edges == 125_409 and sum(np.prod(shape) for shape in heads.values()) == edges + 1_269_120


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 50), (19, 5)])
@pytest.mark.parametrize("backbone", [Steps, SceneBackbone])
def test_shapes(backbone: type[nn.Module], height: int, width: int) -> None:
    edges, displacements = IrnNet(backbone()).eval()(torch.rand(2, 3, height, width))
    size = (-(-height // 4), -(-width // 4))
    assert edges.shape == (2, *size) and displacements.shape == (2, 2, *size)


def test_edges_equal_the_layers_by_hand() -> None:
    net = network().eval()
    images = torch.rand(2, 3, 21, 30)
    parts = []
    for at, (maps, factor) in enumerate(zip(net.backbone.pyramid(images), (1, 1, 2, 4, 4), strict=True), 1):
        conv, norm = net.get_submodule(f"fc_edge{at}")
        x = functional.group_norm(functional.conv2d(maps, conv.weight), 4, norm.weight, norm.bias)
        if factor > 1:
            x = functional.interpolate(x, scale_factor=float(factor), mode="bilinear")[..., :6, :8]
        parts.append(torch.relu(x))
    expected = functional.conv2d(torch.cat(parts, 1), net.fc_edge6.weight, net.fc_edge6.bias)[:, 0]
    torch.testing.assert_close(net(images)[0], expected)


def test_displacements_equal_the_layers_by_hand() -> None:
    net = network().eval()
    net.fc_dp7[4].running_mean += torch.tensor([0.5, -1.0])
    images = torch.rand(1, 3, 21, 30)
    parts = []
    for at, (maps, factor) in enumerate(zip(net.backbone.pyramid(images), (1, 1, 1, 2, 2), strict=True), 1):
        conv, norm = net.get_submodule(f"fc_dp{at}")
        x = functional.group_norm(functional.conv2d(maps, conv.weight), 8 if at == 1 else 16, norm.weight, norm.bias)
        if factor > 1:
            x = functional.interpolate(x, scale_factor=float(factor), mode="bilinear")[..., :3, :4]
        parts.append(torch.relu(x))
    x = functional.group_norm(functional.conv2d(torch.cat(parts[2:], 1), net.fc_dp6[0].weight), 16)
    x = torch.relu(functional.interpolate(x, scale_factor=2.0, mode="bilinear")[..., :6, :8])
    x = torch.relu(functional.group_norm(functional.conv2d(torch.cat([*parts[:2], x], 1), net.fc_dp7[0].weight), 16))
    expected = functional.conv2d(x, net.fc_dp7[3].weight) - torch.tensor([0.5, -1.0])[:, None, None]
    torch.testing.assert_close(net(images)[1], expected)


def test_mean_shift_takes_off_the_mean_at_test_alone() -> None:
    shift = MeanShift(2, momentum=0.5)
    field = torch.tensor([1.0, 3.0])[None, :, None, None].expand(4, 2, 3, 3)
    assert torch.equal(shift(field), field)
    torch.testing.assert_close(shift.running_mean, torch.tensor([0.5, 1.5]))
    shift(field)
    torch.testing.assert_close(shift.eval()(field), torch.tensor([0.25, 0.75])[None, :, None, None].expand(4, 2, 3, 3))
    torch.testing.assert_close(shift.running_mean, torch.tensor([0.75, 2.25]))


def test_strides_are_brought_to_one_another() -> None:
    ramp = torch.arange(6.0)[None, None, None]
    torch.testing.assert_close(finer_to(ramp, 1, 4), torch.tensor([[[[1.5, 4.5]]]]))
    assert finer_to(ramp, 4, 4) is ramp and coarser_to(ramp, 2, 4, (1, 1)) is ramp
    torch.testing.assert_close(coarser_to(ramp[..., :2], 8, 4, (1, 3)), torch.tensor([[[[0, 0.25, 0.75]]]]))


def test_the_backbone_is_never_trained() -> None:
    net = network().train()
    assert not net.backbone.training and not net.backbone.dropout.training and net.fc_edge1.training
    edges, displacements = net(torch.rand(2, 3, 32, 32))
    (edges.sum() + displacements.sum()).backward()
    assert net.backbone.gain.grad is None and not net.backbone.gain.requires_grad
    assert all(p.grad is not None for name, p in net.named_parameters() if name != "backbone.gain")


def test_edges_do_not_depend_on_the_displacement_head() -> None:
    images = torch.rand(2, 3, 32, 32)
    both, alone = network(), network(displacement=False)
    edges, displacements = alone(images)
    assert displacements is None and torch.equal(edges, both(images)[0])
    assert alone.head_layers("fc_dp") == [] and len(both.head_layers("fc_dp")) == 7
    torch.autograd.backward(both(images)[1].sum())
    assert all(p.grad is None for layer in both.head_layers("fc_edge") for p in layer.parameters())


def test_the_edge_of_an_image_is_the_mean_of_both_views() -> None:
    net = network().eval()
    image = np.random.default_rng(0).integers(0, 255, (33, 50, 3)).astype(np.uint8)
    plain, mirrored = (normalise(torch.from_numpy(np.ascontiguousarray(i)[None])) for i in (image, image[:, ::-1]))
    with torch.no_grad():
        expected = torch.sigmoid((net(plain)[0][0] + net(mirrored)[0][0].flip(1)) / 2)
    edge = net.image_edge(image)
    assert edge.shape == (9, 13) and edge.dtype == np.float32
    np.testing.assert_allclose(edge, expected.numpy(), rtol=1e-5)


def test_a_backbone_by_name() -> None:
    assert isinstance(pyramid_backbone("scene"), SceneBackbone)
    assert isinstance(pyramid_backbone(f"{__name__}:Steps"), Steps)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{__name__}:NoPyramid", ["random_walk.kind: irn needs five stages", "NoPyramid' has no `pyramid`", "scene"]),
        (f"{__name__}:WrongPyramid", ["turns (1, 3, 33, 50) into", "(1, 3, 17, 25)", "random_walk.kind affinity"]),
        ("nonsense", ["network.backbone: 'nonsense' is unknown"]),
        (f"{__name__}:FourChannels", ["FourChannels' has pyramid_channels [3, 3, 3, 3], not five whole numbers"]),
        (f"{__name__}:NoStride", ["has pyramid_strides (0, 1, 1, 1, 1), not five whole numbers"]),
        (f"{__name__}:WrittenStride", ["has pyramid_strides ('1', 1, 1, 1, 1), not five whole numbers"]),
        (f"{__name__}:NoStrides", ["has pyramid_strides None, not five whole numbers"]),
        (f"{__name__}:OddStride", ["has pyramid_strides (1, 1, 1, 1, 3), not powers of two"]),
        (
            f"{__name__}:FallingStride",
            ["has pyramid_strides (1, 2, 1, 1, 1), not powers of two of which none is below"],
        ),
        (f"{__name__}:NoMaps", ["NoMaps' returns a NoneType from its pyramid, not five maps"]),
        (f"{__name__}:NamedMaps", ["NamedMaps' returns a dict from its pyramid"]),
        (f"{__name__}:HalfMaps", ["HalfMaps' returns maps of torch.float16 from its pyramid"]),
    ],
)
def test_an_unfit_backbone_is_refused_in_one_line(name: str, words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        pyramid_backbone(name)
    assert "\n" not in str(refused.value)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("name", ["nonsense", f"{__name__}:Raising"])
def test_a_fault_is_said_of_the_key_that_names_the_backbone(name: str) -> None:
    for key in ("network.backbone", "irn.backbone"):
        with pytest.raises(InputError, match=f"^{key}: '"):
            pyramid_backbone(name, key)
