"""The command: one page with every step, for the classes named or those of the classifier."""

from pathlib import Path

import pytest

from cpn.core.errors import InputError
from cpn.core.files import write_bytes, write_json
from cpn.explain import main
from tests.cpn.stages.test_predictor import encoded, save_cam, save_deeplab, scene


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_bytes(tmp_path / "a.png", encoded(scene()))
    save_cam(tmp_path / "run/model.safetensors")
    write_json(tmp_path / "run/result.json", {"curve": {"beta": [0.0, 0.5], "miou": [10.0, 20.0]}})
    return tmp_path


def test_the_page_holds_every_step(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a.png", "--model", "run/model.safetensors", "--labels", "dog,cat"]) == 0
    page, said = (place / "explain.html").read_text(), capsys.readouterr().out
    assert page.count("<h2>") == page.count("data:image/png;base64,") == 7 and "http" not in page
    assert "Class activation maps of dog" in page and "The beta of the run" in page
    assert "<p>Explained for dog, as --labels says, and with a network that was trained on cat, dog" in page
    assert said.startswith("7 steps, explained for dog, with run/model.safetensors\nnext: open file://")


def test_the_classifier_says_the_class_otherwise(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["a.png", "--model", "run/model.safetensors", "--out", "b.html", "--seed", "1"])
    assert (place / "b.html").exists() and "explained for " in capsys.readouterr().out


def test_what_cannot_be_explained_is_said(place: Path) -> None:
    save_deeplab(place / "deeplab.safetensors")
    for options, words in (
        (["a.png", "--model", "deeplab.safetensors"], "is a DeepLab, which has no CAMs"),
        (["a.png", "--model", "run/model.safetensors", "--labels", "horse"], "--labels horse: is no class"),
        (["a.png", "--model", "run/model.safetensors", "--labels", ""], "--labels: names no class; give those"),
        (["a.png", "--model", "run/model.safetensors", "--labels", " , "], "--labels: names no class"),
        (["a.png", "--out", "run"], "--out: run is a folder; give the name of a file"),
        (["a.png", "--out", ""], "--out: . is a folder"),
        (["a.png", "--out", "a.png/b.html"], "--out: a.png cannot be written"),
        (["a.png", "--seed", "-1"], "--seed -1: is below 0"),
        (["b.png"], "b.png: no such file"),
    ):
        with pytest.raises(InputError, match=words):
            main(options)
