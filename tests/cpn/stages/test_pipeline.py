from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cpn.config import Config, config_from, with_values
from cpn.core.errors import InputError, WorkError
from cpn.data.map_files import load_label, load_maps, present_classes
from cpn.models.network import build_network
from cpn.run import load_run
from cpn.scoring.cam import multi_scale_maps
from cpn.scoring.counts import load_counts
from cpn.scoring.metrics import hard_counts, miou
from cpn.scoring.selection import select_and_confirm
from cpn.segmentation.schedule import schedule_for
from cpn.stages import pipeline, stage_manifest
from cpn.stages.pipeline import load_deeplab
from tests.cpn.stages.made_stages import CONFIG, STAGES, Made, files, make, silent


def test_each_stage_writes_whole_files_or_one_model(made: Made) -> None:
    ids = made.inputs.split.ids
    assert len(ids) == 10
    expected = {
        "cam": {f"{name}.npz" for name in ids},
        "crf": {f"{name}.npz" for name in ids},
        "random_walk": {f"{name}.png" for name in ids},
        "affinity": {"model.safetensors"},
        "deeplab": {"model.safetensors", "counts.npz"},
    }
    for stage in STAGES:
        assert set(files(made.folders[stage])) == expected[stage]


def test_maps_are_those_of_the_run(made: Made) -> None:
    network, config, _ = load_run(made.inputs.model)
    split = made.inputs.split
    for index in (0, 9):
        maps, present = load_maps(made.folders["cam"] / f"{split.ids[index]}.npz")
        assert present.tolist() == present_classes(split.labels[index]).tolist()
        expected = multi_scale_maps(network, split.image(index), present, config.cam)
        np.testing.assert_array_equal(maps, expected.astype(np.float16).astype(np.float32))
        assert maps.max() > 0.9


def test_pseudo_labels_are_scored_on_confirm_images_and_on_all(made: Made) -> None:
    scored = made.inputs.pack.split("train")
    _, confirm = select_and_confirm(scored.ids, made.inputs.config.cam)
    assert 0 < len(confirm) < len(scored)
    counts = np.stack(
        [
            hard_counts(load_label(made.folders["random_walk"] / f"{name}.png"), scored.mask(i), 7)  # type: ignore[arg-type]
            for i, name in enumerate(scored.ids)
        ]
    )
    assert pipeline.score_pseudo_labels(made.inputs, made.folders["random_walk"]) == {
        "miou_confirm": pytest.approx(100 * float(miou(counts[confirm].sum(0)))),
        "miou_train": pytest.approx(100 * float(miou(counts.sum(0)))),
    }


def test_a_scored_image_without_pseudo_label_is_named(made: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        pipeline.score_pseudo_labels(made.inputs, tmp_path)
    message = str(refused.value)
    assert message.startswith(made.inputs.pack.split("train").ids[0]) and "data.train" in message
    assert "no pseudo label" in message and "\n" not in message


@pytest.mark.parametrize("stage", ["cam", "crf", "random_walk"])
def test_what_is_there_is_not_made_again(made: Made, tmp_path: Path, stage: str) -> None:
    whole = files(made.folders[stage])
    first, *_ = sorted(whole)
    out = tmp_path / "out"
    out.mkdir()
    (out / first).write_bytes(b"made before")
    for share in ([7, 2], list(range(5, 10)), list(range(5))):
        make(stage, made.inputs, out, share)
    assert (out / first).read_bytes() == b"made before"
    assert {n: d for n, d in files(out).items() if n != first} == {n: d for n, d in whole.items() if n != first}


@pytest.mark.parametrize("stage", ["cam", "crf", "random_walk"])
def test_a_stage_makes_the_images_it_is_told_alone(made: Made, tmp_path: Path, stage: str) -> None:
    make(stage, made.inputs, tmp_path, [4])
    (only,) = files(tmp_path)
    assert Path(only).stem == made.inputs.split.ids[4]


def test_deeplab_comes_back_and_scores_what_was_reported(made: Made) -> None:
    model = made.folders["deeplab"] / "model.safetensors"
    network, config, classes = load_deeplab(model)
    assert config == made.inputs.config and classes == made.inputs.pack.classes and not network.training
    plain, refined = pipeline.evaluate(network, made.inputs.pack.split("val"), config.deeplab)
    assert made.results["deeplab"] == {
        "miou_val": pytest.approx(100 * float(miou(plain.sum(0)))),
        "miou_val_crf": pytest.approx(100 * float(miou(refined.sum(0)))),
    }
    ids, kept = load_counts(model.parent / "counts.npz")
    assert ids == made.inputs.pack.split("val").ids
    np.testing.assert_array_equal(kept, np.stack([plain, refined], axis=1))
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 7, 32, 32)


