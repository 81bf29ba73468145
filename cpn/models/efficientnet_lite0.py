"""EfficientNet-Lite0 (Tan and Le 2019, the variant without squeeze and excitation) as a backbone of stride 16 or 8.

Names are those of the published PyTorch file, e.g. `_blocks.5._depthwise_conv.weight`, so that its ImageNet weights
load by name. Convolutions are padded as TensorFlow's "same", which depends on the image size, for the weights were
trained so: the output of stride s has ceil(n / s) cells. Sizes of k * stride + 1 are padded evenly on both sides.

The last stages keep their resolution in place of a stride; the depthwise convolutions behind such a place are dilated.
"""

from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

BN_EPSILON = 1e-3


class StageLayout(NamedTuple):
    """One row of the table below: inverted residual blocks, of which the first may have a stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


STAGES = (
    #          blocks kernel stride expansion in out
    StageLayout(1, 3, 1, 1, 32, 16),
    StageLayout(2, 3, 2, 6, 16, 24),
    StageLayout(2, 5, 2, 6, 24, 40),
    StageLayout(3, 3, 2, 6, 40, 80),
    StageLayout(3, 5, 1, 6, 80, 112),
    StageLayout(4, 5, 2, 6, 112, 192),
    StageLayout(1, 3, 1, 6, 192, 320),
)

STEM, TOP = 32, 1280
"""Channels of the first convolution and of the last."""

STAGE3, STAGE4 = 7, 10
"""Blocks whose outputs are "stage 3 and 4": the last before the fourth and before the fifth change of channels."""

PYRAMID = (0, 2, 4, 10)
"""Blocks whose outputs IRN reads beside the top: the last at strides 2, 4 and 8, and that of "stage 4"."""

FROZEN_BLOCKS = 3
"""Blocks that stay as pretrained together with the stem: those up to stride 4."""


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the cells that TensorFlow's "same" adds before and after a side of `size` cells."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "same".

    A depthwise convolution of dilation 2 is computed on the four images of every second row and column, each with
    dilation 1: the same sums, several times faster on a CPU, whose kernels for dilated depthwise convolutions are slow.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, dilation=dilation, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        return self.convolve(x, self.weight, None)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute the convolution with another weight, of the shape of its own, and a bias (outputs,)."""
        kernel, stride, dilation = self.kernel_size[0], self.stride[0], self.dilation[0]
        height, width = x.shape[-2:]
        if dilation > 1 and self.groups > 1 and x.device.type == "cpu":
            return self._by_phases(x, weight, bias, dilation)
        (top, bottom), (left, right) = (same_padding(n, kernel, stride, dilation) for n in (height, width))
        if top == bottom and left == right:
            return functional.conv2d(x, weight, bias, self.stride, (top, left), self.dilation, self.groups)
        padded = functional.pad(x, (left, right, top, bottom))
        return functional.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)

    def _by_phases(self, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        """Compute a dilated convolution of stride 1 on dilation^2 undilated images, each padded by (kernel - 1) / 2."""
        batch, channels, height, width = x.shape
        rows, columns = -(-height // dilation), -(-width // dilation)
        even = functional.pad(x, (0, columns * dilation - width, 0, rows * dilation - height))
        # Channels last, as the activations lie: every cell's channels are copied in one piece.
        cells = even.permute(0, 2, 3, 1).reshape(batch, rows, dilation, columns, dilation, channels)
        phases = cells.permute(0, 2, 4, 1, 3, 5).reshape(batch * dilation * dilation, rows, columns, channels)
        half = (self.kernel_size[0] - 1) // 2
        out = functional.conv2d(phases.permute(0, 3, 1, 2), weight, bias, 1, half, 1, self.groups)
        cells = out.permute(0, 2, 3, 1).reshape(batch, dilation, dilation, rows, columns, channels)
        whole = cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, rows * dilation, columns * dilation, channels)
        return whole[:, :height, :width].permute(0, 3, 1, 2)


def normalisation(channels: int) -> nn.BatchNorm2d:
    """Make the batch norm of a convolution's outputs, with TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=BN_EPSILON)


def convolved(convolution: SameConv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Convolve (B, inputs, H, W) and normalise the result.

    A batch norm that keeps its statistics is a factor and a shift for each channel: they are put into the convolution's
    weight and bias, which spares two passes over the activations and what backward keeps of them.
    """
    if norm.training:
        normalised: Tensor = norm(convolution(x))
        return normalised
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    weight = convolution.weight * scale[:, None, None, None]
    return convolution.convolve(x, weight, norm.bias - mean * scale)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection without activation; the input is added where it fits."""

    def __init__(self, layout: StageLayout, inputs: int, stride: int, dilation: int) -> None:
        super().__init__()
        inner = inputs * layout.expansion
        self.expands = layout.expansion > 1
        if self.expands:
            self._expand_conv = SameConv2d(inputs, inner, 1)
            self._bn0 = normalisation(inner)
        self._depthwise_conv = SameConv2d(inner, inner, layout.kernel, stride, dilation, groups=inner)
        self._bn1 = normalisation(inner)
        self._project_conv = SameConv2d(inner, layout.outputs, 1)
        self._bn2 = normalisation(layout.outputs)
        # The published network adds nothing in a stage's first block, whose stride may have been taken away here.
        self.adds = inputs == layout.outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        inner = functional.relu6(convolved(self._expand_conv, self._bn0, x)) if self.expands else x
        inner = functional.relu6(convolved(self._depthwise_conv, self._bn1, inner))
        out = convolved(self._project_conv, self._bn2, inner)
        return out + x if self.adds else out


def make_blocks(stride: int) -> nn.ModuleList:
    """Make the 16 blocks for a network of output stride `stride` (32 is the published network's)."""
    blocks = nn.ModuleList()
    reached, dilation = 2, 1
    for layout in STAGES:
        taken = layout.stride if reached * layout.stride <= stride else 1
        reached *= taken
        blocks.append(InvertedResidual(layout, layout.inputs, taken, dilation))
        dilation *= layout.stride // taken  # the block that lost its stride still reads neighbours at the old distance
        for _ in range(layout.blocks - 1):
            blocks.append(InvertedResidual(layout, layout.outputs, 1, dilation))
    return blocks


class EfficientNetLite0(nn.Module):
    """The backbone without the classifier `_fc`; see `cpn.models.backbone.Backbone`. 3,371,008 parameters.

    "Stage 3 and 4" are the outputs of blocks 7 and 10 (linear bottlenecks: values of both signs), the top is the ReLU6
    of the last convolution. Not in the paper, whose backbone is ResNet38. Batch norm keeps its pretrained statistics
    unless `freeze_batch_norm` is set to False.
    """

    channels = (80, 112, TOP)
    pyramid_channels = (16, 24, 40, 112, TOP)

    def __init__(self, stride: int = 16) -> None:
        """`stride` is 16 or 8."""
        super().__init__()
        self.stride = stride
        self.pyramid_strides = (2, 4, 8, stride, stride)
        self.freeze_batch_norm = True
        self._conv_stem = SameConv2d(3, STEM, 3, 2)
        self._bn0 = normalisation(STEM)
        self._blocks = make_blocks(stride)
        self._conv_head = SameConv2d(STAGES[-1].outputs, TOP, 1)
        self._bn1 = normalisation(TOP)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Like `nn.Module.train`, but batch norm keeps its running statistics while `freeze_batch_norm` is set."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) normalised images -> maps of 80, 112 and 1280 channels at (ceil(H/stride), ceil(W/stride))."""
        outputs, top = self._stages(images)
        return outputs[STAGE3], outputs[STAGE4], top

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, H, W) normalised images -> maps at strides 2, 4, 8, `stride` and `stride`, which IRN reads."""
        outputs, top = self._stages(images)
        first, second, third, fourth = (outputs[block] for block in PYRAMID)
        return first, second, third, fourth, top

    def _stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the outputs of all blocks and the top."""
        if images.device.type == "cpu":  # faster there for depthwise and 1x1 convolutions; every layer keeps the form
            images = images.contiguous(memory_format=torch.channels_last)
        x = functional.relu6(convolved(self._conv_stem, self._bn0, images))
        outputs = []
        for block in self._blocks:
            x = block(x)
            outputs.append(x)
        return outputs, functional.relu6(convolved(self._conv_head, self._bn1, x))

    def frozen_parameters(self) -> list[nn.Parameter]:
        """List stem, blocks up to stride 4 and all scales and shifts of batch norm, as CPN freezes of ResNet38."""
        normalisations = {m for m in self.modules() if isinstance(m, nn.BatchNorm2d)}
        stem = {self._conv_stem, *(m for block in self._blocks[:FROZEN_BLOCKS] for m in block.modules())}
        frozen = [m for m in self.modules() if m in normalisations or m in stem]
        return [parameter for module in frozen for parameter in module.parameters(recurse=False)]


def stride_8() -> EfficientNetLite0:
    """Make the backbone with output stride 8."""
    return EfficientNetLite0(stride=8)
