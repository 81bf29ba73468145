import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cpn.config import Config, config_from
from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.data.map_files import present_classes
from cpn.data.voc import Pack
from cpn.models.checkpoint import save_model
from cpn.models.network import build_network
from cpn.propagation.crf import dense_crf, with_background
from cpn.propagation.walk_rule import alpha_of
from cpn.run import load_run, score
from cpn.score import PUBLISHED, PUBLISHED_SPLIT, TABLE1, main, parser
from cpn.scoring.cam import multi_scale_maps
from cpn.scoring.metrics import BETAS, best_beta, hard_counts, miou
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

BASE: dict[str, Any] = {
    "network": {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8},
    "cam": {"scales": [1.0, 0.5], "map": "refined"},
}
PLAIN = {"network": BASE["network"] | {"pcm": False, "prcm": False}, "cam": {"map": "plain", "scales": [1.0]}}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("score") / "scenes"
    write_scenes(root, ScenesConfig(train=5, val=2, size=32))
    prepare(root, ["train"])
    lists = root / "ImageSets" / "Segmentation"
    names = (lists / "train.txt").read_text().split()
    (lists / "one.txt").write_text(names[0] + "\n")
    (root / "SegmentationClass" / f"{(lists / 'val.txt').read_text().split()[0]}.png").unlink()
    return prepare(root, ["train", "one", "val"], scored=["train"])


def checkpoint(path: Path, values: dict[str, Any], classes: tuple[str, ...]) -> tuple[Path, Config]:
    """An untrained network as a run would keep it."""
    config = config_from(values, "test")
    torch.manual_seed(1)
    network = build_network(config.network, len(classes) + 1)
    save_model(path, network, {"kind": "cam", "config": config.model_dump(mode="json"), "classes": classes})
    return path, config


@pytest.fixture(scope="module")
def model(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model") / "model.safetensors", BASE, pack.classes)[0]


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_has_one_line_per_row_and_nothing_else(
    model: Path, pack: Pack, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model), "--root", pack.root, "--json"]) == 0
    printed = capsys.readouterr()
    rows = rows_of(printed.out)
    assert [row["scale"] for row in rows] == ["1", "0.5", "all"]  # the checkpoint's own scales
    assert "scoring 5 of 5" in printed.err and "next: " in printed.err
    network, config, _ = load_run(model)
    beta, best = best_beta(score(network, pack.split("train"), config.cam, 7))
    assert (rows[2]["beta"], rows[2]["t"], rows[2]["miou"]) == (beta, beta / 2, pytest.approx(100 * best))
    assert all(row["list"] == "train" and row["images"] == 5 and row["map"] == "refined" for row in rows)
    assert all("iou" not in row and row["published"] is False for row in rows)


def test_the_tables(model: Path, pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(model), "--root", pack.root, "--list", "one", "--scales", "0.5", "1", "1.5"]
    assert main([*arguments, "--map", "plain", "--set", "cam.flip=false", "--per-class"]) == 0
    text = capsys.readouterr().out
    assert "pseudo labels from the plain map, not mirrored: one, 1 images, %" in text
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert [line[0] for line in lines] == ["0.5", "1", "1.5", "all", "background", *pack.classes]
    assert main([*arguments, "--map", "plain", "--set", "cam.flip=false", "--per-class", "--json"]) == 0
    rows = rows_of(capsys.readouterr().out)
    for row, line in zip(rows, lines, strict=False):
        numbers = [row["miou"], row["miou_released_grid"], row["iou_background"], row["iou_foreground"]]
        assert [line[1], line[3], line[5], line[6]] == [f"{number:.2f}" for number in numbers]
        assert line[2] == f"{row['beta']:.2f} / {row['t']:.2f}"
        assert line[4] == f"{row['beta_released_grid']:.2f} / {row['t_released_grid']:.2f}"
    assert lines[5][1:] == [f"{row['iou'][pack.classes[0]]:.1f}" for row in rows]
    assert "57.43" not in text and "published" not in text


