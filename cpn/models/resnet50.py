"""ResNet-50 (He and others 2016, as torchvision builds it) with dilations: a backbone of output stride 8.

Names are torchvision's, e.g. `layer3.0.downsample.1.running_var`, so that its ImageNet weights load by name. The stride
is in the 3x3 convolution of a block, and layer3 and layer4 have dilation in place of stride, as torchvision's
`replace_stride_with_dilation=[False, True, True]` does it: the 3x3 convolution of a stage's first block keeps the
dilation of the stage before it, 1 in layer3.0 and 2 in layer4.0; the blocks after it have 2 and 4.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

EXPANSION = 4
"""Channels out of a block, as a multiple of those of its 3x3 convolution."""


class StageLayout(NamedTuple):
    """One row of the table below: a stage of bottleneck blocks."""

    name: str
    blocks: int
    inputs: int
    middle: int
    stride: int
    first_dilation: int
    dilation: int


STAGES = (
    #           name   blocks in  middle stride first_dilation dilation
    StageLayout("layer1", 3, 64, 64, 1, 1, 1),
    StageLayout("layer2", 4, 256, 128, 2, 1, 1),
    StageLayout("layer3", 6, 512, 256, 1, 1, 2),
    StageLayout("layer4", 3, 1024, 512, 1, 2, 4),
)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3, 1x1, a batch norm behind each, plus a shortcut; ReLU behind the first two and the sum.

    The shortcut is the input where its shape is kept, else a 1x1 convolution and a batch norm of it.
    """

    def __init__(self, inputs: int, middle: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = EXPANSION * middle
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if inputs != outputs or stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 middle, ceil(H / stride), ceil(W / stride))."""
        branch = torch.relu(self.bn1(self.conv1(x)))
        branch = torch.relu(self.bn2(self.conv2(branch)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.bn3(self.conv3(branch)) + shortcut)


def stage(layout: StageLayout) -> nn.Sequential:
    """Return the blocks of one stage; the first has its stride and the dilation of the stage before."""
    first = Bottleneck(layout.inputs, layout.middle, layout.stride, layout.first_dilation)
    outputs = EXPANSION * layout.middle
    rest = [Bottleneck(outputs, layout.middle, 1, layout.dilation) for _ in range(layout.blocks - 1)]
    return nn.Sequential(first, *rest)


class ResNet50(nn.Module):
    """The backbone without the classifier `fc`; see `cpn.models.backbone.Backbone`. 23,508,032 parameters.

    "Stage 3 and 4" are the outputs of layer2 and layer3, the top is that of layer4. Not in the paper, whose backbone is
    ResNet38. Batch norm keeps its pretrained statistics unless `freeze_batch_norm` is set to False.
    """

    channels = (512, 1024, 2048)
    stride = 8
    pyramid_channels = (64, 256, 512, 1024, 2048)
    pyramid_strides = (4, 4, 8, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.freeze_batch_norm = True
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1, self.layer2, self.layer3, self.layer4 = (stage(layout) for layout in STAGES)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Like `nn.Module.train`, but batch norm keeps its running statistics while `freeze_batch_norm` is set."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def stem(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 64, ceil(H/4), ceil(W/4)): convolution and 3x3 maximum, both of stride 2."""
        return functional.max_pool2d(torch.relu(self.bn1(self.conv1(images))), 3, 2, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) normalised images -> maps of 512, 1024 and 2048 channels at (ceil(H/8), ceil(W/8)).

        All three are outputs of a ReLU. Gradients flow through all three, as in ResNet38.
        """
        _, _, stage3, stage4, top = self.pyramid(images)
        return stage3, stage4, top

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, H, W) normalised images -> the outputs of the stem and of layer1 to layer4, at strides 4, 4, 8, 8, 8.

        IRN reads them. Its own ResNet50 keeps the stride of layer3, so that the last two maps have stride 16 there.
        """
        stem = self.stem(images)
        layer1: Tensor = self.layer1(stem)
        layer2: Tensor = self.layer2(layer1)
        layer3: Tensor = self.layer3(layer2)
        layer4: Tensor = self.layer4(layer3)
        return stem, layer1, layer2, layer3, layer4

    def frozen_parameters(self) -> list[nn.Parameter]:
        """conv1, bn1, all of layer1, and the affine parameters of every batch norm: what CPN freezes of ResNet38."""
        normalisations = {m for m in self.modules() if isinstance(m, nn.BatchNorm2d)}
        stem = {self.conv1, *self.layer1.modules()}
        frozen = [m for m in self.modules() if m in normalisations or m in stem]
        return [parameter for module in frozen for parameter in module.parameters(recurse=False)]
