"""The command `report`: what it prints, where it writes, and what it says before the end of a sweep."""

import errno
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from platform.base.paths import Storage
from platform.report import main
from platform.tracking.client import connect
from typing import Any

import numpy as np
import pytest

from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.core.files import read_json, write_json
from cpn.data.voc import encode_mask
from cpn.judge import main as judge
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from tests.platform.made_sweep import make_sweep
from tests.platform.reports.html.test_page import Page


def test_so_far(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_sweep(tmp_path, "early", 2, ended=False)
    assert main(["early", "--storage", str(store.root)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "so far: stopped, 2 trials have ended and there is no verdict yet" in said
    assert said[-1] == f"next: open {store.sweep('early').report.as_uri()} in a browser"
    words = Page(store.sweep("early").report.read_text()).words
    assert "no verdict yet" in words and "Best on the select images:" in words and "Winner:" not in words
    assert "importances from 8 complete trials on, contours from 15 complete trials on; there are 2." in words


def test_where_it_goes_and_json(made: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["made", "--storage", str(made.root), "--out", str(tmp_path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [Path(file).name for file in found["files"]] == ["report.html", "leaderboard.md", "leaderboard.tex"]
    assert all(Path(file).is_file() and Path(file).parent == tmp_path for file in found["files"])
    assert not made.sweep("made").report.exists()


@pytest.mark.parametrize(
    ("words", "place"), [("made", "sweeps/made"), ("made --out o", "o"), ("--paper", "."), ("--paper --out o", "o")]
)
def test_a_place_that_cannot_be_written_is_one_line(
    words: str, place: str, made: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dir: Path) -> None:  # noqa: A002
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.chdir(made.root.parent)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"cannot be written \(Read-only file system\); choose another folder") as said:
        main(words.split())
    assert str(said.value).startswith("--out: ") and f"{place} cannot" in str(said.value)
    assert not made.sweep("made").report.exists()


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_judgement(tmp_path_factory.mktemp("judged"))


def make_judgement(place: Path) -> Path:
    """What `cpn.judge --out` writes of score maps against labels."""
    rng = np.random.default_rng(0)
    write_scenes(place / "scenes", ScenesConfig(train=6, val=2, size=32))
    pack = prepare(place / "scenes", ["train"])
    for folder in ("maps", "<labels>"):
        (place / folder).mkdir()
    for name in pack.split("train").ids:
        maps = rng.random((2, 32, 32)).astype(np.float32)
        np.savez(place / "maps" / f"{name}.npz", classes=np.array([1, 5]), maps=maps)
        mask = rng.integers(7, size=(32, 32)).astype(np.uint8)
        (place / "<labels>" / f"{name}.png").write_bytes(encode_mask(mask))
    judge([str(place / "maps"), "--root", pack.root, "--against", str(place / "<labels>"), "--out", str(place / "out")])
    return place / "out"


def test_a_judgement_is_one_page(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--judged", str(judged)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"next: open {(judged / 'report.html').resolve().as_uri()} in a browser"
    scores, page = read_json(judged / "judge.json"), Page((judged / "report.html").read_text())
    row = scores["sets"][0]
    low, high = row["difference_interval"]
    for words in (f"{row['miou']:.2f}", f"{row['difference']:+.2f}", f"{low:+.2f} to {high:+.2f}", "<labels>",
                  "robin", "3 or more in the image", "small: 0 to 5 % of the image", "hold-out",
                  f"wrong class {scores['errors']['wrong_class']:.2f} %"):  # fmt: skip
        assert words in page.words
    pictures = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 2 and all(source.startswith("data:image/png;base64,") for source in pictures)


def test_a_judgement_becomes_a_run(
    judged: Path, tmp_path: Path, new_store: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    uri = new_store("store")
    arguments = ["--judged", str(judged), "--uri", uri, "--out", str(tmp_path / "page"), "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["page"] == str(tmp_path / "page" / "report.html") and found["again"] is False
    client = connect(uri)
    files = {file.path for file in client.list_artifacts(found["run"])}
    assert files == {"judge.json", "panel.png", "curve.png", "report.html"}
    assert client.get_run(found["run"]).data.metrics["all/miou"] == read_json(judged / "judge.json")["sets"][0]["miou"]
    assert (tmp_path / "store").is_dir() and not Path("mlflow-files").exists()
    main(arguments)
    assert json.loads(capsys.readouterr().out) == {**found, "again": True}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--judged", "none"], "--judged none: holds no judge.json; python -m cpn.judge FOLDER --root DATA --out none"),
        (["--judged", "none", "--paper"], "one of them alone"),
        (["quickstart", "--uri", "sqlite:///x.db"], "a sweep is in MLflow already"),
        (["--judged", "none", "--uri", "ftp://x"], "--uri: ftp://x is no store"),
        (["--judged", "none", "--uri", "http://127.0.0.1:9"], "--uri: http://127.0.0.1:9 does not answer"),
    ],
)
def test_what_is_refused_of_a_judgement(arguments: list[str], words: str) -> None:
    with pytest.raises(InputError) as refused:
        main(arguments)
    assert words in str(refused.value)


def test_another_file_by_the_name_is_no_judgement(tmp_path: Path) -> None:
    contents: list[Any] = [{"folder": "x"}, ["a"], {"folder": "x", "list": "train", "kind": 3, "sets": 3}]
    for content in contents:
        write_json(tmp_path / "judge.json", content)
        with pytest.raises(InputError, match="is no judgement"):
            main(["--judged", str(tmp_path)])
    (tmp_path / "judge.json").write_text("{")
    with pytest.raises(InputError, match="write it again with python -m cpn.judge --out"):
        main(["--judged", str(tmp_path)])
