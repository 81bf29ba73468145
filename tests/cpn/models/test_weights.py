"""Pretrained weights of backbones: the names, what fits, what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from cpn.core.errors import InputError
from cpn.models.resnet38d import BOTTLENECK_BLOCKS, TWO_CONV_BLOCKS, BottleneckBlock, TwoConvBlock
from cpn.models.resnet50 import ResNet50
from cpn.models.weights import RESNET38_FILE, compare, load_backbone_weights, mxnet_name, read_weights
from tests.cpn.models.test_mxnet_params import params_bytes

REFERENCE = Path(__file__).parents[2] / "reference"


class Tiny(nn.Module):
    """A ResNet38 of three blocks and few channels, with the names of the real one."""

    channels = (4, 4, 8)
    stride = 2

    def __init__(self) -> None:
        super().__init__()
        self.conv1a = nn.Conv2d(3, 2, 3, padding=1, bias=False)
        self.b2 = TwoConvBlock(TWO_CONV_BLOCKS[0]._replace(inputs=2, middle=2, outputs=4), 0.1)
        self.b2_1 = TwoConvBlock(TWO_CONV_BLOCKS[1]._replace(inputs=4, middle=4, outputs=4), 0.1)
        self.b6 = BottleneckBlock(BOTTLENECK_BLOCKS[0]._replace(inputs=4, reduced=2, middle=2, outputs=8), 0.1)
        self.bn7 = nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, _ = self.b2(self.conv1a(images))
        x, first = self.b2_1(x)
        x, second = self.b6(x)
        return first, second, torch.relu(self.bn7(x))

    def frozen_parameters(self) -> list[nn.Parameter]:
        return []


def mxnet_spelling(name: str) -> str:
    """The MXNet name of one of ours: written from the layer names of the published symbol, not from the reader."""
    layer, _, value = name.rpartition(".")
    block, _, inner = layer.rpartition(".")
    batch_norm = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}
    if name == "conv1a.weight":
        return "arg:conv1a_weight"
    prefix = "aux" if value.startswith("running") else "arg"
    if layer == "bn7":
        return f"{prefix}:bn7_{batch_norm[value]}"
    stage, _, number = block.removeprefix("b").partition("_")
    place = f"{stage}b{number}" if number else f"{stage}a"
    kind, _, branch = inner.partition("_")
    return f"arg:res{place}_{branch}_weight" if kind == "conv" else f"{prefix}:bn{place}_{branch}_{batch_norm[value]}"


def state(seed: int = 1) -> dict[str, Tensor]:
    """Weights for Tiny that differ from those it starts with; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    entries = {n: v for n, v in Tiny().state_dict().items() if not n.endswith("num_batches_tracked")}
    return {name: torch.rand(value.shape, generator=generator) + 0.1 for name, value in entries.items()}


def write_params(path: Path, tensors: dict[str, Tensor], extra: dict[str, NDArray[np.generic]] | None = None) -> Path:
    arrays = {mxnet_spelling(name): tensor.numpy() for name, tensor in tensors.items()}
    path.write_bytes(params_bytes({**arrays, **(extra or {})}, version=0))
    return path


CLASSIFIER = {"arg:linear1000_weight": np.ones((10, 8), np.float32), "arg:linear1000_bias": np.ones(10, np.float32)}


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def unchanged(network: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("arg:conv1a_weight", "conv1a.weight"),
        ("arg:res2a_branch1_weight", "b2.conv_branch1.weight"),
        ("arg:res4b5_branch2b1_weight", "b4_5.conv_branch2b1.weight"),
        ("arg:bn4b2_branch2a_gamma", "b4_2.bn_branch2a.weight"),
        ("aux:bn5b1_branch2b1_moving_var", "b5_1.bn_branch2b1.running_var"),
        ("arg:res7a_branch2b2_weight", "b7.conv_branch2b2.weight"),
        ("aux:bn7a_branch2b2_moving_mean", "b7.bn_branch2b2.running_mean"),
        ("aux:bn7_moving_mean", "bn7.running_mean"),
        ("arg:bn7_beta", "bn7.bias"),
        ("arg:linear1000_weight", "linear1000_weight"),
        ("arg:res2a_branch1_gamma", "res2a_branch1_gamma"),
        ("no such name", "no such name"),
    ],
)
def test_mxnet_names_by_example(theirs: str, ours: str) -> None:
    assert mxnet_name(theirs) == ours


