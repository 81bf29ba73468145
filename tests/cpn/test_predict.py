"""The command: what it writes, that it goes on, and what it refuses to write over."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cpn.stages.predictor as predictor
from cpn.core.errors import InputError
from cpn.data.voc import decode_image, palette
from cpn.plots.curves import overlay
from cpn.predict import left_out, main
from cpn.stages.predictor import load
from tests.cpn.stages.test_predictor import encoded, save_cam, save_deeplab, scene


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with both kinds of checkpoint and a folder of two pictures and a text."""
    monkeypatch.chdir(tmp_path)
    save_cam(tmp_path / "cam.safetensors")
    save_deeplab(tmp_path / "deeplab.safetensors")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(encoded(scene(), "JPEG"))
    (tmp_path / "photos/b.PNG").write_bytes(encoded(scene(30, 90, seed=1)))
    (tmp_path / "photos/notes.txt").write_text("no picture")
    return tmp_path


def test_masks_overlays_overview_and_shares_are_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["deeplab.safetensors", "photos", "--out", "out"])
    there = sorted(str(p.relative_to(place / "out")) for p in (place / "out").rglob("*") if p.is_file())
    assert there == ["masks/a.png", "masks/b.png", "overlays/a.png", "overlays/b.png", "overview.png",
                     "predictions.json"]  # fmt: skip
    image = decode_image((place / "photos/a.jpg").read_bytes())
    expected = load("deeplab.safetensors")(image)
    with Image.open("out/masks/a.png") as mask:
        assert mask.mode == "P" and np.array_equal(np.array(mask), expected)
        assert np.array_equal(np.array(mask.getpalette()).reshape(256, 3), palette())
    with Image.open("out/overlays/a.png") as picture:
        assert np.array_equal(np.array(picture), overlay(image, expected))
    rows = json.loads((place / "out/predictions.json").read_text())["pictures"]
    names = ["background", "cat", "dog", "cow"]
    shares = {names[v]: round(float((expected == v).mean()), 4) for v in np.unique(expected)}
    assert rows[0]["picture"] == "photos/a.jpg" and rows[0]["shares"] == shares
    said = capsys.readouterr().out
    assert "2 masks in out/masks" in said and said.endswith("next: look at out/overview.png\n")
    assert "1 images are larger than 80 pixels" in said


def test_the_same_command_makes_nothing_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["cam.safetensors", "photos", "--out", "out", "--labels", "cat,dog"])
    (place / "out/overlays/b.png").unlink()
    kept = {path: path.read_bytes() for path in (place / "out").rglob("*.png")}
    with monkeypatch.context() as patch:
        patch.setattr(predictor.Predictor, "__call__", lambda *_: pytest.fail("a mask was made again"))
        main(["cam.safetensors", "photos", "--out", "out", "--labels", "cat,dog"])
    assert (place / "out/overlays/b.png").exists()
    assert all(path.read_bytes() == data for path, data in kept.items())


