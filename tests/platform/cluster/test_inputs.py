"""What a sweep needs before its first trial: scenes made once, data packed once, weights that fit."""

import shutil
from pathlib import Path
from platform.base.paths import Storage, storage
from platform.cluster.inputs import check_weights, data_root, look_at_data, prepare_data, prepare_weights
from typing import Any

import pytest
import torch

from cpn.config import Config, config_from, with_values
from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.models.backbone import build_backbone
from cpn.models.checkpoint import save_model
from cpn.sources.scenes import write_scenes
from cpn.training.pretrained_proxy import standin_path

OWN = "tests.cpn.models.test_backbone"
SCENES = {"train": 6, "val": 3, "size": 64, "seed": 1}


def config_with(**changes: Any) -> Config:
    return config_from({"preset": ["official", "scenes"], "data": {"scenes": SCENES}, **changes}, "-")


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return storage(str(tmp_path / "sweeps"))


def stamps(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_scenes_are_made_and_packed_once(store: Storage) -> None:
    said: list[str] = []
    first = prepare_data(config_with(), store, said.append)
    before = stamps(store.root)
    second = prepare_data(config_with(), store, said.append)
    assert said == ["making 9 synthetic scenes"]
    assert stamps(store.root) == before
    assert first.fingerprint == second.fingerprint and first.root == second.root
    assert (len(first.split("train")), len(first.split("val"))) == (6, 3)


def test_other_scenes_lie_elsewhere(store: Storage) -> None:
    other = config_with(data={"scenes": {**SCENES, "seed": 2}})
    assert data_root(config_with(), store) != data_root(other, store)
    assert prepare_data(config_with(), store, print).fingerprint != prepare_data(other, store, print).fingerprint


def test_the_same_data_under_another_name_are_the_same_data(store: Storage, tmp_path: Path) -> None:
    made = prepare_data(config_with(), store, print)
    moved = Path(data_root(config_with(), store)).rename(tmp_path / "elsewhere")
    named = config_with(data={"root": str(moved), "scenes": SCENES})
    assert data_root(named, store) == str(moved)
    assert prepare_data(named, store, print).fingerprint == made.fingerprint


def test_a_relative_root_becomes_absolute(store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert data_root(config_with(data={"root": "voc"}), store) == str(tmp_path / "voc")
    assert data_root(config_with(data={"root": "s3://bucket/voc"}), store) == "s3://bucket/voc"


def test_no_data_at_all_is_refused(store: Storage) -> None:
    config = config_from({"preset": "official"}, "-")
    with pytest.raises(InputError, match="data.root: no data set is named; --set data.root=FOLDER in VOC 2012 layout"):
        prepare_data(config, store, print)
    assert not store.root.exists()


def test_a_missing_root_is_refused_beside_scenes(store: Storage, tmp_path: Path) -> None:
    config = config_with(data={"root": str(tmp_path / "absent"), "scenes": SCENES})
    with pytest.raises(InputError, match=f"{tmp_path}/absent: no such folder"):
        prepare_data(config, store, print)
    assert not store.root.exists()


def test_without_weights_nothing_is_made(store: Storage) -> None:
    prepare_weights(config_with(network={"weights": None}), store, print)
    assert not store.root.exists()


def test_a_weights_file_that_fits_is_accepted(store: Storage, tmp_path: Path) -> None:
    path = tmp_path / "scene.safetensors"
    save_model(path, build_backbone("scene"), {"kind": "standin"})
    config = config_with(network={"weights": str(path)})
    prepare_weights(config, store, print)
    assert not store.root.exists()


def test_a_weights_file_of_a_larger_network_is_taken_and_said(store: Storage, tmp_path: Path) -> None:
    path = tmp_path / "larger.pth"
    torch.save(build_backbone("scene").state_dict() | {"top.7.weight": torch.ones(2)}, path)
    config = config_with(network={"weights": str(path)})
    said: list[str] = []
    check_weights(config, store, said.append)
    assert len(said) == 1 and said[0].startswith(
        f"warning: {path}: 1 layers that the network lacks are left out: top.7"
    )
    prepare_weights(config, store, said.append)
    assert len(said) == 1, "once is enough"
    walked = with_values(config, {"random_walk.kind": "irn", "irn.backbone": "scene", "irn.weights": str(path)}, "-")
    prepare_weights(walked, store, said.append)
    assert said[1:] == said[:1], "the file of the walk's own network is another"


def test_weights_of_another_network_are_refused_in_one_line(store: Storage, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_model(path, torch.nn.Linear(3, 2), {"kind": "standin"})
    with pytest.raises(InputError) as refusal:
        prepare_weights(config_with(network={"weights": str(path)}), store, print)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_missing_weights_file_is_refused_in_one_line(store: Storage, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        prepare_weights(config_with(network={"weights": str(tmp_path / "none.params")}), store, print)
    assert "none.params" in str(refusal.value) and "\n" not in str(refusal.value)


def test_irn_on_an_unfit_backbone_is_refused_first(store: Storage) -> None:
    config = config_with(network={"weights": None}, irn={"backbone": f"{OWN}:OwnBackbone"})
    prepare_weights(config, store, print)
    walked = with_values(config, {"random_walk.kind": "irn"}, "test")
    with pytest.raises(InputError, match="random_walk.kind: irn needs five stages"):
        prepare_weights(walked, store, print)


def test_the_stand_in_is_trained_once(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training itself is a minute's work and tested elsewhere; here it is a file that appears."""
    made: list[Path] = []

    def make(cache: Path, report: Any) -> Path:
        save_model(standin_path(cache), build_backbone("scene"), {"kind": "standin"})
        report({"epoch": 1.0, "loss_total": 0.25})
        made.append(cache)
        return standin_path(cache)

    monkeypatch.setattr("cpn.training.pretrained_proxy.make_standin", make)
    said: list[str] = []
    config = config_with()
    assert config.network.weights == "scenes"
    prepare_weights(config, store, said.append)
    prepare_weights(config, store, said.append)
    assert made == [store.cache] and len(said) == 2 and said[1] == "  pretraining: epoch 1, loss 0.250"


def test_own_batch_norms_that_would_train_are_told_of(store: Storage) -> None:
    said: list[str] = []
    mobile = "tests.cpn.models.test_user_backbone:Mobile"
    check_weights(config_with(network={"backbone": mobile, "weights": None}), store, said.append)
    assert said == [
        f"note: network.backbone: 10 batch norms of {mobile!r} would train; the CAM network and AffinityNet keep them "
        "in evaluation mode"
    ]


def test_own_code_without_weights_runs_before_packing(store: Storage) -> None:
    raises = "tests.bad_input.backbones:Raises"
    with pytest.raises(InputError, match="its forward raised ZeroDivisionError: .*backbones.py, line"):
        check_weights(config_with(network={"backbone": raises, "weights": None}), store, print)


def test_a_backbone_of_ours_without_weights_is_warned_of_once(store: Storage) -> None:
    said: list[str] = []
    check_weights(config_with(network={"backbone": "resnet50", "weights": None}), store, said.append)
    (line,) = said
    assert line.startswith("warning: network.weights is not set, resnet50 starts from random numbers")
    said.clear()
    check_weights(config_with(), store, said.append)  # the pretrained proxy
    check_weights(config_with(network={"backbone": f"{OWN}:OwnBackbone", "weights": None}), store, said.append)
    assert said == []


def test_an_absent_backbone_is_refused_before_packing(store: Storage) -> None:
    with pytest.raises(InputError, match=r"network\.backbone: 'somebodys\.own:network' cannot be imported"):
        check_weights(config_with(network={"backbone": "somebodys.own:network", "weights": None}), store, print)
    assert not store.root.exists()


def test_a_dry_run_sees_what_data_lack_without_packing_them(store: Storage, tmp_path: Path) -> None:
    said: list[str] = []
    look_at_data(config_with(), "miou", said.append)
    assert said == []
    look_at_data(config_with(data={"root": str(tmp_path / "none")}), "miou", said.append)
    assert [line.startswith("data: not looked at: ") for line in said] == [True]
    said.clear()
    prepare_data(config_with(), store, print)
    root = Path(data_root(config_with(), store))
    named = config_with(data={"root": str(root)})
    look_at_data(named, "miou", said.append)
    assert said == []
    shutil.rmtree(root / "SegmentationClass")
    prepare_data(named, store, print)
    before = stamps(root)
    with pytest.raises(InputError, match=r"data\.score: list 'train' has no masks"):
        look_at_data(named, "miou", said.append)
    look_at_data(named, "mask_free", said.append)
    assert said[-1] == "list val has no masks: the segmentation network is trained, and not scored"
    assert stamps(root) == before


def test_oddities_of_the_data_are_said_when_packed(tmp_path: Path, store: Storage) -> None:
    root = tmp_path / "scenes"
    write_scenes(root, ScenesConfig(train=3, extra=1, val=2, size=32))
    annotation = root / "Annotations/train_00000.xml"
    there = annotation.read_text()
    named = next(name for name in ("robin", "canary", "gecko", "teal") if f"<name>{name}<" not in there)
    annotation.write_text(f"<annotation><object><name>{named}</name></object></annotation>")
    said: list[str] = []
    prepare_data(config_with(data={"root": str(root)}), store, said.append)
    assert any("trainaug: 1 of 4 masks hold a class that their annotation does not name" in line for line in said)
    assert all(line.startswith("warning: ") for line in said)
    said.clear()
    prepare_data(config_with(data={"root": str(root)}), store, said.append)
    assert said == []
