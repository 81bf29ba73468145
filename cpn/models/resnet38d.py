"""ResNet38 (Wu, Shen, van den Hengel 2016, model A1) with dilations: the backbone of CPN at output stride 8.

Names are those of the PyTorch weights that AffinityNet, SEAM and CPN share, e.g. `b4_2.conv_branch2a.weight`, so that
their files load by name. No convolution has a bias and every block normalises before it convolves (method.md (c)).
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


class TwoConvLayout(NamedTuple):
    """One row of the table below: a block of two 3x3 convolutions."""

    name: str
    inputs: int
    middle: int
    outputs: int
    stride: int
    first_dilation: int
    dilation: int


class BottleneckLayout(NamedTuple):
    """One row of the table below: a block of 1x1, 3x3 and 1x1 convolutions."""

    name: str
    inputs: int
    reduced: int
    middle: int
    outputs: int
    dilation: int
    dropout: float


TWO_CONV_BLOCKS = (
    #             name    in    middle out  stride first_dilation dilation
    TwoConvLayout("b2", 64, 128, 128, 2, 1, 1),
    TwoConvLayout("b2_1", 128, 128, 128, 1, 1, 1),
    TwoConvLayout("b2_2", 128, 128, 128, 1, 1, 1),
    TwoConvLayout("b3", 128, 256, 256, 2, 1, 1),
    TwoConvLayout("b3_1", 256, 256, 256, 1, 1, 1),
    TwoConvLayout("b3_2", 256, 256, 256, 1, 1, 1),
    TwoConvLayout("b4", 256, 512, 512, 2, 1, 1),
    TwoConvLayout("b4_1", 512, 512, 512, 1, 1, 1),
    TwoConvLayout("b4_2", 512, 512, 512, 1, 1, 1),
    TwoConvLayout("b4_3", 512, 512, 512, 1, 1, 1),
    TwoConvLayout("b4_4", 512, 512, 512, 1, 1, 1),
    TwoConvLayout("b4_5", 512, 512, 512, 1, 1, 1),
    TwoConvLayout("b5", 512, 512, 1024, 1, 1, 2),
    TwoConvLayout("b5_1", 1024, 512, 1024, 1, 2, 2),
    TwoConvLayout("b5_2", 1024, 512, 1024, 1, 2, 2),
)
BOTTLENECK_BLOCKS = (
    #                name  in   reduced middle out dilation dropout
    BottleneckLayout("b6", 1024, 512, 1024, 2048, 4, 0.3),
    BottleneckLayout("b7", 2048, 1024, 2048, 4096, 4, 0.5),
)
STEM = ("conv1a", "b2", "b2_1", "b2_2")


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Return a bias-free convolution whose padding keeps the size, so that stride s gives ceil(size / s)."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=padding, dilation=dilation, bias=False)


class TwoConvBlock(nn.Module):
    """BN-ReLU-conv3x3-BN-ReLU-conv3x3 plus a shortcut.

    The shortcut is the input where the shape is kept, else a 1x1 convolution of the first BN-ReLU.
    """

    def __init__(self, layout: TwoConvLayout, momentum: float) -> None:
        super().__init__()
        _, inputs, middle, outputs, stride, first_dilation, dilation = layout
        self.bn_branch2a = nn.BatchNorm2d(inputs, momentum=momentum)
        self.conv_branch2a = convolution(inputs, middle, 3, stride, first_dilation)
        self.bn_branch2b1 = nn.BatchNorm2d(middle, momentum=momentum)
        self.conv_branch2b1 = convolution(middle, outputs, 3, dilation=dilation)
        same_shape = inputs == outputs and stride == 1
        self.conv_branch1 = None if same_shape else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs, H, W) -> the output (B, outputs, H/stride, W/stride) and the first BN-ReLU, of x's shape."""
        activated = torch.relu(self.bn_branch2a(x))
        shortcut = x if self.conv_branch1 is None else self.conv_branch1(activated)
        branch = self.conv_branch2a(activated)
        branch = self.conv_branch2b1(torch.relu(self.bn_branch2b1(branch)))
        return shortcut + branch, activated


