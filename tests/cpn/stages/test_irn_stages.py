import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cpn.config import ADDED, Config, config_from, with_values
from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.core.files import digest
from cpn.data.map_files import load_label, load_maps, save_maps
from cpn.data.voc import IGNORE
from cpn.models.checkpoint import read_metadata
from cpn.propagation.irn import confident_label
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.stages import pipeline, stage_manifest
from cpn.stages.inputs import Inputs, LabelledImages
from cpn.stages.irn_stages import check_irn, irn_maps, irn_network, irn_weights
from cpn.stages.stage_manifest import irn_settings

CONFIG: dict[str, Any] = {
    "data": {"train": "trainaug", "crop": 32, "workers": 0},
    "network": {"backbone": "scene"},
    "random_walk": {"kind": "irn"},
    "irn": {"crop": 32, "radius": 3, "batch_size": 3, "epochs": 2, "walk_radius": 3, "walk_logt": 3},
}
STAGES = ("crf", "affinity", "random_walk")
ALL_STAGES = ("cam", "crf", "affinity", "random_walk", "deeplab")


def silent(_: dict[str, float]) -> None: ...


def make(stage: str, inputs: Inputs, out: Path, indices: list[int]) -> dict[str, float]:
    if stage in pipeline.PER_IMAGE:
        pipeline.PER_IMAGE[stage](inputs, indices, out)
        return {}
    return pipeline.TRAINED[stage](inputs, out, silent)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """IRN's three stages over seven tiny scenes whose maps are the scenes' blurred masks."""
    base = tmp_path_factory.mktemp("irn")
    write_scenes(base / "scenes", ScenesConfig(train=5, extra=2, val=2, size=32))
    pack = prepare(base / "scenes")
    config = config_from(CONFIG, "test")
    inputs = Inputs(
        base / "none", config, pack, base / "cache", torch.device("cpu"), {s: base / s for s in ("cam", *STAGES)}
    )
    for index, name in enumerate(inputs.split.ids):
        present = np.flatnonzero(inputs.split.labels[index]) + 1
        mask = inputs.split.mask(index)
        known = np.zeros((32, 32), np.uint8) if mask is None else mask
        maps = np.stack([np.where(known == c, 0.9, 0.1) * np.linspace(0.2, 1, 32)[None] for c in present])
        save_maps(inputs.folders["cam"] / f"{name}.npz", maps, present)
    for stage in STAGES:
        make(stage, inputs, inputs.folders[stage], list(range(7)))
    return inputs


def files(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file() and not {"checkpoints", "pictures"} & set(p.parts)
    }


def test_each_stage_writes_whole_files_or_one_model(made: Inputs) -> None:
    pictures = {f"{name}.png" for name in made.split.ids}
    assert len(pictures) == 7
    expected = {"crf": pictures, "affinity": {"model.safetensors"}, "random_walk": pictures}
    assert {stage: set(files(made.folders[stage])) for stage in STAGES} == expected


def test_labels_are_irns(made: Inputs) -> None:
    seen: set[int] = set()
    images = LabelledImages(made.split, made.folders["crf"])
    for index, name in enumerate(made.split.ids):
        maps, present = load_maps(made.folders["cam"] / f"{name}.npz")
        expected = confident_label(made.split.image(index), maps, present, made.config.irn)
        assert np.array_equal(images.label(index), expected)
        assert set(np.unique(expected)) <= {0, IGNORE, *present}
        seen |= set(np.unique(expected).tolist())
    assert {0, IGNORE} < seen and len(images) == 7
    with Image.open(made.folders["crf"] / f"{made.split.ids[0]}.png") as picture:
        assert picture.mode == "P"


def test_pseudo_labels_ignore_nothing_and_are_scored(made: Inputs) -> None:
    for index, name in enumerate(made.split.ids):
        label = load_label(made.folders["random_walk"] / f"{name}.png")
        assert label.shape == (32, 32)
        assert set(np.unique(label)) <= {0, *(np.flatnonzero(made.split.labels[index]) + 1).tolist()}
    metrics = pipeline.score_pseudo_labels(made, made.folders["random_walk"])
    assert metrics.keys() == {"miou_confirm", "miou_train"} and metrics["miou_train"] > 0