def test_every_name_of_the_network_has_an_mxnet_name() -> None:
    layers = json.loads((REFERENCE / "cpn_net_layers.json").read_text())["state_dict"]
    names = [name for name, _ in layers if not name.startswith(("fc8.", "f8_3.", "f8_4.", "f9.", "f10."))]
    assert [mxnet_name(mxnet_spelling(name)) for name in names] == names
    assert len({mxnet_spelling(name) for name in names}) == len(names)


def test_params_load_and_the_classifier_is_reported(tmp_path: Path) -> None:
    wanted, network = state(), Tiny()
    report = load_backbone_weights(network, write_params(tmp_path / "a.params", wanted, CLASSIFIER))
    for name, tensor in wanted.items():
        assert torch.equal(network.state_dict()[name], tensor), name
    assert set(report.loaded) == set(wanted)
    assert report.unexpected == ("linear1000_weight", "linear1000_bias")
    assert report.missing == report.misfits == ()
    assert report.sentence().endswith(f"{len(wanted)} tensors fit; not used: linear1000_weight, linear1000_bias")


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_load_with_and_without_wrappings(tmp_path: Path, wrap: str | None, zipped: bool) -> None:
    wanted, network, path = state(), Tiny(), tmp_path / "a.pth"
    named = {f"module.{name}": tensor.double() for name, tensor in wanted.items()}
    torch.save({wrap: named, "epoch": 3} if wrap else named, path, _use_new_zipfile_serialization=zipped)
    load_backbone_weights(network, path)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in wanted.items())


def test_safetensors_load_plainly_and_from_a_whole_network(tmp_path: Path) -> None:
    wanted = state()
    save_file(wanted, tmp_path / "plain.safetensors")
    whole = {f"backbone.{name}": tensor for name, tensor in wanted.items()}
    save_file({**whole, "fc8.weight": torch.ones(3)}, tmp_path / "whole.safetensors")
    for name, left in (("plain", ()), ("whole", ("fc8.weight",))):
        network = Tiny()
        assert load_backbone_weights(network, tmp_path / f"{name}.safetensors").unexpected == left
        assert torch.equal(network.conv1a.weight, wanted["conv1a.weight"])


