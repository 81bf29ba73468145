import hashlib
import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.data.voc import encode_mask, open_pack, palette
from cpn.sources import creatures
from cpn.sources import scenes as synthetic
from cpn.sources.creatures import HEADS
from cpn.sources.packing import prepare
from cpn.sources.scenes import draw_parts, draw_scene, write_parts, write_scenes

SMALL = ScenesConfig(train=6, extra=3, val=4, size=48, seed=3)


def bytes_of(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes_other_seed_other_pictures(tmp_path: Path) -> None:
    write_scenes(tmp_path / "a", SMALL)
    write_scenes(tmp_path / "b", SMALL)
    write_scenes(tmp_path / "c", SMALL.model_copy(update={"seed": 4}))
    a, b, c = (bytes_of(tmp_path / name) for name in "abc")
    assert a == b
    pictures = [name for name in a if name.endswith(".jpg")]
    assert len(pictures) == 13 and all(a[name] != c[name] for name in pictures)


def test_val_is_apart_and_extra_does_not_change_train(tmp_path: Path) -> None:
    write_scenes(tmp_path / "a", SMALL)
    write_scenes(tmp_path / "b", SMALL.model_copy(update={"extra": 0}))
    a, b = bytes_of(tmp_path / "a"), bytes_of(tmp_path / "b")
    pictures = [digest for name, digest in a.items() if name.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures)
    assert all(a[name] == digest for name, digest in b.items() if name.startswith("JPEGImages"))


def test_lists(tmp_path: Path) -> None:
    write_scenes(tmp_path / "a", SMALL)
    lists = {p.stem: p.read_text().split() for p in (tmp_path / "a/ImageSets/Segmentation").glob("*.txt")}
    assert set(lists) == {"train", "trainaug", "val"}
    assert lists["trainaug"][:6] == lists["train"] and len(lists["trainaug"]) == 9 and len(lists["val"]) == 4


def test_foreground_and_objects_are_as_designed() -> None:
    scenes = [draw_scene(np.random.default_rng([0, 0, i]), 64, 0.15) for i in range(300)]
    assert 0.29 < np.mean([(scene.mask > 0).mean() for scene in scenes]) < 0.35
    counts = np.bincount([len(scene.objects) for scene in scenes], minlength=4) / len(scenes)
    np.testing.assert_allclose(counts, [0, 0.6, 0.35, 0.05], atol=0.07)
    classes = np.bincount([kind for scene in scenes for kind, _ in scene.objects], minlength=6)
    assert classes.min() > 0.5 * classes.mean()


def test_foreground_does_not_depend_on_size() -> None:
    share = [
        np.mean([(draw_scene(np.random.default_rng([0, i]), s, 0.15).mask > 0).mean() for i in range(40)])
        for s in (64, 160)
    ]
    assert abs(share[0] - share[1]) < 0.02


def test_the_head_shows_its_colour_where_the_mask_says_creature() -> None:
    for index in range(30):
        scene = draw_scene(np.random.default_rng([7, index]), 64, 0.15)
        for kind, seen in scene.objects:
            pixels = scene.image[seen].astype(float)
            chroma = pixels.max(1) - pixels.min(1)
            vivid = pixels[chroma > 110]
            toward = creatures.HEADS - creatures.HEADS.mean(1, keepdims=True)
            away = vivid - vivid.mean(1, keepdims=True)
            likely = np.bincount((away @ toward.T / np.linalg.norm(toward, axis=1)).argmax(1), minlength=6)
            assert likely.argmax() == kind


def test_look_alikes_are_background() -> None:
    # With no creature left to place, whatever body is drawn must leave the mask empty and the labels too.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "_place_creature", lambda *arguments: None)
        patch.setattr(synthetic, "LOOK_ALIKES", 1.0)
        with_body = draw_scene(np.random.default_rng(5), 64, 0.15)
        patch.setattr(synthetic, "LOOK_ALIKES", 0.0)
        without = draw_scene(np.random.default_rng(5), 64, 0.15)
    assert not with_body.mask.any() and not with_body.objects
    assert (with_body.image != without.image).any()


def test_later_objects_hide_earlier_ones_exactly() -> None:
    for index in range(40):
        scene = draw_scene(np.random.default_rng([9, index]), 64, 0.15)
        total = np.zeros((64, 64), int)
        for kind, seen in scene.objects:
            total += seen
            assert (scene.mask[seen] == kind + 1).all()
        assert total.max() <= 1 and ((scene.mask > 0) == (total > 0)).all()


def test_files_agree_with_each_other(tmp_path: Path) -> None:
    write_scenes(tmp_path / "a", SMALL)
    classes = (tmp_path / "a/classes.txt").read_text().split()
    for path in (tmp_path / "a/Annotations").iterdir():
        with Image.open(tmp_path / f"a/SegmentationClass/{path.stem}.png") as mask:
            assert mask.mode == "P" and (np.array(mask.getpalette()).reshape(-1, 3) == palette()[:256]).all()
            values = np.array(mask)
        objects = ElementTree.parse(path).findall("object")
        assert {classes.index(item.findtext("name", "")) + 1 for item in objects} == set(np.unique(values)) - {0}
        for item in objects:
            rows, columns = np.nonzero(values == classes.index(item.findtext("name", "")) + 1)
            box = [int(item.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")]
            assert box == [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]
        jpeg = (tmp_path / f"a/JPEGImages/{path.stem}.jpg").read_bytes()
        with Image.open(io.BytesIO(jpeg)) as picture:
            assert picture.size == (48, 48) and picture.format == "JPEG"


def test_written_twice_is_written_once(tmp_path: Path) -> None:
    write_scenes(tmp_path / "a", SMALL)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    write_scenes(tmp_path / "a", SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and has no scenes.json: choose a new folder"):
        write_scenes(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    write_scenes(tmp_path / "a", SMALL)
    with pytest.raises(InputError, match="holds scenes with another size, seed: choose a new folder"):
        write_scenes(tmp_path / "a", SMALL.model_copy(update={"size": 64, "seed": 9}))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="has no scenes.json: .* delete .*file, and the same scenes"):
        write_scenes(tmp_path / "file", SMALL)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        synthetic, "_annotation", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\): choose another folder"):
        write_scenes(tmp_path / "a", SMALL)
    assert not list(tmp_path.iterdir())


def test_part_pictures_carry_all_kinds_and_can_be_packed(tmp_path: Path) -> None:
    write_parts(tmp_path / "p", 60, 48, 0)
    pack = prepare(tmp_path / "p", ["train"])
    assert pack.classes == synthetic.PART_KINDS and len(pack.classes) == 12
    labels = pack.split("train").labels
    assert labels.shape == (60, 12) and labels.sum(0).min() > 0 and labels.sum(1).min() > 0


def test_part_scenes_differ_from_creatures() -> None:
    combined = 0
    for index in range(60):
        kinds = {kind for kind, _ in draw_parts(np.random.default_rng(index), 48).objects}
        heads, torsos = [k for k in kinds if k < 6], [k - 6 for k in kinds if 6 <= k < 9]
        combined += any(creatures.TORSO_OF[h] not in torsos for h in heads if torsos)
    assert combined > 0


def test_a_trace_mixes_the_heads_colour_into_the_body() -> None:
    plain, traced = (draw_scene(np.random.default_rng([4, 2]), 64, trace) for trace in (0.0, 0.5))
    assert np.array_equal(plain.mask, traced.mask)
    kind, body = traced.objects[0]
    colour = HEADS[kind]
    shift = traced.image[body].astype(float) - plain.image[body].astype(float)
    towards = (shift * (colour - plain.image[body])).sum(axis=1)
    assert (towards > 0).mean() > 0.7 and (np.abs(shift).sum(axis=1) > 0).mean() < 1  # the head stays as it is
    outside = ~np.logical_or.reduce([seen for _, seen in traced.objects])
    clear = np.abs(traced.image[outside].astype(float) - plain.image[outside]).sum(axis=1) == 0
    assert clear.mean() > 0.5


def test_other_classes_are_the_first_creatures_renamed(tmp_path: Path) -> None:
    few = ScenesConfig(train=12, val=2, size=32)
    write_scenes(tmp_path / "own", few, ["ant", "bee", "cat"])
    assert (tmp_path / "own" / "classes.txt").read_text().split() == ["ant", "bee", "cat"]
    pack = prepare(tmp_path / "own", ["train", "val"])
    assert pack.classes == ("ant", "bee", "cat") and pack.split("train").labels.shape == (12, 3)
    write_scenes(tmp_path / "same", few, creatures.CREATURES)
    write_scenes(tmp_path / "same", few)  # its own names are no other classes
    with pytest.raises(InputError, match="another classes"):
        write_scenes(tmp_path / "own", few, ["ant", "bee", "dog"])


def test_scenes_that_another_process_packed_meanwhile_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "scenes"

    def after_the_other(mask: "np.typing.NDArray[np.uint8]") -> bytes:
        monkeypatch.undo()
        write_scenes(root, SMALL)
        prepare(root, ["train"], scored=[])
        return encode_mask(mask)

    monkeypatch.setattr("cpn.sources.scenes.encode_mask", after_the_other)
    write_scenes(root, SMALL)
    assert len(open_pack(root).split("train")) == SMALL.train
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
