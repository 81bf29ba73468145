from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cpn.config import with_values
from cpn.core.errors import InputError
from cpn.core.files import DamagedFile
from cpn.data.voc import IGNORE
from cpn.models.backbone import build_backbone
from cpn.models.checkpoint import save_model
from cpn.stages.inputs import LabelledImages, load_label, pretrained_backbone, save_label, stage_metadata
from tests.cpn.stages.made_stages import Made


def test_a_label_comes_back(tmp_path: Path) -> None:
    label = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save_label(tmp_path / "a.png", label)
    np.testing.assert_array_equal(load_label(tmp_path / "a.png"), label)


@pytest.mark.parametrize("data", [b"", b"no picture", None], ids=["empty", "text", "cut"])
def test_a_damaged_label_is_named(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "a.png"
    save_label(path, np.zeros((16, 16), np.uint8))
    path.write_bytes(path.read_bytes()[:-20] if data is None else data)
    with pytest.raises(DamagedFile) as refused:
        load_label(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_a_missing_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match="gone.png"):
        load_label(tmp_path / "gone.png")


def test_the_split_is_the_training_list_and_background_a_class(made: Made) -> None:
    assert made.inputs.split.name == "trainaug" and len(made.inputs.split) == 10
    assert made.inputs.classes == 7
    other = replace(made.inputs, config=with_values(made.inputs.config, {"data.train": "train"}, "test"))
    assert other.split.name == "train" and len(other.split) == 8


def test_labelled_images_have_the_labels_of_a_folder(made: Made, tmp_path: Path) -> None:
    images = LabelledImages(made.inputs.split, tmp_path)
    label = np.full((32, 32), IGNORE, np.uint8)
    save_label(tmp_path / f"{made.inputs.split.ids[3]}.png", label)
    assert len(images) == 10 and np.array_equal(images.image(3), made.inputs.split.image(3))
    assert np.array_equal(images.label(3), label)
    with pytest.raises(DamagedFile, match=made.inputs.split.ids[4]):
        images.label(4)


def test_the_backbone_starts_from_the_networks_weights(made: Made, tmp_path: Path) -> None:
    torch.manual_seed(7)
    weights = build_backbone("scene")
    save_model(tmp_path / "w.safetensors", weights, {"kind": "standin"})
    config = with_values(made.inputs.config, {"network.weights": str(tmp_path / "w.safetensors")}, "test")
    backbone = pretrained_backbone(replace(made.inputs, config=config))
    assert all(torch.equal(value, backbone.state_dict()[name]) for name, value in weights.state_dict().items())
    missing = with_values(config, {"network.weights": str(tmp_path / "gone.safetensors")}, "test")
    with pytest.raises(InputError, match="gone.safetensors"):
        pretrained_backbone(replace(made.inputs, config=missing))


def test_the_header_of_a_checkpoint(made: Made) -> None:
    header = stage_metadata(made.inputs)
    assert header.keys() == {"config", "classes", "fingerprint"}
    assert header["config"] == made.inputs.config.model_dump(mode="json")
    assert header["classes"] == list(made.inputs.pack.classes) and len(header["classes"]) == 6
    assert header["fingerprint"] == made.inputs.pack.fingerprint
