"""The command `python -m cpn.judge`: tables, one line of JSON, files, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cpn.config.data import ScenesConfig
from cpn.core.checked import whole_png
from cpn.core.errors import InputError, run_command
from cpn.core.files import read_json
from cpn.data.voc import Pack, encode_mask
from cpn.judge import main, parser
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("judge") / "scenes"
    write_scenes(root, ScenesConfig(train=9, val=2, size=32))
    for path in (root / "SegmentationClass").iterdir():
        if path.stem in (root / "ImageSets" / "Segmentation" / "val.txt").read_text().split():
            path.unlink()
    return prepare(root, ["train", "val"], scored=["train"])


@pytest.fixture(scope="module")
def maps(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("maps"), np.random.default_rng(0)
    for name in pack.split("train").ids:
        np.savez(folder / f"{name}.npz", classes=np.array([1, 2, 5]), maps=rng.random((3, 32, 32)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def labels(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    for name in pack.split("train").ids:
        (folder / f"{name}.png").write_bytes(encode_mask(rng.integers(7, size=(32, 32)).astype(np.uint8)))
    return folder


def test_json_is_one_line_and_nothing_else(maps: Path, pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(maps), "--root", pack.root, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1 and "scoring masks 9 of 9" in printed.err
    found = json.loads(printed.out)
    assert (found["kind"], found["list"], found["images"], found["data"]) == (
        "score maps",
        "train",
        9,
        pack.fingerprint,
    )
    assert list(found["classes"]) == ["background", *pack.classes] and len(found["curve"]["all"]) == 61


def test_the_tables_say_what_the_json_says(
    maps: Path, labels: Path, pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = [str(maps), "--root", pack.root, "--against", str(labels), "--out", str(out)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    found = read_json(out / "judge.json", sealed=True)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    for row, said in zip(found["sets"], rows, strict=False):
        low, high = row["interval"]
        assert said[:4] == [row["set"], str(row["images"]), f"{row['beta']:.2f} / {row['t']:.2f}",
                            f"{row['miou']:.2f} [{low:.2f}, {high:.2f}]"]  # fmt: skip
        low, high = row["difference_interval"]
        assert said[4:6] == [f"{row['other']:.2f}", f"{row['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"]
    kinds = [row[0] for row in rows]
    assert f"{maps}: score maps, against {labels}: labels; train, 9 images" in text
    assert kinds[2:] == ["background", *pack.classes, *kinds[-6:]] and kinds[-6].startswith("small: 0 to 5 %")
    assert f"background called object {found['errors']['false_positive']:.2f}" in text
    assert f"of the truth {found['boundary']['near']:.1f} % of the pixels are wrong" in text
    assert f"wrote {out}/judge.json, panel.png and curve.png" in text
    assert sorted(path.name for path in out.iterdir()) == ["curve.png", "judge.json", "panel.png"]
    assert whole_png(out / "curve.png")
    with Image.open(out / "panel.png") as picture:
        assert picture.width == 1080


def test_labels_have_no_curve(labels: Path, pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(labels), "--root", pack.root, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert ": labels; train, 9 images" in text and "threshold" not in text
    assert not (tmp_path / "out" / "curve.png").exists() and "curve" not in read_json(tmp_path / "out" / "judge.json")


def test_the_crf_has_rows_of_its_own(maps: Path, labels: Path, pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(maps), "--root", pack.root, "--against", str(labels), "--crf"]) == 0
    text = capsys.readouterr().out
    rows = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    assert rows[:4] == ["all", "hold-out", "all, CRF", "hold-out, CRF"]
    assert max(len(line) for line in text.splitlines() if line.startswith("│")) <= 100, "the width of a terminal"
    assert "CRF: mean field" in text


def test_halved_is_asked_about_and_taken(
    maps: Path, pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in maps.iterdir():
        with np.load(path, allow_pickle=False) as file:
            np.savez(tmp_path / path.name, classes=file["classes"], maps=file["maps"] / 2)
    arguments = [str(tmp_path), "--root", pack.root]
    main(arguments)
    assert "give --halved folder" in capsys.readouterr().out
    main([*arguments, "--halved", "folder", "--against", str(maps)])
    text = capsys.readouterr().out
    assert "+0.00 [+0.00, +0.00]" in text and "give --halved" not in text


def test_undecided_pixels_are_background_where_it_is_said(
    labels: Path, pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As IRN's own evaluation takes them; the numbers are those of the labels with 0 in their place."""
    for folder in ("undecided", "zero"):
        (tmp_path / folder).mkdir()
    for path in labels.iterdir():
        with Image.open(path) as picture:
            label = np.array(picture)
        (tmp_path / "undecided" / path.name).write_bytes(encode_mask(np.where(label == 6, 255, label).astype(np.uint8)))
        (tmp_path / "zero" / path.name).write_bytes(encode_mask(np.where(label == 6, 0, label).astype(np.uint8)))
    root = ["--root", pack.root, "--json"]
    with pytest.raises(InputError, match=r"255 \(undecided\).*; --undecided background takes .* or write"):
        main([str(tmp_path / "undecided"), *root])
    main([str(tmp_path / "undecided"), *root, "--undecided", "background"])
    found = json.loads(capsys.readouterr().out)
    main([str(tmp_path / "zero"), *root])
    expected = json.loads(capsys.readouterr().out)
    assert found.pop("undecided") == "background" and "undecided" not in expected
    assert {**found, "folder": None} == {**expected, "folder": None}
    main([str(tmp_path / "undecided"), *root[:2], "--undecided", "background"])
    assert "labels, undecided pixels as background; train, 9 images" in capsys.readouterr().out


