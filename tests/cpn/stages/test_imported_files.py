"""Another method's files in the place of a stage: our own maps come back as they were, and score what they scored."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cpn.core.errors import InputError
from cpn.core.progress import silent
from cpn.data.map_files import load_label, load_maps, present_classes, save_maps
from cpn.data.voc import mask_of
from cpn.scoring.metrics import BETAS, curve_counts, hard_counts, miou
from cpn.scoring.selection import select_and_confirm, summarise
from cpn.stages.imported_files import find_imported, import_files, list_files, measure, write_list
from cpn.stages.stage_manifest import stage_keys
from tests.cpn.stages.made_stages import Made


def test_own_maps_come_back_and_score_what_they_scored(made: Made, tmp_path: Path) -> None:
    inputs = made.inputs
    imported = find_imported(made.folders["cam"], inputs.config, inputs.pack, maps=True, halved=False)
    import_files(imported, inputs.split, range(10), inputs.classes, tmp_path, silent)
    for path in imported.files.paths:
        before, after = load_maps(path), load_maps(tmp_path / path.name)
        assert np.array_equal(before[0], after[0]) and np.array_equal(before[1], after[1])
    scored = inputs.pack.split(inputs.config.data.score)
    held_back = set(select_and_confirm(scored.ids, inputs.config.cam)[1])
    total = np.zeros((2, len(BETAS), 3, inputs.classes), np.int64)
    for index, name in enumerate(scored.ids):
        maps, present = load_maps(made.folders["cam"] / f"{name}.npz")
        total[int(index in held_back)] += curve_counts(maps, present, mask_of(scored, index), inputs.classes, BETAS)
    expected = summarise(total[0], total[1], inputs.config.cam).metrics
    found = measure(imported, inputs.config, inputs.pack, silent)
    assert expected.items() <= found.items() and found["iou_background"] > 0


def test_labels_stand_for_the_walk(made: Made, tmp_path: Path) -> None:
    inputs = made.inputs
    imported = find_imported(made.folders["random_walk"], inputs.config, inputs.pack, maps=False, halved=False)
    assert imported.stage == "random_walk"
    import_files(imported, inputs.split, range(10), inputs.classes, tmp_path, silent)
    for path in imported.files.paths:
        assert np.array_equal(load_label(path), load_label(tmp_path / path.name))
    scored = inputs.pack.split(inputs.config.data.score)
    labels = [load_label(tmp_path / f"{name}.png") for name in scored.ids]
    counts = [hard_counts(label, mask_of(scored, i), inputs.classes) for i, label in enumerate(labels)]
    found = measure(imported, inputs.config, inputs.pack, silent)
    assert found["miou_train"] == pytest.approx(100 * float(miou(np.sum(counts, axis=0))))


def test_image_labels_decide_which_maps_count(made: Made, tmp_path: Path) -> None:
    """A map of a class that the image is not labelled with goes; a labelled class without one is zero."""
    inputs, split = made.inputs, made.inputs.split
    folder = tmp_path / "maps"
    shutil.copytree(made.folders["cam"], folder)
    height, width = split.image(0).shape[:2]
    present = present_classes(split.labels[0])
    absent = next(label for label in range(1, inputs.classes) if label not in present)
    save_maps(folder / f"{split.ids[0]}.npz", np.full((1, height, width), 0.75), np.array([absent]))
    imported = find_imported(folder, inputs.config, inputs.pack, maps=True, halved=False)
    import_files(imported, split, [0], inputs.classes, tmp_path, silent)
    maps, classes = load_maps(tmp_path / f"{split.ids[0]}.npz")
    assert classes.tolist() == present.tolist() and not maps.any()


def test_halved_maps_are_doubled(made: Made, tmp_path: Path) -> None:
    inputs, split = made.inputs, made.inputs.split
    imported = find_imported(made.folders["cam"], inputs.config, inputs.pack, maps=True, halved=False)
    half = tmp_path / "half"
    half.mkdir()
    for path in imported.files.paths:
        maps, present = load_maps(path)
        np.savez_compressed(half / path.name, maps=maps / 2, classes=present)
    halved = find_imported(half, inputs.config, inputs.pack, maps=True, halved=True)
    import_files(halved, split, [3], inputs.classes, tmp_path, silent)
    name = imported.files.paths[3].name
    assert np.array_equal(load_maps(tmp_path / name)[0], load_maps(imported.files.paths[3])[0])


def test_equal_files_have_equal_keys_wherever_they_lie(made: Made, tmp_path: Path) -> None:
    inputs = made.inputs
    shutil.copytree(made.folders["cam"], tmp_path / "copy")
    lists = [
        write_list(find_imported(folder, inputs.config, inputs.pack, maps=True, halved=False), tmp_path.joinpath, "x")
        for folder in (made.folders["cam"], tmp_path / "copy")
    ]
    assert lists[0] == lists[1]
    imported = find_imported(tmp_path / "copy", inputs.config, inputs.pack, maps=True, halved=False)
    assert list_files(imported) != list_files(replace(imported, halved=True))
    other = inputs.config.model_copy(update={"cam": inputs.config.cam.model_copy(update={"scales": (1.0, 2.0)})})
    for stage, same in (("cam", True), (None, False)):
        keys = [stage_keys("d", config, "f", 0.3, imported=stage)["cam"] for config in (inputs.config, other)]
        assert (keys[0] == keys[1]) is same, "what makes maps of a network says nothing of imported ones"
    assert list(stage_keys("d", inputs.config, "f", imported="random_walk")) == ["random_walk", "deeplab"]


def test_what_does_not_fit_is_refused_in_a_line(made: Made, tmp_path: Path) -> None:
    inputs, split = made.inputs, made.inputs.split
    with pytest.raises(InputError, match=r"holds score maps; give them with --maps"):
        find_imported(made.folders["cam"], inputs.config, inputs.pack, maps=False, halved=False)
    with pytest.raises(InputError, match="pseudo labels have nothing to double"):
        find_imported(made.folders["random_walk"], inputs.config, inputs.pack, maps=False, halved=True)
    with pytest.raises(InputError, match="has no file for 10 of 10 images .* --set data.train="):
        find_imported(tmp_path, inputs.config, inputs.pack, maps=True, halved=False)
    shutil.copytree(made.folders["cam"], tmp_path / "maps")
    height, width = split.image(0).shape[:2]
    save_maps(tmp_path / "maps" / f"{split.ids[0]}.npz", np.zeros((1, height, width)), np.array([0]))
    imported = find_imported(tmp_path / "maps", inputs.config, inputs.pack, maps=True, halved=False)
    with pytest.raises(InputError, match="has a map of the background, .* give --labels"):
        import_files(imported, split, [0], inputs.classes, tmp_path, silent)
