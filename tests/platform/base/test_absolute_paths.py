"""Paths are made absolute once, where the command is typed; names and URLs are left alone."""

from pathlib import Path
from platform.base.absolute_paths import absolute, absolute_base
from platform.base.paths import storage
from platform.config.spec import apply_sets, load_spec

import pytest

from cpn.core.errors import InputError

SPEC = """
name: s
base: {preset: official, data: {root: voc}, network: {weights: w.safetensors}}
search: {network.weights: {choice: [w.safetensors, ~/other.safetensors, scenes]}}
budget: {trials: 3}
"""
TABLE = """
name: t
base: {preset: official}
table:
  title: weights
  rows: {a: {values: {network: {weights: w.safetensors}}}, b: {values: {network: {weights: imagenet}}}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_values_that_are_paths(here: Path) -> None:
    assert absolute("network.weights", "w") == f"{here}/w"
    assert absolute("irn.weights", "~/w") == "/home/me/w"
    assert absolute("data.root", "scenes") == f"{here}/scenes", "a folder may be called so"
    for name, value in (("network.weights", "scenes"), ("network.weights", "imagenet"), ("network.weights", None),
                        ("data.root", "s3://b/voc"), ("data.root", None), ("network.backbone", "mine:net"),
                        ("data.train", "train")):  # fmt: skip
        assert absolute(name, value) == value


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(InputError, match=r"network\.weights: ~nobody-of-that-name/w: there is no such home folder"):
        absolute("network.weights", "~nobody-of-that-name/w")
    with pytest.raises(InputError, match=r"resources\.storage: ~nobody-of-that-name: "):
        storage("~nobody-of-that-name")


def test_nothing_is_added_to_what_was_not_given() -> None:
    assert absolute_base({"network": {"pcm": False}, "preset": "scenes"}) == {
        "network": {"pcm": False},
        "preset": "scenes",
    }


def test_a_specification_wherever_its_file_lies(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("elsewhere") / "s.yaml"
    path.write_text(SPEC)
    spec = load_spec(path, ["data.root=~/voc"])
    assert (spec.base_config.data.root, spec.base_config.network.weights) == ("/home/me/voc", f"{here}/w.safetensors")
    choice = spec.model_dump(by_alias=True)["search"]["network.weights"]["choice"]
    assert choice == [f"{here}/w.safetensors", "/home/me/other.safetensors", "scenes"]
    path.write_text(TABLE)
    table = load_spec(path).table
    assert table is not None
    assert [row.values["network"]["weights"] for row in table.rows.values()] == [f"{here}/w.safetensors", "imagenet"]


def test_a_single_run(here: Path) -> None:
    base = apply_sets({"data": {"root": "voc"}}, ["network.weights=~/w"], "x")
    assert base == {"data": {"root": f"{here}/voc"}, "network": {"weights": "/home/me/w"}}


def test_storage(here: Path) -> None:
    assert storage("~/sweeps").root == Path("/home/me/sweeps") and storage("sweeps").root == here / "sweeps"
