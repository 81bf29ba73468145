"""EfficientNet-Lite0 against an independent forward of the same published weights.

tests/reference/efficientnet_lite0_forward.npz was made once with the package efficientnet-lite-pytorch 0.1.0 (no
dependency) and the published weights, in eval mode and with its padding by image size, on
RandomState(0).standard_normal((1, 3, H, W)) as float32: blocks 7 and 10 ("stage 3 and 4") and the top, at its stride of
32; the first four channels, and mean and standard deviation.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cpn.models.efficientnet_lite0 import EfficientNetLite0, SameConv2d, convolved, same_padding, stride_8
from cpn.models.imagenet import published_file
from cpn.models.weights import load_backbone_weights

REFERENCE = Path(__file__).parents[2] / "reference" / "efficientnet_lite0_forward.npz"


def pretrained(stride: int) -> EfficientNetLite0:
    backbone = EfficientNetLite0(stride)
    report = load_backbone_weights(backbone, published_file(backbone))
    assert len(report.loaded) == 245 and report.unexpected == ("_fc.weight", "_fc.bias")
    return backbone.eval()


def picture(height: int, width: int) -> Tensor:
    noise = np.random.RandomState(0).standard_normal((1, 3, height, width))
    return torch.from_numpy(noise.astype(np.float32))


@pytest.mark.parametrize(("height", "width"), [(65, 97), (64, 50)])
def test_maps_equal_the_independent_forward(height: int, width: int) -> None:
    with torch.no_grad():
        maps = pretrained(32)(picture(height, width))
    with np.load(REFERENCE, allow_pickle=False) as reference:
        for name, given in zip(("stage3", "stage4", "top"), maps, strict=True):
            wanted = torch.from_numpy(reference[f"{name}_{height}x{width}"])
            torch.testing.assert_close(given[:, :4], wanted, rtol=1e-4, atol=1e-4)
            moments = torch.from_numpy(reference[f"{name}_{height}x{width}_moments"])
            torch.testing.assert_close(torch.stack([given.mean(), given.std()]), moments, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [16, 8])
def test_the_pyramid_has_the_maps_that_irn_reads(stride: int) -> None:
    network, image = EfficientNetLite0(stride).eval(), picture(33, 50)
    with torch.no_grad():
        maps, (_, stage4, top) = network.pyramid(image), network(image)
    strides = network.pyramid_strides
    assert strides == (2, 4, 8, stride, stride)
    cells = [(-(-33 // step), -(-50 // step)) for step in strides]
    assert [tuple(m.shape[1:]) for m in maps] == [
        (channels, *size) for channels, size in zip(network.pyramid_channels, cells, strict=True)
    ]
    assert torch.equal(maps[3], stage4) and torch.equal(maps[4], top)


def test_a_smaller_stride_reads_the_same_cells() -> None:
    """At stride 16 every second cell of the first block without its stride has the inputs that it had at stride 32."""
    image = picture(97, 129)
    coarse, fine = pretrained(32), pretrained(16)
    with torch.no_grad():
        stage3, stage4, top = fine(image)
        assert torch.equal(stage4, coarse(image)[1])
        first_coarse, first_fine = coarse._blocks[11](stage4), fine._blocks[11](stage4)
    torch.testing.assert_close(first_fine[..., ::2, ::2], first_coarse, rtol=1e-4, atol=1e-4)
    assert top.shape[-2:] == stage3.shape[-2:] == (7, 9)


@pytest.mark.parametrize("size", [(17, 17), (16, 9), (1, 2)])
@pytest.mark.parametrize("dilation", [2, 4])
def test_a_dilated_depthwise_convolution_by_phases_is_the_same(size: tuple[int, int], dilation: int) -> None:
    torch.manual_seed(0)
    layer = SameConv2d(6, 6, 5, dilation=dilation, groups=6)
    x = torch.randn(2, 6, *size, requires_grad=True)
    reach = 2 * dilation
    wanted = functional.conv2d(functional.pad(x, (reach,) * 4), layer.weight, None, 1, 0, dilation, 6)
    torch.testing.assert_close(layer(x), wanted)
    gradient = torch.randn_like(wanted)
    given_gradient, wanted_gradient = (torch.autograd.grad(out, x, gradient)[0] for out in (layer(x), wanted))
    torch.testing.assert_close(given_gradient, wanted_gradient)


def test_kept_statistics_are_folded_into_the_convolution() -> None:
    torch.manual_seed(0)
    layer, norm = SameConv2d(6, 8, 3), nn.BatchNorm2d(8).eval()
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        values.data.uniform_(0.5, 2)
    x = torch.randn(2, 6, 9, 7, requires_grad=True)
    inputs, weighting = (x, layer.weight, norm.weight, norm.bias), torch.randn(2, 8, 9, 7)
    given, wanted = convolved(layer, norm, x), norm(layer(x))
    torch.testing.assert_close(given, wanted)
    for one, other in zip(*(torch.autograd.grad(out, inputs, weighting) for out in (given, wanted)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_statistics_that_train_are_those_of_the_batch() -> None:
    torch.manual_seed(0)
    layer, norm, x = SameConv2d(6, 8, 3), nn.BatchNorm2d(8), 5 + torch.randn(4, 6, 9, 7)
    moments = convolved(layer, norm, x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(moments.mean(dim=1), torch.zeros(8), rtol=0, atol=1e-5)
    assert norm.num_batches_tracked == 1 and norm.running_mean.abs().max() > 0


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "padding"),
    [(8, 3, 2, 1, (0, 1)), (9, 3, 2, 1, (1, 1)), (8, 5, 1, 1, (2, 2)), (8, 5, 2, 1, (1, 2)), (17, 5, 1, 2, (4, 4))],
)
def test_same_padding(size: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride, dilation) == padding


@pytest.mark.parametrize(("stride", "dilations"), [(16, {1, 2}), (8, {1, 2, 4})])
def test_dilations_stand_for_the_strides_taken_away(stride: int, dilations: set[int]) -> None:
    with torch.device("meta"):
        blocks = EfficientNetLite0(stride)._blocks
    assert {block._depthwise_conv.dilation[0] for block in blocks} == dilations


def test_parameters_and_what_stays_frozen() -> None:
    with torch.device("meta"):
        backbone = stride_8()
    assert sum(p.numel() for p in backbone.parameters()) == 3_371_008
    frozen = {id(p) for p in backbone.frozen_parameters()}
    assert {n for n, p in backbone.named_parameters() if id(p) in frozen and not n.startswith("_blocks")} == {
        "_conv_stem.weight", "_bn0.weight", "_bn0.bias", "_bn1.weight", "_bn1.bias",
    }  # fmt: skip
    assert not backbone.train()._bn0.training
    backbone.freeze_batch_norm = False
    assert all(m.training for m in backbone.train().modules() if isinstance(m, nn.BatchNorm2d))
