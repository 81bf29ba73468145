"""ResNet-50 against torchvision's, which made tests/reference/resnet50_forward.npz once and is no dependency.

It was made with torchvision 0.28.0: resnet50(replace_stride_with_dilation=[False, True, True]) in eval mode, every
entry of its state dict filled by the rule of `tests.cpn.models.test_resnet38d.reference_value`, run on `x` =
RandomState(0).standard_normal((1, 3, 48, 64)) as float32. `stage3`, `stage4` and `top` are its layer2, layer3 and
layer4: the first four channels of each, and mean and standard deviation over all. Run side by side then, on inputs of
48 x 64, 45 x 61, 33 x 9, 8 x 8 and 1 x 1, the two networks' maps did not differ in one bit.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cpn.models.resnet50 import Bottleneck, ResNet50
from tests.cpn.models.test_resnet38d import close, fill_with_reference_values

REFERENCE = Path(__file__).parents[2] / "reference" / "resnet50_forward.npz"


def on_meta() -> ResNet50:
    with torch.device("meta"):
        return ResNet50()


@pytest.fixture(scope="module")
def reference() -> dict[str, NDArray[np.float32]]:
    with np.load(REFERENCE, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def taps(reference: dict[str, NDArray[np.float32]]) -> tuple[Tensor, ...]:
    network = on_meta().to_empty(device="cpu").eval()
    fill_with_reference_values(network)
    with torch.no_grad():
        return tuple(network(torch.from_numpy(reference["x"])))


@pytest.mark.parametrize(("index", "name"), [(0, "stage3"), (1, "stage4"), (2, "top")])
def test_taps_equal_those_of_torchvision(
    taps: tuple[Tensor, ...], reference: dict[str, NDArray[np.float32]], index: int, name: str
) -> None:
    assert taps[index].shape == (1, ResNet50.channels[index], 6, 8)
    close(taps[index][:, :4], reference[f"{name}_first4"])
    assert float(taps[index].mean()) == pytest.approx(reference["means"][index], rel=1e-4)
    assert float(taps[index].std()) == pytest.approx(reference["stds"][index], rel=1e-4)


def batch_norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")
    }
    return {**shapes, f"{name}.num_batches_tracked": ()}


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's ResNet-50 without fc, in order, written from the layer table of the paper."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **batch_norm("bn1", 64)}
    inputs = 64
    for number, (blocks, middle) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for block in range(blocks):
            at = f"layer{number}.{block}"
            shapes |= {f"{at}.conv1.weight": (middle, inputs, 1, 1), **batch_norm(f"{at}.bn1", middle)}
            shapes |= {f"{at}.conv2.weight": (middle, middle, 3, 3), **batch_norm(f"{at}.bn2", middle)}
            shapes |= {f"{at}.conv3.weight": (4 * middle, middle, 1, 1), **batch_norm(f"{at}.bn3", 4 * middle)}
            if block == 0:
                shapes[f"{at}.downsample.0.weight"] = (4 * middle, inputs, 1, 1)
                shapes |= batch_norm(f"{at}.downsample.1", 4 * middle)
            inputs = 4 * middle
    return shapes


def test_names_and_shapes_are_those_of_the_published_weights() -> None:
    ours = [(name, tuple(value.shape)) for name, value in on_meta().state_dict().items()]
    assert ours == list(published_shapes().items())
    assert sum(p.numel() for p in on_meta().parameters()) == 23_508_032  # torchvision says 25,557,032 with fc
    assert 23_508_032 + 2048 * 1000 + 1000 == 25_557_032


def test_stage_one_and_batch_norm_are_frozen() -> None:
    network = on_meta()
    frozen = {id(p) for p in network.frozen_parameters()}
    assert len(frozen) == len(network.frozen_parameters())
    names = {name for name, p in network.named_parameters() if id(p) in frozen}
    expected = {name for name, p in network.named_parameters() if p.ndim == 1}
    expected |= {name for name, _ in network.named_parameters() if name.startswith(("conv1.", "layer1."))}
    assert names == expected
    # 53 convolutions; conv1 and the ten of layer1 stay.
    assert len([p for p in network.parameters() if p.ndim == 4]) == 53
    assert len([p for p in network.parameters() if id(p) not in frozen]) == 42


def test_dilations_stand_where_torchvision_puts_them() -> None:
    convolutions = {name: m for name, m in on_meta().named_modules() if isinstance(m, nn.Conv2d)}
    dilated = {name: m.dilation[0] for name, m in convolutions.items() if m.dilation != (1, 1)}
    assert dilated == {
        **{f"layer3.{block}.conv2": 2 for block in range(1, 6)},
        "layer4.0.conv2": 2,
        "layer4.1.conv2": 4,
        "layer4.2.conv2": 4,
    }
    strided = {name for name, m in convolutions.items() if m.stride != (1, 1)}
    assert strided == {"conv1", "layer2.0.conv2", "layer2.0.downsample.0"}


def test_a_block_by_hand() -> None:
    """One channel in, four out, one pixel: relu(shortcut + 2 relu(3 relu(x))) with the middle tap of the 3x3."""
    block = Bottleneck(4, 1, 1, 1).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        for norm in (block.bn1, block.bn2, block.bn3):
            norm.weight.fill_(1)
            norm.eps = 0
        block.conv1.weight[0, 0] = 1
        block.conv2.weight[0, 0, 1, 1] = 3
        block.conv3.weight[1, 0] = 2
        assert block.downsample is None
        out = block(torch.tensor([5.0, -7.0, -1.0, 2.0]).view(1, 4, 1, 1))
    assert out.flatten().tolist() == [5, 23, 0, 2]  # -7 + 2 * 3 * 5 = 23


def test_batch_norm_keeps_its_statistics_unless_told_otherwise() -> None:
    network = on_meta()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 53 and network.training and not any(norm.training for norm in norms)
    network.freeze_batch_norm = False
    network.train()
    assert all(norm.training for norm in norms)
    assert not any(module.training for module in network.eval().modules())
