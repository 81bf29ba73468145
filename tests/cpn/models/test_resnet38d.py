"""ResNet38: names, counts and numbers of the reference, and what is frozen when."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cpn.config.network import NetworkConfig
from cpn.models.network import CPN
from cpn.models.resnet38d import BOTTLENECK_BLOCKS, TWO_CONV_BLOCKS, BottleneckBlock, ResNet38, TwoConvBlock

REFERENCE = Path(__file__).parents[2] / "reference"
LAYERS = json.loads((REFERENCE / "cpn_net_layers.json").read_text())
HEAD = ("fc8.", "f8_3.", "f8_4.", "f9.", "f10.")


def reference_value(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The deterministic weight that the reference forward was computed with (its rule, seeded by the name)."""
    x = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(int(np.prod(shape)))
    if name.endswith("running_mean"):
        x = 0.1 * x
    elif name.endswith("running_var"):
        x = 1 + 0.1 * np.abs(x)
    elif len(shape) == 4:
        x = x * np.sqrt(1 / (shape[1] * shape[2] * shape[3]))
    else:
        x = 1 + 0.1 * x if name.endswith(".weight") else 0.1 * x
    return x.reshape(shape).astype(np.float32)


def fill_with_reference_values(network: nn.Module) -> None:
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                value.copy_(torch.from_numpy(reference_value(name.removeprefix("backbone."), tuple(value.shape))))


@pytest.fixture(scope="module")
def forward() -> dict[str, NDArray[np.float32]]:
    with np.load(REFERENCE / "cpn_net_forward.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def network() -> CPN:
    """The whole CAM network in the released view of PRCM: one copy of 105 million parameters for the module."""
    with torch.device("meta"):
        network = CPN(ResNet38(), 21, NetworkConfig(prcm_transposed=False))
    network.to_empty(device="cpu")
    fill_with_reference_values(network)
    return network.eval()


def on_meta(**switches: bool) -> ResNet38:
    with torch.device("meta"):
        return ResNet38(**switches)


def close(actual: Tensor, expected: NDArray[np.float32]) -> None:
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-3, atol=1e-4 * scale)


def test_names_and_shapes_are_those_of_the_released_weights() -> None:
    state = on_meta().state_dict()
    ours = [[name, list(value.shape)] for name, value in state.items() if not name.endswith("num_batches_tracked")]
    assert ours == [entry for entry in LAYERS["state_dict"] if not entry[0].startswith(HEAD)]


def test_parameter_counts_and_the_frozen_list() -> None:
    network = on_meta()
    assert sum(p.numel() for p in network.parameters()) == LAYERS["n_parameters_backbone"] == 105_070_912
    names = {id(p): name for name, p in network.named_parameters()}
    assert [names[id(p)] for p in network.frozen_parameters()] == LAYERS["frozen_parameters"]
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert len(trained) == LAYERS["group_sizes_after_train"][0] == 35
    head = LAYERS["n_parameters"] - LAYERS["n_parameters_backbone"]
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) + head == 104_526_976


def test_taps_equal_the_reference(network: CPN, forward: dict[str, NDArray[np.float32]]) -> None:
    with torch.no_grad():
        taps = network.backbone(torch.from_numpy(forward["x"]))
        low = network.fc8(taps[2])
    assert tuple(tap.shape[1] for tap in taps) == ResNet38.channels
    for index, (tap, name) in enumerate(zip(taps, ("conv4", "conv5", "conv6"), strict=True)):
        close(tap[:, :4], forward[f"{name}_first4"])
        assert float(tap.mean()) == pytest.approx(forward["means"][index], rel=1e-3)
        assert float(tap.std()) == pytest.approx(forward["stds"][index], rel=1e-3)
    close(low, forward["cam_lowres"])