def test_the_header_of_a_deeplab_holds_what_the_rule_decided(made: Made, tmp_path: Path) -> None:
    names = {"deeplab.schedule": "by_images", "deeplab.iterations": 3, "deeplab.dropout": 0.0}
    config = with_values(made.inputs.config, names, "test")
    assert config.deeplab.lr is None and config.deeplab.width == 8
    facts = pipeline.facts_of(replace(made.inputs, config=config), 4)
    assert (facts.images, facts.side, facts.crop, facts.stride) == (10, 32, 32, 4)
    stride = build_network(config.network, 7).backbone.stride
    pipeline.make_deeplab(replace(made.inputs, config=config), tmp_path, silent)
    network, kept, _ = load_deeplab(tmp_path / "model.safetensors")
    assert kept.deeplab == schedule_for(config.deeplab, replace(facts, stride=stride)) and kept.deeplab.iterations == 3
    assert (kept.deeplab.optimizer, network.conv_fov.dilation) == ("adamw", (kept.deeplab.dilation,) * 2)


def test_a_collapsed_deeplab_leaves_no_model(made: Made, tmp_path: Path) -> None:
    """A rate of almost 0 keeps the classifier at the class that its bias starts with: one mask for all images."""
    still = {"deeplab.iterations": 20, "deeplab.lr": 1e-12, "deeplab.batch_size": 2, "deeplab.bn_momentum": 1e-9}
    inputs = replace(made.inputs, config=with_values(made.inputs.config, still, "test"))
    for _ in range(2):  # the second time from its checkpoints
        with pytest.raises(WorkError, match="one mask for all images|learned nothing") as raised:
            pipeline.make_deeplab(inputs, tmp_path, silent)
        assert raised.value.cure == "deeplab.schedule=by_images"
        assert (tmp_path / "checkpoints").is_dir() and not (tmp_path / "model.safetensors").exists()


def test_another_checkpoint_is_not_taken(made: Made) -> None:
    with pytest.raises(InputError, match="of kind 'cam', not of a segmentation network") as refused:
        load_deeplab(made.inputs.model)
    assert str(made.inputs.model) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("stage", ["affinity", "deeplab"])
def test_a_killed_training_ends_as_if_it_had_not_been(made: Made, tmp_path: Path, stage: str) -> None:
    epochs = {"affinity.epochs": 2, "deeplab.iterations": 4}
    inputs = replace(made.inputs, config=with_values(made.inputs.config, epochs, "test"))

    def kill(_: dict[str, float]) -> None:
        raise KeyboardInterrupt

    train: Callable[..., dict[str, float]] = pipeline.TRAINED[stage]
    with pytest.raises(KeyboardInterrupt):
        train(inputs, tmp_path / "killed", kill)
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    resumed = train(inputs, tmp_path / "killed", silent)
    assert resumed == train(inputs, tmp_path / "whole", silent)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.parametrize("stage", ["affinity", "deeplab"])
def test_a_training_goes_on_within_an_epoch(made: Made, tmp_path: Path, stage: str) -> None:
    """Killed after each step that is saved, which is every one."""
    values = {"affinity.epochs": 2, "deeplab.iterations": 4, "train.checkpoint_minutes": 1e-9}
    inputs = replace(made.inputs, config=with_values(made.inputs.config, values, "test"))
    train: Callable[..., dict[str, float]] = pipeline.TRAINED[stage]
    saved: list[list[str]] = []

    def kill() -> None:
        saved.append(sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()))
        raise KeyboardInterrupt

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            train(replace(inputs, saved=kill), tmp_path / "killed", silent)
    resumed = train(inputs, tmp_path / "killed", silent)
    assert [names[-1] for names in saved] == [f"epoch_000{e}_step_00000{s}" for e in (0, 1) for s in (1, 2)]
    assert resumed == train(inputs, tmp_path / "whole", silent)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def keys(config: Config, model: str = "m", data: str = "f") -> dict[str, str]:
    return stage_manifest.stage_keys(model, config, data)


