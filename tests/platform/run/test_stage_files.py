from pathlib import Path
from platform.base.paths import MANIFEST
from platform.run.stage_files import FILES, about_to_be_read, checked, look, reopen, write_files

import pytest

from cpn.core.files import read_json, write_json
from cpn.core.object_storage import SCRATCH

NAMES = ("a.npz", "b.png", "model.safetensors", "counts.npz", "pictures/x.png", "epochs.json")
OF_IMAGES = ("a.npz", "b.png")


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCRATCH, str(tmp_path / "scratch"))


def make(folder: Path) -> Path:
    (folder / "pictures").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(name)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/c").write_text("")
    manifest = {"stage": "deeplab", "key": "1", "metrics": {"miou_val": 51.5}}
    write_json(folder / MANIFEST, {**manifest, "files": write_files(folder)})
    return folder


def test_a_whole_stage(tmp_path: Path) -> None:
    folder = make(tmp_path / "stage-1")
    assert set(read_json(folder / FILES)) == set(NAMES)
    found = look(folder, everything=True)
    assert found.whole and found.known and found.manifest is not None and found.manifest.metrics["miou_val"] == 51.5
    assert not look(tmp_path / "none", True).whole


@pytest.mark.parametrize("name", [*NAMES, MANIFEST, FILES])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_damage_is_said_and_what_is_lost_is_made_again(tmp_path: Path, name: str, damage: str) -> None:
    folder = make(tmp_path / "stage-1")
    assert look(folder, True).whole
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_text("other")
    lines: list[str] = []
    if name in OF_IMAGES:
        assert checked(folder, "cam", False, lines.append).whole and lines == [], "nobody is about to read it"
    found = checked(folder, "cam", True, lines.append)
    assert len(lines) == 1 and str(folder / name) in lines[0]
    if name == FILES:
        assert found.whole and look(folder, True).whole
    elif name.startswith("pictures"):
        assert found.damaged == [name] and found.manifest is not None and folder.exists()
    else:
        work = folder.with_name("stage-1.work")
        assert not found.whole and not folder.exists() and not (work / MANIFEST).exists()
        left = {other for other in NAMES if (work / other).exists()}
        assert left == set(NAMES) - {name}


def test_a_stage_of_an_earlier_version_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = make(tmp_path / "stage-1")
    write_json(folder / MANIFEST, {"stage": "deeplab", "key": "1", "metrics": {}})
    (folder / FILES).unlink()
    (folder / "a.npz").write_text("other")
    found = look(folder, True)
    assert found.whole and not found.known


def test_whole_json_that_is_no_manifest_is_damaged(tmp_path: Path) -> None:
    for value in ({"stage": "deeplab", "key": "1"}, ["a list"], {"stage": "deeplab", "key": "1", "metrics": "many"}):
        folder = make(tmp_path / "stage-1")
        write_json(folder / MANIFEST, value)
        lines: list[str] = []
        assert look(folder, True).damaged == [MANIFEST] and not checked(folder, "deeplab", True, lines.append).whole
        assert lines == [f"{folder / MANIFEST}: missing or damaged; what is lost of stage deeplab is made again"]


def test_what_a_later_stage_is_about_to_read(tmp_path: Path) -> None:
    stages = ("cam", "crf", "affinity", "random_walk", "deeplab")
    folders = {stage: make(tmp_path / stage) for stage in stages}
    assert about_to_be_read(folders, stages) == set()
    (folders["deeplab"] / "model.safetensors").unlink()
    assert about_to_be_read(folders, stages) == {"random_walk"}
    (folders["random_walk"] / "b.png").write_text("other")  # which is read, so it has to be made again
    assert about_to_be_read(folders, stages) == {"random_walk", "cam", "affinity", "crf"}


def test_a_reopened_stage_killed_half_way_is_damaged(tmp_path: Path) -> None:
    folder = make(tmp_path / "stage-1")
    (folder / "a.npz").unlink()  # what `reopen` does first
    assert look(folder, True).damaged == ["a.npz"]
    reopen(folder, ["a.npz"])
    assert not look(folder, True).whole
