"""Checkpoints of CPN's and SEAM's authors: recognised, converted, scored as a run's own network, or refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import cpn.models.resnet38d
from cpn.config.network import NetworkConfig
from cpn.core.errors import InputError
from cpn.core.files import file_digest
from cpn.data.voc import VOC_CLASSES
from cpn.models.checkpoint import read_metadata
from cpn.models.network import CPN, build_network
from cpn.run import load_run
from cpn.stages.released import is_released, released_network
from cpn.weights import main
from tests.cpn.models.test_weights import Tiny

REFERENCE = Path(__file__).parents[2] / "reference"
CLASSES = ("cat", "dog", "owl")


@pytest.fixture(autouse=True)
def small_resnet38(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one has 105 million parameters."""
    monkeypatch.setattr(cpn.models.resnet38d, "ResNet38", Tiny)


@pytest.fixture
def classes_file(tmp_path: Path) -> Path:
    path = tmp_path / "voc" / "classes.txt"
    path.parent.mkdir()
    path.write_text("\n".join(CLASSES) + "\n")
    return path


def network_of(classes: int, **values: bool) -> CPN:
    """A network whose batch norm has seen something."""
    torch.manual_seed(7)
    network = build_network(NetworkConfig(**values), classes)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return network.eval()


def released_tensors(network: CPN, without: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The state dict as the authors' code would write it: no `backbone.`, and for SEAM no f10."""
    named = {name.removeprefix("backbone."): value for name, value in network.state_dict().items()}
    return {name: value.clone() for name, value in named.items() if not name.startswith(without or "-")}


def same_maps(first: CPN, second: CPN) -> bool:
    images = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return all(torch.equal(a, b) for a, b in zip(first(images), second(images), strict=True))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("counters", [True, False])
def test_a_cpn_becomes_a_model_file_with_the_released_view(
    tmp_path: Path, classes_file: Path, capsys: pytest.CaptureFixture[str], prefix: str, counters: bool
) -> None:
    source = network_of(4, prcm_transposed=False)
    tensors = {
        prefix + name: value
        for name, value in released_tensors(source).items()
        if counters or not name.endswith("num_batches_tracked")
    }
    path, out = tmp_path / "cpn.pth", tmp_path / "deep" / "model.safetensors"
    torch.save(tensors, path)
    assert main([str(path), "--classes", str(classes_file), "--out", str(out), "--check"]) == 0
    text = capsys.readouterr().out
    assert "nothing left over; a whole CPN as released, 3 classes, preset official" in text
    assert "network.prcm_transposed: false" in text and "top: mean" in text
    assert text.endswith(f"wrote {out}\nnext: python -m cpn.score {out} --root /data/VOC2012\n")
    network, config, classes = load_run(out)
    assert classes == CLASSES and config.network.prcm and not config.network.prcm_transposed
    assert (config.train.objective, config.cam.map, config.network.backbone) == ("cpn", "refined", "resnet38")
    assert same_maps(network, source) and not same_maps(network, network_of(4, prcm_transposed=True))
    metadata = read_metadata(out)
    assert metadata["kind"] == "cam" and metadata["beta"] is metadata["fingerprint"] is None
    assert metadata["released"] == {"method": "CPN", "file": "cpn.pth", "sha256": file_digest(path)}


def test_a_seam_is_known_by_the_missing_f10(
    tmp_path: Path, classes_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = network_of(4, prcm=False)
    path, out = tmp_path / "seam.pth", tmp_path / "model.safetensors"
    torch.save({name: value.half() for name, value in released_tensors(source, without=("f10",)).items()}, path)
    assert main([str(path), "--classes", str(classes_file), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "a whole SEAM as released, 3 classes, preset seam" in text
    assert "network.prcm: false" in text and "f10 is not in the file" in text
    network, config, _ = load_run(out)
    assert config.network.pcm and not config.network.prcm and config.train.objective == "seam"
    assert {value.dtype for value in load_file(out).values()} == {torch.float32, torch.int64}  # and the counters
    assert not network.f10.weight.detach().any()
    halved = {name: value.half().float() if value.ndim else value for name, value in source.state_dict().items()}
    source.load_state_dict({**halved, "f10.weight": network.f10.weight})
    assert same_maps(network, source)


def test_the_classes_of_voc_unless_told_otherwise(tmp_path: Path, classes_file: Path) -> None:
    path, out = tmp_path / "cpn.pth", tmp_path / "model.safetensors"
    torch.save(released_tensors(network_of(len(VOC_CLASSES) + 1)), path)
    assert main([str(path), "--out", str(out)]) == 0
    assert load_run(out)[2] == VOC_CLASSES
    out.unlink()
    with pytest.raises(InputError, match="fc8 has 21 rows, and background with 3 classes needs 4.*--classes"):
        main([str(path), "--classes", str(classes_file), "--out", str(out)])
    with pytest.raises(InputError, match="no file called classes.txt"):
        main([str(path), "--classes", str(tmp_path / "names.txt")])
    assert not out.exists()


def test_missing_or_wrong_layers_are_named_as_in_the_file(tmp_path: Path, classes_file: Path) -> None:
    whole = released_tensors(network_of(4))
    path, out = tmp_path / "cpn.pth", tmp_path / "model.safetensors"
    wrong: list[tuple[dict[str, Tensor], str]] = [
        ({n: v for n, v in whole.items() if n != "f9.weight"}, "1 layers are missing: f9.weight"),
        ({n: v for n, v in whole.items() if n != "fc8.weight"}, "1 layers are missing: fc8.weight"),
        ({n: v for n, v in whole.items() if n != "b2.conv_branch1.weight"}, "missing: b2.conv_branch1.weight"),
        ({**whole, "f8_3.weight": torch.ones(32, 4, 1, 1)}, r"f8_3.weight is \(32, 4, 1, 1\) and should be \(64, 4"),
        ({**whole, "f8_3.bias": torch.ones(64)}, "f8_3.bias belongs to a layer that has no such tensor"),
        ({**whole, "bn7.bias": torch.full((8,), torch.nan)}, "bn7.bias contains NaN"),
    ]
    for tensors, words in wrong:
        torch.save(tensors, path)
        with pytest.raises(InputError, match=f"{path}: .*{words}.*github.com/Ferenas/CPN") as refused:
            main([str(path), "--classes", str(classes_file), "--out", str(out)])
        assert "\n" not in str(refused.value) and not out.exists()


def test_its_backbone_alone_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cpn.pth"
    torch.save(released_tensors(network_of(4)), path)
    assert main([str(path), "--backbone", "resnet38"]) == 0
    assert "not used: fc8.weight, f8_3.weight, f8_4.weight and 2 more; backbone resnet38" in capsys.readouterr().out


def test_a_run_of_this_product_gives_its_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(network_of(4).state_dict(), tmp_path / "model.pth")
    assert main([str(tmp_path / "model.pth")]) == 0
    assert "and 2 more; backbone resnet38" in capsys.readouterr().out


def reference_names(file: str) -> dict[str, tuple[int, ...]]:
    layers = json.loads((REFERENCE / file).read_text())["state_dict"]
    return {name: tuple(shape) for name, shape in layers}


def test_what_is_recognised_by_the_layers_of_the_reference() -> None:
    cpn_names = reference_names("cpn_net_layers.json")
    seam_names = [name for name in cpn_names if name != "f10.weight"]
    backbone = [name for name in cpn_names if not name.startswith(("fc8", "f8", "f9", "f10"))]
    assert is_released(cpn_names) and is_released(seam_names)
    assert not is_released(backbone) and not is_released([*backbone, "fc8.weight"])
    assert not is_released(reference_names("aff_net_layers.json"))
    assert not is_released(reference_names("deeplab_net_layers.json"))
    assert not is_released([f"backbone.{name}" if name in backbone else name for name in cpn_names])


def test_the_real_checkpoints_names_and_shapes_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """At full size, where every tensor of the file is one number seen through an expanded view."""
    monkeypatch.undo()
    shapes = reference_names("cpn_net_layers.json")
    tensors = {name: torch.ones(()).expand(shape) for name, shape in shapes.items()}
    released = released_network(Path("cpn.pth"), tensors, VOC_CLASSES)
    assert set(released.report.loaded) == set(shapes) and released.report.unexpected == ()
    assert sum(p.numel() for p in released.network.parameters()) == 105_395_648