def test_the_walk_reads_its_settings(made: Inputs, tmp_path: Path) -> None:
    whole = files(made.folders["random_walk"])
    for at, (name, value) in enumerate({"walk_threshold": 0.9, "walk_logt": 0, "walk_beta": 1.0}.items()):
        config = with_values(made.config, {f"irn.{name}": value}, "test")
        make("random_walk", replace(made, config=config), tmp_path / str(at), list(range(7)))
        assert files(tmp_path / str(at)) != whole, name


def test_the_checkpoint_says_what_it_is(made: Inputs) -> None:
    metadata = read_metadata(made.folders["affinity"] / "model.safetensors")
    assert metadata["kind"] == "irn" and config_from(metadata["config"], "x") == made.config


@pytest.mark.parametrize("stage", ["crf", "random_walk"])
def test_what_is_there_is_not_made_again(made: Inputs, tmp_path: Path, stage: str) -> None:
    whole = files(made.folders[stage])
    first, *_ = sorted(whole)
    (tmp_path / first).write_bytes(b"made before")
    for share in ([5, 2], [0, 1, 3], [4, 6, 5]):
        make(stage, made, tmp_path, share)
    assert (tmp_path / first).read_bytes() == b"made before"
    assert {n: d for n, d in files(tmp_path).items() if n != first} == {n: d for n, d in whole.items() if n != first}