def test_after_a_stop_it_goes_on_with_the_next_picture(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = predictor.Predictor.__call__

    def stop(self, picture, labels=None):  # type: ignore[no-untyped-def]
        if made:
            raise KeyboardInterrupt
        made.append(1)
        return original(self, picture, labels)

    with monkeypatch.context() as patch:
        patch.setattr(predictor.Predictor, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            main(["deeplab.safetensors", "photos", "--out", "out"])
    assert [p.name for p in (place / "out/masks").iterdir()] == ["a.png"]
    stamp = (place / "out/masks/a.png").stat().st_mtime_ns
    main(["deeplab.safetensors", "photos", "--out", "out"])
    assert (place / "out/masks/a.png").stat().st_mtime_ns == stamp and (place / "out/predictions.json").exists()


def test_a_changed_picture_or_setting_is_made_anew(place: Path) -> None:
    def mask(name: str = "a") -> bytes:
        return (place / f"out/masks/{name}.png").read_bytes()

    def overlaid() -> np.ndarray:
        return np.array(Image.open(place / "out/overlays/a.png"))

    main(["cam.safetensors", "photos", "--out", "out", "--labels", "cat"])
    first, other, drawn = mask(), mask("b"), overlaid()
    (place / "photos/a.jpg").write_bytes(encoded(scene(seed=5), "JPEG"))
    main(["cam.safetensors", "photos", "--out", "out", "--labels", "cat"])
    assert mask() != first and mask("b") == other and not np.array_equal(overlaid(), drawn)
    main(["cam.safetensors", "photos", "--out", "out", "--labels", "dog"])
    assert 2 in np.array(Image.open(io.BytesIO(mask("b"))))


def test_json_is_one_line_per_picture(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["cam.safetensors", "photos/a.jpg", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["mask"] for row in rows] == ["predictions/masks/a.png"]


def test_masks_of_somebody_else_are_not_written_over(place: Path) -> None:
    (place / "out/masks").mkdir(parents=True)
    (place / "out/masks/b.png").write_bytes(encoded(np.zeros((30, 90), np.uint8)))
    with pytest.raises(InputError, match="b.png: was not made by this command"):
        main(["cam.safetensors", "photos", "--out", "out"])
    assert not (place / "out/masks/a.png").exists()


def test_a_file_counts_once_and_two_of_one_name_are_refused(place: Path) -> None:
    main(["cam.safetensors", "photos/a.jpg", "photos", "--out", "out", "--labels", ""])
    assert len(json.loads((place / "out/predictions.json").read_text())["pictures"]) == 2
    (place / "a.png").write_bytes(encoded(scene()))
    with pytest.raises(InputError, match=r"photos/a.jpg and a.png would both become a.png"):
        main(["cam.safetensors", "photos", "a.png", "--out", "out"])


NO_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "photos/x.jpg: no such file or folder; give JPEG or PNG images"),
    "a pipe": (os.mkfifo, "photos/x.jpg is a pipe .FIFO. and no regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "photos/x.jpg is a device and no regular file"),
    "a link to nowhere": (lambda path: path.symlink_to("gone"), "photos/x.jpg is a link to gone, which is not there"),
}


@pytest.mark.parametrize(("make", "message"), NO_IMAGES.values(), ids=list(NO_IMAGES))
def test_what_is_no_image_is_said(place: Path, make: Callable[[Path], object], message: str) -> None:
    make(place / "photos/x.jpg")
    with pytest.raises(InputError, match=message):
        main(["cam.safetensors", "photos/x.jpg"])


def test_a_folder_named_like_an_image_is_said(place: Path) -> None:
    (place / "photos/x.jpg").mkdir()
    with pytest.raises(InputError, match="photos/x.jpg: is a folder named like an image; move it away, or give images"):
        main(["cam.safetensors", "photos"])


def test_images_of_other_formats_are_left_out_and_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert left_out([Path("photos")]) is None
    for name in ("c.webp", "d.HEIC"):
        (place / "photos" / name).write_bytes(b"x")
    main(["cam.safetensors", "photos", "photos/a.jpg", "--labels", "", "--json"])
    said = capsys.readouterr().err
    assert "2 images are neither JPEG nor PNG and left out (such as photos/c.webp); convert them" in said


def test_a_name_with_a_line_break_is_drawn(place: Path) -> None:
    os.rename(place / "photos/a.jpg", place / "photos/a\n\x1bb.jpg")
    main(["cam.safetensors", "photos", "--labels", ""])
    assert (place / "predictions/overview.png").is_file()


def test_labels_alone_lists_the_classes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main([str(place / "cam.safetensors"), "--labels"]) == 0
    classes = capsys.readouterr().out.split()
    with pytest.raises(InputError, match=f"--labels unicorn: is no class of this network; it has {classes[0]}, "):
        main([str(place / "cam.safetensors"), str(place / "photos"), "--labels", "unicorn"])
    with pytest.raises(InputError, match="IMAGE: is missing"):
        main([str(place / "cam.safetensors")])


def test_help_opens_with_an_example_and_imports_no_torch() -> None:
    code = "import sys, cpn.predict as p; print(p.parser().format_help()); assert 'torch' not in sys.modules"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("usage: python -m cpn.predict sweeps/stages/deeplab-KEY/model.safetensors photos/")
