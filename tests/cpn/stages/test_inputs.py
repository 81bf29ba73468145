from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cpn.config import with_values
from cpn.core.errors import InputError
from cpn.core.files import DamagedFile
from cpn.data.map_files import save_label
from cpn.data.voc import IGNORE
from cpn.models.backbone import build_backbone
from cpn.models.checkpoint import save_model
from cpn.stages.inputs import LabelledImages, pretrained_backbone, stage_metadata
from tests.cpn.stages.made_stages import Made


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