class Trap:
    """Unpickled, it makes a folder: the sign that code of a file was run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_in_one_line_and_not_run(tmp_path: Path, zipped: bool) -> None:
    path, sprung = tmp_path / "trap.pth", tmp_path / "sprung"
    torch.save({"conv1a.weight": Trap(sprung)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="code in a file is not run") as caught:
        load_backbone_weights(Tiny(), path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not sprung.exists()


def test_other_torch_contents_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for content in ([torch.ones(1)], {"a": 1}, {}):
        torch.save(content, path)
        with pytest.raises(InputError, match="state dict"):
            read_weights(path)


@pytest.mark.parametrize("suffix", [".params", ".pth", ".safetensors"])
def test_a_damaged_file_of_every_kind_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".params":
        write_params(path, state())
    elif suffix == ".pth":
        torch.save(state(), path)
    else:
        save_file(state(), path)
    whole = path.read_bytes()
    for end in (9, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError) as caught:
            read_weights(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_an_absent_or_foreign_file_says_where_to_get_it(tmp_path: Path) -> None:
    foreign = tmp_path / "page.params"
    foreign.write_text("<html>quota exceeded</html>")
    for path in (tmp_path / "absent.params", foreign, tmp_path):
        with pytest.raises(InputError) as caught:
            load_backbone_weights(Tiny(), path)
        assert RESNET38_FILE in str(caught.value) and "itijyou/ademxapp" in str(caught.value)


def test_layers_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    tensors = state()
    tensors["b2.conv_branch2a.weight"] = torch.ones(5, 2, 3, 3)
    del tensors["b6.conv_branch1.weight"]
    network = Tiny()
    before = snapshot(network)
    with pytest.raises(InputError) as caught:
        load_backbone_weights(network, write_params(tmp_path / "a.params", tensors))
    message = str(caught.value)
    assert "1 layers do not fit: b2.conv_branch2a.weight is (5, 2, 3, 3) and should be (2, 2, 3, 3)" in message
    assert "1 layers are missing: b6.conv_branch1.weight" in message and RESNET38_FILE in message
    assert unchanged(network, before)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("conv1a.weight", float("nan"), "NaN or infinity"),
        ("bn7.bias", float("inf"), "NaN or infinity"),
        ("bn7.running_var", -1.0, "negative variances"),
    ],
)
def test_numbers_that_poison_a_network_are_refused(tmp_path: Path, name: str, value: float, reason: str) -> None:
    tensors = state()
    tensors[name].view(-1)[-1] = value
    network = Tiny()
    before = snapshot(network)
    with pytest.raises(InputError, match=f"{name} .*{reason}"):
        load_backbone_weights(network, write_params(tmp_path / "a.params", tensors))
    assert unchanged(network, before)


def test_integers_where_weights_should_be_are_refused(tmp_path: Path) -> None:
    tensors = {**state(), "bn7.bias": torch.ones(8, dtype=torch.int64)}
    with pytest.raises(InputError, match="bn7.bias is torch.int64"):
        load_backbone_weights(Tiny(), write_params(tmp_path / "a.params", tensors))


def test_two_arrays_for_one_layer_are_refused(tmp_path: Path) -> None:
    twin: dict[str, NDArray[np.generic]] = {"conv1a_weight": np.ones((2, 3, 3, 3), np.float32)}
    with pytest.raises(InputError, match="two arrays for the layer conv1a.weight"):
        read_weights(write_params(tmp_path / "a.params", state(), twin))


def test_batch_counters_are_neither_asked_for_nor_reported() -> None:
    report = compare(Tiny().state_dict(), {**state(), "b9.num_batches_tracked": torch.ones(())}, Path("a"))
    assert report.missing == report.unexpected == ()


def test_layers_of_a_larger_network_are_left_out_and_said(tmp_path: Path) -> None:
    """ResNet-101 has every layer of ResNet-50 by name and shape. A classifier is nothing to warn of."""
    path, wanted = tmp_path / "deeper.safetensors", state()
    more = {f"b2_1.conv_branch{i}.weight": torch.ones(1) for i in range(4)}
    save_file({**wanted, **more, "fc.weight": torch.ones(1)}, path)
    network = Tiny()
    report = load_backbone_weights(network, path)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in wanted.items())
    assert set(report.surplus) == set(more) and set(report.unexpected) == {*more, "fc.weight"}
    warning = report.warning()
    assert warning is not None and f"{path}: 4 layers that the network lacks are left out: " in warning
    assert "b2_1.conv_branch0.weight" in warning and "and 1 more" in warning and "\n" not in warning
    save_file({**wanted, "fc.weight": torch.ones(1)}, path)
    assert load_backbone_weights(Tiny(), path).warning() is None


def test_a_larger_network_with_a_wrong_layer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deeper.safetensors"
    more = {**state(), "b2_1.conv_branch9.weight": torch.ones(1)}
    for change in ({"bn7.bias": torch.ones(3)}, {"bn7.bias": None}):
        tensors = {name: tensor for name, tensor in {**more, **change}.items() if tensor is not None}
        save_file(tensors, path)
        network = Tiny()
        before = snapshot(network)
        with pytest.raises(InputError, match="bn7.bias"):
            load_backbone_weights(network, path)
        assert unchanged(network, before)


class Wrapped(nn.Module):
    """A user's own that keeps its layers in an attribute called backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Tiny()


@pytest.mark.parametrize("prefix", ["", "backbone."], ids=["its own file", "a whole CPN"])
def test_layers_called_backbone_by_the_user_are_found(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "wrapped.safetensors"
    wanted = {f"backbone.{name}": tensor for name, tensor in state().items()}
    save_file({f"{prefix}{name}": tensor for name, tensor in wanted.items()}, path)
    network = Wrapped()
    load_backbone_weights(network, path)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in wanted.items())


def test_a_layer_beside_the_backbone_is_not_taken_for_its_own(tmp_path: Path) -> None:
    """A head's layer that is called like one of the backbone, in a file of a whole CPN."""
    path = tmp_path / "whole.safetensors"
    head = next(iter(state()))
    inner = {f"backbone.{name}": tensor for name, tensor in state().items()}
    save_file({**inner, head: state()[head] + 1}, path)
    network = Tiny()
    load_backbone_weights(network, path)
    assert torch.equal(network.state_dict()[head], state()[head])


def test_the_checksums_of_a_torch_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(state(), path)
    data = bytearray(path.read_bytes())
    data[data.index(max(state().values(), key=lambda tensor: tensor.numel()).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is not what its checksum says"):
        read_weights(path)


@pytest.mark.parametrize("name", ["absent.pth", "."])
def test_what_is_no_file_says_where_to_get_resnet50(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such weights file; for ResNet-50 get resnet50-0676ba61.pth or"):
        load_backbone_weights(ResNet50(), tmp_path / name)