class BottleneckBlock(nn.Module):
    """BN-ReLU-conv1x1, BN-ReLU-dropout-conv3x3, BN-ReLU-dropout-conv1x1, plus a 1x1 shortcut of the first BN-ReLU."""

    def __init__(self, layout: BottleneckLayout, momentum: float) -> None:
        super().__init__()
        _, inputs, reduced, middle, outputs, dilation, dropout = layout
        self.bn_branch2a = nn.BatchNorm2d(inputs, momentum=momentum)
        self.conv_branch2a = convolution(inputs, reduced, 1)
        self.bn_branch2b1 = nn.BatchNorm2d(reduced, momentum=momentum)
        self.conv_branch2b1 = convolution(reduced, middle, 3, dilation=dilation)
        self.bn_branch2b2 = nn.BatchNorm2d(middle, momentum=momentum)
        self.conv_branch2b2 = convolution(middle, outputs, 1)
        self.conv_branch1 = convolution(inputs, outputs, 1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs, H, W) -> the block's output (B, outputs, H, W) and its first BN-ReLU (B, inputs, H, W)."""
        activated = torch.relu(self.bn_branch2a(x))
        branch = self.conv_branch2a(activated)
        branch = self.conv_branch2b1(self.dropout(torch.relu(self.bn_branch2b1(branch))))
        branch = self.conv_branch2b2(self.dropout(torch.relu(self.bn_branch2b2(branch))))
        return self.conv_branch1(activated) + branch, activated


class ResNet38(nn.Module):
    """The backbone; see `cpn.models.backbone.Backbone` for the interface. 105,070,912 parameters.

    CPN and AffinityNet use it as it comes. The released DeepLab instead normalises with the statistics of the batch
    (`freeze_batch_norm=False`) and trains the stem (`freeze_stem=False`); the affine parameters of batch norm are
    constant there too, so they are always frozen (method.md (i)). `momentum` is that of the running statistics and
    matters only with `freeze_batch_norm=False`.
    """

    channels = (512, 1024, 4096)
    stride = 8
    pyramid_channels = (128, 256, 512, 1024, 4096)
    pyramid_strides = (2, 4, 8, 8, 8)

    def __init__(self, freeze_batch_norm: bool = True, freeze_stem: bool = True, momentum: float = 3e-4) -> None:
        super().__init__()
        self.freeze_batch_norm = freeze_batch_norm
        self.freeze_stem = freeze_stem
        self.conv1a = convolution(3, 64, 3)
        for two_conv in TWO_CONV_BLOCKS:
            self.add_module(two_conv.name, TwoConvBlock(two_conv, momentum))
        for bottleneck in BOTTLENECK_BLOCKS:
            self.add_module(bottleneck.name, BottleneckBlock(bottleneck, momentum))
        self.bn7 = nn.BatchNorm2d(4096, momentum=momentum)
        for parameter in self.frozen_parameters():
            # Nothing below the first trained layer has to be kept for the backward pass: gigabytes at 448 x 448.
            parameter.requires_grad_(False)
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
        """(B, 3, H, W) normalised images -> conv4, conv5, conv6 of 512, 1024, 4096 channels at (ceil(H/8), ceil(W/8)).

        conv4 is the first BN-ReLU inside b5 and conv5 the one inside b6 ("stage 3 and 4" of the paper); conv6 is
        ReLU(bn7). Gradients flow through all three: the correlation modules detach what they take.
        """
        conv4, conv5, conv6 = self._taps(images, ("b5", "b6"))
        return conv4, conv5, conv6

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, H, W) normalised images -> what comes out of b2, b3, b4, b5 and b7, normalised and through a ReLU.

        The first BN-ReLU inside b3, b4, b5 and b6, and conv6: at strides 2, 4, 8, 8, 8. IRN reads them.
        """
        conv2, conv3, conv4, conv5, conv6 = self._taps(images, ("b3", "b4", "b5", "b6"))
        return conv2, conv3, conv4, conv5, conv6

    def _taps(self, images: Tensor, names: tuple[str, ...]) -> list[Tensor]:
        """Return the first BN-ReLU inside the blocks of `names`, then ReLU(bn7)."""
        x = self.conv1a(images)
        taps = []
        for layout in TWO_CONV_BLOCKS + BOTTLENECK_BLOCKS:
            x, activated = self.get_submodule(layout.name)(x)
            if layout.name in names:
                taps.append(activated)
        return [*taps, torch.relu(self.bn7(x))]

    def frozen_parameters(self) -> list[nn.Parameter]:
        """Return the affine parameters of every batch norm and, with `freeze_stem`, all of conv1a, b2, b2_1 and
        b2_2.
        """
        normalisations = {m for m in self.modules() if isinstance(m, nn.BatchNorm2d)}
        stem = {m for name in STEM for m in self.get_submodule(name).modules()} if self.freeze_stem else set()
        frozen = [m for m in self.modules() if m in normalisations or m in stem]
        return [parameter for module in frozen for parameter in module.parameters(recurse=False)]