def test_a_killed_training_ends_as_if_it_had_not_been(made: Inputs, tmp_path: Path) -> None:
    def kill(_: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.TRAINED["affinity"](made, tmp_path, kill)
    assert not (tmp_path / "model.safetensors").exists()
    result = pipeline.TRAINED["affinity"](made, tmp_path, silent)
    assert result.keys() == {"loss_total"} and result["loss_total"] > 0
    assert files(tmp_path) == files(made.folders["affinity"])


def test_a_training_goes_on_within_an_epoch(made: Inputs, tmp_path: Path) -> None:
    config = with_values(made.config, {"train.checkpoint_minutes": 1e-9}, "test")

    def kill() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.TRAINED["affinity"](replace(made, config=config, saved=kill), tmp_path, silent)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch_0000_step_000001"]
    pipeline.TRAINED["affinity"](made, tmp_path, silent)
    assert files(tmp_path) == files(made.folders["affinity"])


def published_keys(config: Config) -> dict[str, str]:
    """The keys of the stages as they were before there was a second kind of walk."""
    dump = {
        section: {name: value for name, value in values.items() if f"{section}.{name}" not in ADDED}
        for section, values in config.model_dump(mode="json").items()
    }
    augmentation = {name: dump["data"][name] for name in ("train", "crop", "jitter", "flip")}
    start = {**dump["network"], "seed": dump["train"]["seed"], "precision": dump["train"]["precision"]}
    split = {name: dump["cam"][name] for name in ("confirm_share", "confirm_seed")}
    version = stage_manifest.VERSIONS
    keys = {"cam": digest(["cam", version["cam"], "m", "f", dump["cam"], dump["data"]["train"]])}
    keys["crf"] = digest(["crf", version["crf"], keys["cam"], dump["crf"]])
    keys["affinity"] = digest(
        ["affinity", version["affinity"], keys["crf"], dump["affinity"], augmentation, start],
    )
    scored = [keys["affinity"], dump["random_walk"], dump["data"]["score"], split]
    keys["random_walk"] = digest(["random_walk", version["random_walk"], *scored])
    last = [keys["random_walk"], dump["deeplab"], augmentation, start, dump["data"]["val"]]
    keys["deeplab"] = digest(["deeplab", version["deeplab"], *last])
    return keys


@pytest.mark.parametrize("preset", ["official", "scenes"])
def test_keys_of_affinity_stay_what_they_were(preset: str) -> None:
    config = config_from({"preset": preset}, "test")
    assert stage_manifest.stage_keys("m", config, "f") == published_keys(config)
    other = with_values(config, {"irn.epochs": 9, "irn.walk_beta": 2.0, "irn.fg_threshold": 0.5}, "test")
    assert stage_manifest.stage_keys("m", other, "f") == published_keys(config)


def changed_stages(name: str, value: object) -> list[str]:
    before = config_from(CONFIG, "test")
    one, two = (stage_manifest.stage_keys("m", c, "f") for c in (before, with_values(before, {name: value}, "test")))
    return [stage for stage in ALL_STAGES if one[stage] != two[stage]]


@pytest.mark.parametrize(
    ("name", "value", "first"),
    [
        ("random_walk.kind", "affinity", "crf"),
        ("irn.gt_prob", 0.5, "crf"),
        ("irn.map_power", 2.0, "crf"),
        ("irn.crf.iterations", 9, "crf"),
        ("irn.epochs", 9, "affinity"),
        ("irn.crop", 64, "affinity"),
        ("irn.backbone", "resnet38", "affinity"),
        ("train.seed", 9, "affinity"),
        ("network.weights", "scenes", "affinity"),
        ("irn.walk_beta", 9.0, "random_walk"),
        ("data.score", "trainaug", "random_walk"),
        ("data.crop", 48, "deeplab"),
        ("crf.iterations", 9, None),
        ("affinity.epochs", 9, None),
        ("random_walk.beta", 9.0, None),
    ],
)
def test_a_changed_value_makes_anew_what_depends_on_it(name: str, value: object, first: str | None) -> None:
    assert changed_stages(name, value) == (list(ALL_STAGES[ALL_STAGES.index(first) :]) if first else [])


def test_the_power_of_the_maps_follows_beta(made: Inputs, tmp_path: Path) -> None:
    config = with_values(made.config, {"irn.map_power": "auto"}, "test")
    first, second = (stage_manifest.stage_keys("m", config, "f", beta=beta) for beta in (0.5, 0.9))
    assert [stage for stage in ALL_STAGES if first[stage] != second[stage]] == list(ALL_STAGES[1:])
    with pytest.raises(ValueError, match="beta"):
        stage_manifest.stage_keys("m", config, "f")
    auto = replace(made, config=config, beta=0.5)
    name = made.split.ids[0]
    maps, _ = load_maps(made.folders["cam"] / f"{name}.npz")
    assert np.array_equal(irn_maps(made, maps), maps) and (maps > 0.5).any()
    assert np.array_equal(irn_maps(auto, maps) > 0.15, maps > 0.5)
    for stage in ("crf", "random_walk"):
        make(stage, auto, tmp_path / stage, [0])
        by_hand = replace(made, config=with_values(made.config, {"irn.map_power": np.log(0.15) / np.log(0.5)}, "test"))
        make(stage, by_hand, tmp_path / f"{stage} by hand", [0])
        assert files(tmp_path / stage) == files(tmp_path / f"{stage} by hand")
        assert files(tmp_path / stage)[f"{name}.png"] != files(made.folders[stage])[f"{name}.png"]


def test_every_field_belongs_to_one_stage() -> None:
    config = config_from(CONFIG, "test")
    parts = [irn_settings(stage, config) for stage in STAGES]
    assert sorted(name for part in parts for name in part) == sorted(type(config.irn).model_fields)
    assert stage_manifest.stage_settings("affinity", config) == ("irn", parts[1]) and parts[1]["epochs"] == 2
    assert stage_manifest.stage_settings("deeplab", config) == ("deeplab", config.deeplab.model_dump(mode="json"))
    affinity = with_values(config, {"random_walk.kind": "affinity"}, "test")
    for stage in ALL_STAGES:
        assert stage_manifest.stage_settings(stage, affinity) == (stage, affinity.model_dump(mode="json")[stage])


def test_a_backbone_of_its_own_brings_its_own_weights() -> None:
    config = config_from({**CONFIG, "network": {"backbone": "scene", "weights": "scenes"}}, "test")
    assert irn_weights(config) == "scenes"
    own = with_values(config, {"irn.backbone": "scene", "irn.weights": "file"}, "test")
    assert irn_weights(own) == "file"
    elsewhere = with_values(config, {"network.backbone": "no.such:thing", "irn.backbone": "scene"}, "test")
    assert irn_network(elsewhere).strides == (1, 2, 4, 4, 4)


def test_an_unfit_backbone_or_file_is_refused_first(tmp_path: Path) -> None:
    config = config_from(CONFIG, "test")
    check_irn(config, tmp_path)
    unfit = with_values(config, {"irn.backbone": "tests.cpn.models.test_backbone:OwnBackbone"}, "test")
    missing = with_values(config, {"irn.backbone": "scene", "irn.weights": "none.pth"}, "test")
    for wrong, words in ((unfit, "random_walk.kind: irn needs five stages"), (missing, "none.pth")):
        with pytest.raises(InputError) as refused:
            check_irn(wrong, tmp_path)
        assert words in str(refused.value) and "\n" not in str(refused.value)
        check_irn(with_values(wrong, {"random_walk.kind": "affinity"}, "test"), tmp_path)