def test_the_whole_network_equals_the_reference(network: CPN, forward: dict[str, NDArray[np.float32]]) -> None:
    assert sum(p.numel() for p in network.parameters()) == LAYERS["n_parameters"]
    with torch.no_grad():
        cam, refined = network(torch.from_numpy(forward["x"]))
    kept = forward["kept_channels"].tolist()
    close(cam[:, kept], forward["cam"])
    close(refined[:, kept], forward["refined"])


@pytest.mark.parametrize(("height", "width"), [(8, 9), (17, 31), (63, 65)])
def test_output_size_is_the_ceiling_of_an_eighth(height: int, width: int) -> None:
    taps = on_meta()(torch.empty(1, 3, height, width, device="meta"))
    assert {tuple(tap.shape[2:]) for tap in taps} == {(-(-height // 8), -(-width // 8))}


def test_training_keeps_batch_norm_still_by_default() -> None:
    still, moving = on_meta(), on_meta(freeze_batch_norm=False, freeze_stem=False)
    assert not any(m.training for m in still.train().modules() if isinstance(m, nn.BatchNorm2d))
    assert all(m.training for m in moving.train().modules() if isinstance(m, nn.BatchNorm2d))
    assert all(m.training for m in still.modules() if isinstance(m, nn.Dropout2d))
    assert not any(m.training for m in moving.eval().modules())
    assert {p.ndim for p in moving.frozen_parameters()} == {1}
    assert all(p.requires_grad for p in moving.parameters() if p.ndim == 4)


def test_a_fresh_network_already_keeps_its_statistics() -> None:
    network = on_meta()
    assert network.training and not network.bn7.training


def test_dropout_rates() -> None:
    network = on_meta()
    rates = {name: m.p for name, m in network.named_modules() if isinstance(m, nn.Dropout2d)}
    assert rates == {"b6.dropout": 0.3, "b7.dropout": 0.5}


def dilation_reach(block: nn.Module, inputs: int) -> int:
    """How far from the middle pixel a change of the input is seen in the output, in pixels."""
    x = torch.randn(1, inputs, 1, 41, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[..., 20] += 1
    with torch.no_grad():
        difference = (block.eval()(x)[0] - block(changed)[0]).abs().sum(dim=(0, 1, 2))
    return int(difference.nonzero().max()) - 20


def test_reach_of_a_block_is_the_sum_of_its_dilations() -> None:
    torch.manual_seed(0)
    two_conv = next(layout for layout in TWO_CONV_BLOCKS if layout.name == "b5")
    assert dilation_reach(TwoConvBlock(two_conv._replace(inputs=4, middle=4, outputs=8), 0.1), 4) == 1 + 2
    bottleneck = BOTTLENECK_BLOCKS[0]._replace(inputs=4, reduced=4, middle=4, outputs=8)
    assert dilation_reach(BottleneckBlock(bottleneck, 0.1), 4) == 4


def test_dropout_drops_whole_channels_after_each_inner_relu() -> None:
    torch.manual_seed(0)
    block = BottleneckBlock(BOTTLENECK_BLOCKS[0]._replace(inputs=4, reduced=16, middle=16, outputs=8, dropout=0.5), 0.1)
    seen: list[Tensor] = []
    for convolution in (block.conv_branch2b1, block.conv_branch2b2):
        convolution.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    block.train()(torch.rand(2, 4, 6, 6) + 0.5)
    for activation in seen:
        silent = (activation == 0).all(dim=(2, 3)).float().mean()
        assert 0.2 < float(silent) < 0.9


def test_gradients_stop_at_the_stem() -> None:
    network = on_meta()
    blocks = [network.b2_2, network.b3]
    for block in blocks:
        block.to_empty(device="cpu")
        for tensor in block.state_dict().values():
            tensor.fill_(1)
    x, _ = blocks[0](torch.rand(1, 128, 4, 4))
    assert not x.requires_grad
    x, _ = blocks[1](x)
    x.sum().backward()
    assert network.b3.conv_branch2a.weight.grad is not None
    assert network.b3.bn_branch2a.weight.grad is None