@pytest.mark.parametrize(
    ("name", "value", "first"),
    [
        ("cam.scales", [0.5], "cam"),
        ("cam.sizes", "aligned", "cam"),
        ("crf.iterations", 9, "crf"),
        ("affinity.epochs", 9, "affinity"),
        ("train.seed", 9, "affinity"),
        ("network.weights", "scenes", "affinity"),
        ("data.crop", 48, "affinity"),
        ("random_walk.beta", 9.0, "random_walk"),
        ("data.score", "trainaug", "random_walk"),
        ("deeplab.lr", 0.5, "deeplab"),
        ("deeplab.crf.iterations", 9, "deeplab"),
        ("deeplab.schedule", "by_images", "deeplab"),
        ("deeplab.sizes", "aligned", "deeplab"),
        ("deeplab.max_pixels", 300_000, "deeplab"),
        ("deeplab.classifier_std", 0.01, "deeplab"),
        ("data.val", "train", "deeplab"),
        ("data.root", "/elsewhere", None),
        ("data.workers", 9, None),
        ("train.checkpoint_minutes", 3.0, None),
        ("train.lr", 0.5, None),  # acts through the model's digest
    ],
)
def test_a_changed_value_makes_anew_only_what_depends_on_it(
    made: Made, name: str, value: object, first: str | None
) -> None:
    before, after = keys(made.inputs.config), keys(with_values(made.inputs.config, {name: value}, "test"))
    assert tuple(before) == STAGES and len(set(before.values())) == 5
    changed = [stage for stage in STAGES if before[stage] != after[stage]]
    assert changed == (list(STAGES[STAGES.index(first) :]) if first else [])


def test_another_model_or_other_data_make_everything_anew(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    config = made.inputs.config
    before = keys(config)
    for other in (keys(config, model="n"), keys(config, data="g")):
        assert not set(before.values()) & set(other.values())
    monkeypatch.setitem(stage_manifest.VERSIONS, "random_walk", 99)
    assert [stage for stage in STAGES if keys(config)[stage] != before[stage]] == ["random_walk", "deeplab"]


@pytest.mark.parametrize(
    ("name", "value", "first"),
    [
        ("crf.alpha_low", "auto", "crf"),
        ("crf.alpha_high", "auto", "crf"),
        ("random_walk.alpha", "auto", "random_walk"),
        ("random_walk.keep_if", "better", "random_walk"),
        ("random_walk.logt", "auto", None),  # from the images, which the fingerprint stands for
        ("random_walk.radius", "auto", None),
        ("random_walk.alpha", 6.0, None),
    ],
)
def test_beta_is_in_the_keys_of_what_follows_it_alone(name: str, value: object, first: str | None) -> None:
    config = with_values(config_from(CONFIG, "test"), {name: value}, "test")
    one, two = (stage_manifest.stage_keys("m", config, "f", beta=beta) for beta in (0.3, 0.32))
    changed = [stage for stage in STAGES if one[stage] != two[stage]]
    assert changed == (list(STAGES[STAGES.index(first) :]) if first else [])
    if first:
        with pytest.raises(ValueError, match="beta"):
            keys(config)
    else:
        assert keys(config) == one


def test_a_walk_of_irn_that_may_give_way_follows_beta() -> None:
    irn = with_values(config_from(CONFIG, "test"), {"random_walk.kind": "irn", "random_walk.alpha": "auto"}, "test")
    assert keys(irn) == stage_manifest.stage_keys("m", irn, "f", beta=0.3), "it reads no alpha"
    better = with_values(irn, {"random_walk.keep_if": "better"}, "test")
    one, two = (stage_manifest.stage_keys("m", better, "f", beta=beta) for beta in (0.3, 0.32))
    assert len({keys(irn)["random_walk"], one["random_walk"], two["random_walk"]}) == 3
    assert one["affinity"] == keys(irn)["affinity"]
