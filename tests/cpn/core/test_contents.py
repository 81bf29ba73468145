"""Keys by content: weights files by their bytes, a user's own code by its sources, whatever folder they lie in."""

import os
from pathlib import Path
from typing import Any

import pytest

from cpn.config import Config, key_by_name, run_identity, run_key, with_values
from cpn.core import contents as module
from cpn.core.contents import by_content, contents, is_code, own_modules
from cpn.stages.stage_manifest import stage_keys


def weights(path: Path, data: bytes = b"weights") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def key(**network: Any) -> str:
    return run_key(with_values(Config(), {f"network.{name}": value for name, value in network.items()}, "x"), "f")


def stages(**network: Any) -> dict[str, str]:
    config = with_values(Config(), {f"network.{name}": value for name, value in network.items()}, "x")
    return stage_keys("m", config, "f")


def code(folder: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    """Modules in `folder`, which is on the import path; `a__b` stands for a.b, `a__` for the package a."""
    for name, source in sources.items():
        path = folder / f"{name.replace('__', '/')}{'__init__' if name.endswith('__') else ''}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.syspath_prepend(str(folder))


def test_one_file_under_three_paths_is_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = weights(tmp_path / "a.safetensors")
    second = weights(tmp_path / "deep" / "b.safetensors")
    monkeypatch.chdir(tmp_path)
    assert key(weights=first) == key(weights=second) == key(weights="a.safetensors")
    assert stages(weights=first) == stages(weights=second) == stages(weights="a.safetensors")
    assert key(weights=first) not in (key(), key(weights="scenes"))


def test_another_content_under_the_same_path_is_another_key(tmp_path: Path) -> None:
    path = weights(tmp_path / "a.safetensors")
    before, stages_before = key(weights=path), stages(weights=path)
    weights(Path(path), b"WEIGHTS")
    after, stages_after = key(weights=path), stages(weights=path)
    assert before != after
    changed = [stage for stage in stages_before if stages_before[stage] != stages_after[stage]]
    assert changed == ["affinity", "random_walk", "deeplab"], "cam and crf read the trained network alone"


def test_keys_without_files_and_own_code_are_what_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit: results of earlier versions are found."""
    monkeypatch.chdir(tmp_path)
    weights(tmp_path / "scenes"), weights(tmp_path / "imagenet")  # files of these names are not meant
    for network in ({}, {"weights": "scenes"}, {"weights": "imagenet"}, {"backbone": "resnet50"}):
        config = with_values(Config(), {f"network.{name}": value for name, value in network.items()}, "x")
        assert run_key(config, "f") == key_by_name(config, "f")
        assert stage_keys("m", config, "f") == stage_keys("m", config, "f", known=dict)
    assert key() == "b11a29c7409ca8eb" and key(weights="scenes") == "d047914333a15338"


def test_an_absent_file_stays_named_and_unread(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.safetensors")
    assert by_content({"network.weights": absent}) == {"network.weights": absent}
    assert contents({"network.weights": absent, "network.backbone": "nowhere.at.all:net"}) == {}


def test_irns_weights_are_known_by_content_too(tmp_path: Path) -> None:
    def irn(path: str) -> dict[str, str]:
        values = {"random_walk.kind": "irn", "irn.backbone": "resnet50", "irn.weights": path}
        return stage_keys("m", with_values(Config(), values, "x"), "f")

    one, two = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert irn(one) == irn(two) != irn(weights(tmp_path / "c", b"other"))


def test_a_file_is_read_once_while_it_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def digest(path: Path) -> str:
        read.append(path)
        return "0" * 64

    monkeypatch.setattr(module, "file_digest", digest)
    path = weights(tmp_path / "a", b"read once")
    for _ in range(3):
        contents({"network.weights": path})
    assert read == [Path(path)]
    os.utime(path, ns=(1, 1))
    contents({"network.weights": path})
    assert len(read) == 2


def test_own_code_is_found_with_what_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code(
        tmp_path, monkeypatch,
        kinds__net="import json, torch\nfrom cpn import resnet50\nfrom . import blocks\nfrom parts_of_it import x\n",
        kinds__blocks="def late():\n    import later_on\n",
        kinds__unused="",
        kinds__="",
        parts_of_it="from kinds import net  # a circle\n",
        later_on="x = 1 +  # no Python, which is said by who imports it\n",
    )  # fmt: skip
    found = {found.name: found for found in own_modules("kinds.net:Net")}
    assert set(found) == {"kinds", "kinds.net", "kinds.blocks", "parts_of_it", "later_on"}
    assert {module.root for module in found.values()} == {tmp_path}
    assert own_modules("kinds.nothing:Net") == () == own_modules("resnet50")


def test_an_edited_module_or_import_is_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code(
        tmp_path, monkeypatch, edited_net="from edited_part import width\n", edited_part="width = 8\n", apart="a = 1\n"
    )
    keys = [key(backbone="edited_net:Net")]
    for name, source in (("apart", "a = 22\n"), ("edited_part", "width = 16\n"), ("edited_net", "pass\n")):
        (tmp_path / f"{name}.py").write_text(source)
        keys.append(key(backbone="edited_net:Net"))
    assert keys[0] == keys[1], "nobody imports it"
    assert len(set(keys)) == 3
    assert "network.backbone_code" in run_identity(with_values(Config(), {"network.backbone": "edited_net:Net"}, "x"))


def test_the_same_module_in_another_folder_is_the_same_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    for folder in ("one", "two"):
        with monkeypatch.context() as path:
            code(tmp_path / folder, path, moved_net="class Net: ...\n")
            keys.append(key(backbone="moved_net:Net"))
    assert keys[0] == keys[1]


def test_what_names_code() -> None:
    assert is_code("mine.net:Net") and not any(map(is_code, ("resnet38", None, 3, "s3://bucket/x")))