def test_published_numbers_are_marked(model: Path, pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(model), "--root", pack.root, "--list", "one", "--paper"]
    assert main(arguments) == 0
    own, published = capsys.readouterr().out.split("published, not measured here")
    assert "57.43" in published and "57.43" not in own
    assert main([*arguments, "--json"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert [row["published"] for row in rows] == [False] * 3 + [True] * 20
    assert {row["list"] for row in rows if row["published"]} == {"VOC 2012 train"}


def test_the_published_tables_agree() -> None:
    for system, (background, foreground) in PUBLISHED_SPLIT.items():
        alone = PUBLISHED[system][TABLE1.index("all")]
        assert (background + 20 * foreground) / 21 == pytest.approx(alone, abs=0.02)


def test_the_folder_is_whole_and_a_second_call_scores_nothing(
    model: Path, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "score"
    arguments = [str(model), "--root", pack.root, "--json", "--per-class", "--out", str(folder)]
    main(arguments)
    first = rows_of(capsys.readouterr().out)
    kept = json.loads((folder / "score.json").read_text())
    assert [row["miou"] for row in kept["rows"]] == [row["miou"] for row in first]
    assert kept["scales"] == [1.0, 0.5] and kept["curve"]["beta"] == list(BETAS)
    assert max(kept["curve"]["miou"]["all"]) == pytest.approx(first[2]["miou"])
    with np.load(folder / "counts.npz", allow_pickle=False) as file:
        assert file["rows"].tolist() == ["1", "0.5", "all"] and file["counts"].shape == (3, len(BETAS), 3, 7)
        assert 100 * best_beta(file["counts"][2])[1] == pytest.approx(first[2]["miou"])
    with Image.open(folder / "curves.png") as picture:
        assert picture.width > 900
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {"settings.json", "score.json", "counts.npz", "curves.png", "parts/000000.npz"}

    def refuse(*_: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr("cpn.scoring.scale_scores.counts_by_scale", refuse)
    main(arguments)
    assert rows_of(capsys.readouterr().out) == first
    with pytest.raises(InputError, match="holds a score with another map"):
        main([*arguments, "--map", "plain"])


def test_aligned_sizes_are_a_score_of_their_own(
    model: Path, pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(model), "--root", pack.root, "--list", "one", "--scales", "1", "--json"]
    main([*arguments, "--out", str(tmp_path / "score")])
    plain = rows_of(capsys.readouterr().out)
    assert "sizes" not in json.loads((tmp_path / "score" / "settings.json").read_text()), "begun before, goes on"
    aligned = [*arguments, "--set", "cam.sizes=aligned"]
    main(aligned)
    rows = rows_of(capsys.readouterr().out)
    assert rows[0]["sizes"] == "aligned" and rows[0]["miou"] != plain[0]["miou"]
    with pytest.raises(InputError, match="holds a score with another sizes"):
        main([*aligned, "--out", str(tmp_path / "score")])


def test_the_next_command_scores_then_names_a_sweep(
    model: Path, pack: Pack, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["--set", "cam.map=refined", "--set", "cam.flip=false"]
    main([str(model), "--root", pack.root, "--list", "one", "--scales", "1", *sets])
    words = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("next: "))
    assert words[:3] == ["python", "-m", "cpn.score"] and words[-2:] == ["--map", "plain"]
    assert main(words[3:]) == 0
    printed = capsys.readouterr().out
    assert "plain map, not mirrored: one" in printed
    assert f"next: python -m platform.sweep search_spaces/patch.yaml --set data.root={pack.root}" in printed


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--list", "test"], "list test is not packed"),
        (["--list", "val"], "has no mask, but list 'val' is scored; name a list with masks in --list"),
        (["--scales", "1", "0"], "--scales: cam.scales.1: Input should be greater than 0"),
        (["--scales", "1", "1"], "--scales: cam: scales names 1 twice"),
        (["--scales", "nan"], "--scales: cam.scales.0"),
        (["--set", "cam.flip"], "--set cam.flip: give NAME=VALUE"),
        (["--set", "cam.flips=true"], "--set cam.flips: has no effect on a score; did you mean 'cam.flip'?"),
        (["--set", "cam.beta=0.5"], "--set cam.beta: has no effect on a score"),
        (["--set", "cam.map=both"], "--set: cam.map: Input should be 'refined' or 'plain', given 'both'"),
        (["--root", "/nowhere"], "--root: /nowhere is no folder"),
    ],
)
def test_wrong_input_is_one_line_before_anything_is_scored(
    model: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch, more: list[str], words: str
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("scored")

    monkeypatch.setattr("cpn.scoring.scale_scores.score_list", refuse)
    with pytest.raises(InputError) as refused:
        main([str(model), "--root", pack.root, *more])
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_another_checkpoint_or_data_set_is_refused(pack: Pack, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    other, _ = checkpoint(tmp_path / "other.safetensors", BASE, (*pack.classes[:-1], "zebra"))
    fewer, _ = checkpoint(tmp_path / "fewer.safetensors", BASE, pack.classes[:-1])
    plain, _ = checkpoint(tmp_path / "plain.safetensors", PLAIN, pack.classes)
    save_model(tmp_path / "deeplab.safetensors", torch.nn.Linear(1, 1), {"kind": "deeplab"})
    last = pack.classes[-1]
    for arguments, words in (
        ([other, "--root", pack.root], f"its class 6 is zebra, in the data set {pack.root} it is {last}"),
        ([fewer, "--root", pack.root], f"its class 6 is missing, in the data set {pack.root} it is {last}"),
        ([plain, "--root", pack.root, "--map", "refined"], "has neither PCM nor PRCM, so nothing is refined"),
        ([plain, "--root", str(tmp_path / "raw")], "is not prepared: run python -m cpn.prepare"),
        ([tmp_path / "deeplab.safetensors", "--root", pack.root], "of kind 'deeplab', not of a CAM network"),
        ([tmp_path / "none.safetensors", "--root", pack.root], "none.safetensors: no such file; give the model"),
    ):
        with pytest.raises(InputError) as refused:
            main([str(word) for word in arguments])
        assert words in str(refused.value) and "\n" not in str(refused.value)


def test_help_needs_no_torch() -> None:
    code = "import sys, cpn.score; cpn.score.parser(); print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"
    assert parser().format_help().startswith("usage: python -m cpn.score model.safetensors --root /data/VOC2012")


def test_crf_adds_a_row_at_the_best_beta_of_all_scales(
    model: Path, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "score"
    arguments = [str(model), "--root", pack.root, "--json", "--out", str(folder)]
    main(arguments)
    plain = rows_of(capsys.readouterr().out)
    main([*arguments, "--crf"])
    rows = rows_of(capsys.readouterr().out)
    assert rows[:3] == plain, "the counts of the first call are taken over"
    row = rows[3]
    assert (row["scale"], row["beta"]) == ("all, CRF", plain[2]["beta"]) and "beta_released_grid" not in row
    assert row["alpha"] == pytest.approx(alpha_of(row["beta"]))
    network, config, _ = load_run(model)
    split, counts = pack.split("train"), np.zeros((3, 7), np.int64)
    for index in range(len(split)):
        present = present_classes(split.labels[index])
        maps = multi_scale_maps(network, split.image(index), present, config.cam)
        scores = dense_crf(split.image(index), with_background(maps, row["alpha"]), config.crf)
        counts += hard_counts(np.array([0, *present])[scores.argmax(0)], split.mask(index), 7)  # type: ignore[arg-type]
    assert row["miou"] == pytest.approx(100 * float(miou(counts)))

    def refuse(*_: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr("cpn.stages.crf_score.crf_scores", refuse)
    main([*arguments, "--crf"])
    assert rows_of(capsys.readouterr().out) == rows
    main([*arguments[:3], "--list", "train", "--out", str(folder), "--crf"])
    said = capsys.readouterr().out
    assert "all, CRF" in said and "CRF: mean field" in said and said.splitlines()[-1].endswith("--crf --map plain")
