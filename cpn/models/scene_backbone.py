"""A small backbone for the synthetic scenes: stride 4, receptive field of 15 pixels, frozen batch norm.

It stands where ResNet38 stands on photographs, behind the same interface. The receptive field is smaller than a body
on purpose: a network that sees the whole scene at every pixel would paint a map over all of it.
"""

from torch import Tensor, nn


class ConvBlock(nn.Sequential):
    """3x3 or 1x1 convolution, batch norm with fixed statistics, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


class SceneBackbone(nn.Module):
    """Seven convolutions, 27 thousand parameters; see `cpn.models.backbone.Backbone` for the interface."""

    channels = (32, 64, 96)
    stride = 4
    pyramid_channels = (16, 24, 32, 64, 96)
    pyramid_strides = (1, 2, 4, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.freeze_batch_norm = True
        self.stem = nn.Sequential(ConvBlock(3, 16, 3, 1), ConvBlock(16, 16, 3, 1))
        self.stage2 = nn.Sequential(ConvBlock(16, 24, 3, 2), ConvBlock(24, 24, 3, 1))
        self.stage3 = ConvBlock(24, 32, 3, 2)
        self.stage4 = ConvBlock(32, 64, 1, 1)
        self.top = ConvBlock(64, 96, 1, 1)

    def train(self, mode: bool = True) -> "SceneBackbone":
        """Like `nn.Module.train`, but batch norm keeps its running statistics while `freeze_batch_norm` is set."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) -> maps of 32, 64 and 96 channels at (ceil(H/4), ceil(W/4))."""
        _, _, stage3, stage4, top = self.pyramid(images)
        return stage3, stage4, top

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, H, W) -> the outputs of all five parts in turn, at strides 1, 2, 4, 4, 4."""
        stem: Tensor = self.stem(images)
        stage2: Tensor = self.stage2(stem)
        stage3: Tensor = self.stage3(stage2)
        stage4: Tensor = self.stage4(stage3)
        top: Tensor = self.top(stage4)
        return stem, stage2, stage3, stage4, top

    def frozen_parameters(self) -> list[nn.Parameter]:
        """Return the affine parameters of every batch norm."""
        return [p for m in self.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