REFUSED: dict[str, tuple[Callable[[Path, Path, str], list[str]], str]] = {
    "no folder": (lambda maps, labels, root: ["none", "--root", root], "none: is no folder"),
    "no data": (lambda maps, labels, root: [str(maps), "--root", "nowhere"], "--root: nowhere is no folder: give"),
    "no such list": (
        lambda maps, labels, root: [str(maps), "--root", root, "--list", "test"],
        "list test is not packed",
    ),
    "no masks": (lambda maps, labels, root: [str(maps), "--root", root, "--list", "val"], "--list val: has no masks"),
    "labels are not halved": (
        lambda maps, labels, root: [str(labels), "--root", root, "--halved", "folder"],
        "--halved folder: there are no score maps",
    ),
    "nothing to halve": (
        lambda maps, labels, root: [str(maps), "--root", root, "--halved", "against"],
        "--halved against: there are no score maps",
    ),
    "a CRF of labels": (
        lambda maps, labels, root: [str(labels), "--root", root, "--crf"],
        "holds labels, and the CRF runs on score maps; leave it out",
    ),
    "nothing is undecided": (
        lambda maps, labels, root: [str(maps), "--root", root, "--undecided", "background"],
        "--undecided background: there are no labels with undecided pixels; leave it out",
    ),
    "out among the maps": (
        lambda maps, labels, root: [str(labels), "--root", root, "--against", str(maps), "--out", str(maps)],
        "holds the files that are judged; give a folder of its own",
    ),
    "the other is missing": (
        lambda maps, labels, root: [str(maps), "--root", root, "--against", "none"],
        "none: is no folder",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, maps: Path, labels: Path, pack: Pack) -> None:
    arguments, words = REFUSED[name]
    with pytest.raises(InputError) as caught:
        main(arguments(maps, labels, pack.root))
    assert words in str(caught.value)


def test_a_pickle_ends_the_program_with_code_2_and_one_line(
    pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in pack.split("train").ids:
        np.save(tmp_path / f"{name}.npy", {0: np.zeros((32, 32))}, allow_pickle=True)
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: main([str(tmp_path), "--root", pack.root]))
    printed = capsys.readouterr()
    assert ended.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith("error: ") and "import glob, numpy as np; save = " in printed.err


def test_help_loads_nothing_large() -> None:
    code = "import sys, cpn.judge; cpn.judge.parser(); print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False"]
    assert parser().format_help().startswith("usage: python -m cpn.judge FOLDER --root /data/VOC2012")
