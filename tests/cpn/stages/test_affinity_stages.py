from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cpn.config import config_from
from cpn.core.files import DamagedFile
from cpn.data.map_files import load_label, load_maps, present_classes
from cpn.data.voc import palette
from cpn.models.checkpoint import read_metadata
from cpn.propagation.crf import crf_scores
from cpn.stages.affinity_stages import ScoredImages, affinity_network, quantised, walk_affinities
from tests.cpn.stages.made_stages import Made


def test_scores_are_the_crf_of_both_exponents_in_all_classes(made: Made) -> None:
    split, config = made.inputs.split, made.inputs.config.crf
    images = ScoredImages(split, made.folders["crf"])
    assert len(images) == 10 and np.array_equal(images.image(3), split.image(3))
    for index in (0, 9):
        maps, present = load_maps(made.folders["cam"] / f"{split.ids[index]}.npz")
        both = images.scores(index)
        assert not np.array_equal(*both)
        for scores, alpha in zip(both, (config.alpha_low, config.alpha_high), strict=True):
            assert scores.shape == (7, 32, 32) and scores.dtype == np.float32
            rows = [0, *present]
            expected = crf_scores(split.image(index), maps, alpha, config)
            np.testing.assert_allclose(scores[rows], expected, atol=0.5 / 255 + 1e-6)
            absent = sorted(set(range(7)) - set(rows))
            assert not scores[absent].any()


def test_scores_are_kept_in_255_steps() -> None:
    scores = np.array([-0.1, 0.0, 0.5 / 255 - 1e-4, 0.5, 254.6 / 255, 1.0, 1.1], np.float32)
    assert quantised(scores).tolist() == [0, 0, 0, 128, 255, 255, 255] and quantised(scores).dtype == np.uint8


def test_affinity_reports_its_loss_and_says_what_it_is(made: Made) -> None:
    assert made.results["affinity"].keys() == {"loss_total"} and made.results["affinity"]["loss_total"] > 0
    metadata = read_metadata(made.folders["affinity"] / "model.safetensors")
    assert metadata["kind"] == "affinity" and metadata["fingerprint"] == made.inputs.pack.fingerprint
    assert config_from(metadata["config"], "x") == made.inputs.config


def test_pseudo_labels_name_present_classes_in_voc_colours(made: Made) -> None:
    split = made.inputs.split
    for index, name in enumerate(split.ids):
        path = made.folders["random_walk"] / f"{name}.png"
        label = load_label(path)
        assert label.shape == (32, 32) and set(np.unique(label)) <= {0, *present_classes(split.labels[index])}
        with Image.open(path) as picture:
            assert picture.mode == "P"
            assert picture.getpalette()[: 3 * 21] == palette()[:21].reshape(-1).tolist()  # type: ignore[index]
            assert np.array_equal(np.array(picture.convert("RGB")), palette()[label])
    assert len({load_label(p).tobytes() for p in made.folders["random_walk"].glob("*.png")}) > 1


def test_scores_of_a_cut_file_are_named(made: Made, tmp_path: Path) -> None:
    name = made.inputs.split.ids[0]
    whole = (made.folders["crf"] / f"{name}.npz").read_bytes()
    (tmp_path / f"{name}.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFile) as refused:
        ScoredImages(made.inputs.split, tmp_path).scores(0)
    assert str(tmp_path / f"{name}.npz") in str(refused.value) and "\n" not in str(refused.value)


def test_the_network_comes_back_trained_and_ready_to_walk(made: Made) -> None:
    config = made.inputs.config
    fresh, trained = affinity_network(config), affinity_network(config, made.inputs)
    assert fresh.training and not trained.training
    again = affinity_network(config, made.inputs).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in trained.state_dict().items())
    assert any(not torch.equal(value, again[name]) for name, value in fresh.state_dict().items())


def test_nothing_left_to_walk_loads_no_network(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("cpn.stages.affinity_stages.affinity_network", refuse)
    walk_affinities(made.inputs, made.inputs.config.random_walk, [0, 9], made.folders["random_walk"])


def test_the_walk_is_the_given_one_and_not_the_configurations(made: Made, tmp_path: Path) -> None:
    walk = made.inputs.config.random_walk.model_copy(update={"alpha": 0.05, "crf": False})
    walk_affinities(made.inputs, walk, [0, 1, 2], tmp_path)
    names = [f"{made.inputs.split.ids[index]}.png" for index in (0, 1, 2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    foreground = [
        np.mean([load_label(folder / n) > 0 for n in names]) for folder in (tmp_path, made.folders["random_walk"])
    ]
    assert foreground[0] != foreground[1], "alpha is the background's exponent"
