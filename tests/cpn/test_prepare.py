"""The command that checks and packs a data set: what it says of the lists, and what to type next."""

import shutil
from pathlib import Path

import pytest

from cpn.config.data import ScenesConfig
from cpn.prepare import main
from cpn.sources.scenes import write_scenes
from tests.cpn.small_voc import write_small_voc


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source") / "scenes"
    write_scenes(root, ScenesConfig(train=3, extra=1, val=2, size=32))
    return root


@pytest.fixture
def root(scenes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes, tmp_path / "data"))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    write_small_voc(tmp_path / "VOCdevkit/VOC2012")
    return tmp_path / "VOCdevkit/VOC2012"


def listed(root: Path, name: str = "train") -> Path:
    return root / "ImageSets/Segmentation" / f"{name}.txt"


def test_it_says_what_it_found_and_what_comes_next(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "Annotations/val_00000.xml").write_text("<annotation/>")
    main([str(root)])
    text = capsys.readouterr().out
    assert "checking 6 of 6, 0 s left" in text and "trainaug: 4 images, " in text and "val: 2 images, " in text
    assert ", 1 without any class" in text
    assert text.endswith(f"next: python -m platform.sweep search_spaces/photos.yaml --set data.root={root.resolve()}\n")
    main([str(root)])
    assert "nothing to do" in capsys.readouterr().out


def test_many_images_are_searched_as_the_paper_does(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cpn.prepare.FEW_IMAGES", 3)
    main([str(root)])
    assert "next: python -m platform.sweep search_spaces/patch.yaml --set data.root=" in capsys.readouterr().out


def test_without_trainaug_trains_on_train(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed(root, "trainaug").unlink()
    main([str(root), "--lists", "train", "val"])
    assert capsys.readouterr().out.endswith(" --set data.train=train\n")


@pytest.mark.parametrize(("packed", "lacking"), [("val", "train"), ("train", "val"), ("trainaug", "train val")])
def test_the_next_command_packs_what_a_sweep_lacks(
    root: Path, packed: str, lacking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(root), "--lists", packed])
    said = capsys.readouterr().out.splitlines()
    assert said[-2] == f"note: a sweep also needs list {' and list '.join(lacking.split())}, which is not packed"
    assert said[-1] == f"next: python -m cpn.prepare {root} --lists {lacking}"
    main(said[-1].split()[4:])
    assert "next: python -m platform.sweep" in capsys.readouterr().out


def test_without_any_list_to_train_on_it_says_which(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "trainaug"):
        listed(root, name).unlink()
    main([str(root), "--lists", "val", "--out", str(root / "o")])
    said = capsys.readouterr().out.splitlines()
    assert said[-2].endswith(f"list train, which is not packed; write {listed(root)}")
    assert said[-1] == f"next: python -m cpn.prepare {root} --out {root}/o --lists train"


def test_a_root_without_masks_is_packed_with_a_warning(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(root)])
    assert "no masks" not in capsys.readouterr().out
    for name in listed(root, "val").read_text().split():
        (root / f"SegmentationClass/{name}.png").unlink()
    main([str(root)])
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(f"warning: val: no masks in {root}/SegmentationClass, so no mIoU") for line in said) == 1
    assert "mask_free" not in said[-1]  # what is searched by, list train, has its masks
    shutil.rmtree(root / "SegmentationClass")
    main([str(root)])
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("warning: train and val: no masks") for line in said) == 1
    assert said[-1].endswith(f"--set data.root={root.resolve()} --set objective=mask_free")


def test_warnings_name_the_published_sizes(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(voc), "--lists", "train", "trainaug", "val", "test"])
    text = capsys.readouterr().out
    assert "warning: train has 2 images, that of VOC 2012 has 1464\n" in text
    assert "warning: val has 2 images, that of VOC 2012 has 1449\n" in text
    assert "warning: trainaug has 5 images, that of VOC 2012 has 10582\n" in text
    assert "warning: test has 2 images, that of VOC 2012 has 1456\n" in text
    assert text.count("warning: ") == 4
    assert "test: 2 images without labels, for prediction only\n" in text
    assert f"made by rule from {voc}/SegmentationClassAug and list train, without list val\n" in text


def test_the_command_after_the_test_list_alone(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(voc), "--lists", "test"])
    assert f"next: python -m cpn.voc_submission MODEL --root {voc.resolve()} " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train_aug", "trainaug_id", "trainall", "trainval"])
def test_the_next_command_trains_on_the_list_that_was_packed(
    root: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = root / "ImageSets/Segmentation"
    val = (lists / "val.txt").read_text().split()
    (lists / f"{name}.txt").write_text("\n".join([*(lists / "train.txt").read_text().split(), *val]) + "\n")
    (lists / "trainaug.txt").unlink()
    main([str(root), "--lists", "train", name, "val"])
    said = capsys.readouterr().out
    assert f"warning: 2 images of val are also in {name} (such as {val[0]}): they would be trained on\n" in said
    assert said.endswith(f" --set data.train={name if 'aug' in name else 'train'}\n")


def test_out_is_where_it_packs_and_the_data_set_stays_as_it_is(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(root.rglob("*"))
    out = tmp_path / "my packs"
    main([str(root), "--out", str(out)])
    said = capsys.readouterr().out
    assert sorted(root.rglob("*")) == before and (out / "packed/manifest.json").is_file()
    assert f"packed in {out}/packed\n" in said and said.endswith(f"--set 'data.root=\"{out.resolve()}\"'\n")
