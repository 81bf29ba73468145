"""The command that checks and converts pretrained weights."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import cpn.models.resnet38d
from cpn.core.errors import InputError
from cpn.models.resnet50 import ResNet50
from cpn.models.scene_backbone import SceneBackbone
from cpn.models.weights import RESNET38_FILE, load_backbone_weights, read_weights
from cpn.weights import main
from tests.cpn.models.test_weights import CLASSIFIER, Tiny, state, write_params


def test_command_converts_checks_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpn.models.resnet38d, "ResNet38", Tiny)
    wanted = state()
    source, out = write_params(tmp_path / "a.params", wanted, CLASSIFIER), tmp_path / "deep" / "b.safetensors"
    assert main([str(source), "--out", str(out), "--check"]) == 0
    text = capsys.readouterr().out
    assert f"{len(wanted)} tensors fit; not used: linear1000_weight" in text and "backbone resnet38" in text
    assert "other MD5" in text and "top: mean" in text
    assert text.endswith(f"wrote {out}: --set network.backbone=resnet38 --set network.weights={out}\n")
    written = load_file(out)
    assert set(written) == set(wanted) and all(torch.equal(written[name], wanted[name]) for name in wanted)
    assert main([str(out)]) == 0


def test_command_refuses_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpn.models.resnet38d, "ResNet38", Tiny)
    source = write_params(tmp_path / "a.params", {n: t for n, t in state().items() if n != "bn7.bias"})
    with pytest.raises(InputError, match="bn7.bias"):
        main([str(source), "--out", str(tmp_path / "b.safetensors")])
    with pytest.raises(InputError, match="safetensors"):
        main([str(source), "--out", str(tmp_path / "b.pth")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.params"]


def test_check_refuses_weights_whose_features_overflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpn.models.resnet38d, "ResNet38", Tiny)
    tensors = {name: tensor * 1e30 if name.endswith("weight") else tensor for name, tensor in state().items()}
    source = write_params(tmp_path / "a.params", tensors)
    assert main([str(source)]) == 0
    with pytest.raises(InputError, match="not finite"):
        main([str(source), "--check"])


def resnet50_file(path: Path, **changes: Tensor) -> Path:
    """A file as torchvision's: real names and shapes, with classifier; random numbers as large as trained ones."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in ResNet50().state_dict().items()}
    tensors: dict[str, Tensor] = {"fc.weight": torch.ones(3, 2048), "fc.bias": torch.ones(3)}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.zeros(shape, dtype=torch.long)
        elif len(shape) == 4:
            tensors[name] = torch.randn(shape, generator=generator) * shape[1:].numel() ** -0.5
        else:
            tensors[name] = torch.ones(shape)
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    torch.save(tensors, path)
    return path


def test_torchvisions_resnet50_is_recognised_and_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = resnet50_file(tmp_path / "resnet50-0676ba61.pth"), tmp_path / "resnet50.safetensors"
    assert main([str(source), "--out", str(out), "--check"]) == 0
    text = capsys.readouterr().out
    assert (
        "265 tensors fit; not used: fc.weight, fc.bias; backbone resnet50" in text
    )  # 53 convolutions, each with 4 of batch norm
    assert "not what its name says (SHA-256)" in text and "stage 3: mean" in text and "stage 4: mean" in text
    assert f"--set network.backbone=resnet50 --set network.weights={out}" in text
    backbone = ResNet50()
    report = load_backbone_weights(backbone, out)
    assert report.unexpected == report.missing == ()
    assert torch.equal(backbone.layer4[2].conv3.weight, read_weights(source)["layer4.2.conv3.weight"])


def test_a_published_name_is_believed_when_the_bytes_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(SceneBackbone().state_dict(), tmp_path / "a.pth")
    digest = hashlib.sha256((tmp_path / "a.pth").read_bytes()).hexdigest()
    assert main([str((tmp_path / "a.pth").rename(tmp_path / f"scene-{digest[:8]}.pth"))]) == 0
    text = capsys.readouterr().out
    assert "the published file (SHA-256 agrees)" in text and "backbone scene" in text


def test_a_wrong_resnet_says_which_layers_and_where_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deeper = resnet50_file(tmp_path / "a.pth", layer3__6__conv1__weight=torch.ones(256, 1024, 1, 1))
    assert main([str(deeper)]) == 0
    assert "1 layers that the network lacks are left out: layer3.6.conv1.weight; " in capsys.readouterr().err
    biased = resnet50_file(tmp_path / "c.pth", layer1__0__conv1__bias=torch.ones(64))
    with pytest.raises(InputError, match="layer1.0.conv1.bias belongs to a layer.*resnet50-0676ba61.pth.*resnet50-11"):
        main([str(biased)])
    wider = resnet50_file(tmp_path / "b.pth", layer1__0__conv1__weight=torch.ones(128, 64, 1, 1))
    with pytest.raises(InputError, match=r"layer1.0.conv1.weight is \(128, 64, 1, 1\) and should be \(64, 64, 1, 1\)"):
        main([str(wider)])
    with pytest.raises(InputError, match="layers are missing: conv1a.weight.*" + RESNET38_FILE):
        main([str(wider), "--backbone", "resnet38"])


def test_a_file_of_no_known_layer_and_a_users_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.safetensors"
    save_file(state(), path)
    assert main([str(path), "--backbone", f"{Tiny.__module__}:Tiny"]) == 0
    assert f"backbone {Tiny.__module__}:Tiny" in capsys.readouterr().out
    save_file({"features.0.weight": torch.ones(1)}, path)
    with pytest.raises(
        InputError, match="holds no layer of scene, resnet38, resnet50, .*; name your network with --backbone"
    ):
        main([str(path)])
    with pytest.raises(InputError, match="layers are missing.*give a file of this network.backbone") as refused:
        main([str(path), "--backbone", "scene"])
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="--classes classes.txt: a backbone has no classes"):
        main([str(path), "--classes", "classes.txt"])


def test_help_needs_no_torch_and_an_absent_file_is_named(tmp_path: Path) -> None:
    code = "import sys, cpn.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(InputError, match=re.escape(RESNET38_FILE)) as refused:
        main([str(tmp_path / "absent.params")])
    assert "\n" not in str(refused.value)


def test_layers_of_a_larger_network_bring_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpn.models.resnet38d, "ResNet38", Tiny)
    path = tmp_path / "deeper.safetensors"
    save_file({**state(), "b2_1.conv_branch9.weight": torch.ones(1), "fc.weight": torch.ones(1)}, path)
    warning = load_backbone_weights(Tiny(), path).warning()
    assert warning is not None and "b2_1.conv_branch9.weight" in warning
    assert main([str(path)]) == 0
    assert capsys.readouterr().err == f"warning: {warning}\n"
