"""A user's own backbone and weights on every machine: found, imported, shipped, and the same as in the driver."""

from pathlib import Path
from platform.cluster.ray_environment import OURS, runtime_environment, worker_environment
from platform.config.own_code import check_contents, check_named, import_folders, lay_out, named_contents, own_backbones
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from typing import Any

import pytest

from cpn.config import config_from
from cpn.core.errors import InputError


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path with a package and a module that it imports, and a weights file."""
    (tmp_path / "shipped_pkg").mkdir()
    (tmp_path / "shipped_pkg" / "net.py").write_text("from shipped_parts import x\n")
    (tmp_path / "shipped_pkg" / "__init__.py").touch()
    (tmp_path / "shipped_parts.py").write_text("x = 1\n")
    (tmp_path / "w.safetensors").write_bytes(b"w")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAME = "shipped_pkg.net:Net"


def spec(folder: Path, **search: Any) -> SweepSpec:
    path = folder / "s.yaml"
    network = {"backbone": NAME, "weights": "w.safetensors"}
    text = {"name": "s", "base": {"preset": "official", "network": network}, "search": search, "budget": {"trials": 2}}
    path.write_text(str(text))  # JSON is YAML
    return load_spec(path)


def test_where_workers_find_it(mine: Path) -> None:
    assert own_backbones(spec(mine)) == [NAME] and import_folders([NAME]) == [str(mine)]
    paths = worker_environment(import_folders([NAME]))["PYTHONPATH"].split(":")
    assert str(mine) in paths and (Path(paths[0]) / "platform" / "sweep.py").is_file()
    assert import_folders(["cpn.models.resnet50:ResNet50"])[:1] != [str(mine)] and import_folders([]) == []


def test_what_a_search_or_a_table_may_ask_for_is_named_too(mine: Path) -> None:
    (mine / "v.safetensors").write_bytes(b"v")
    found = named_contents(spec(mine, **{"network.weights": {"choice": ["w.safetensors", "v.safetensors", "scenes"]}}))
    assert set(found) == {NAME, str(mine / "w.safetensors"), str(mine / "v.safetensors")}
    assert len(set(found.values())) == 3
    check_named(spec(mine))
    with pytest.raises(InputError, match=r"/s\.yaml: search\.network\.weights: .*none\.safetensors: no such"):
        check_named(spec(mine, **{"network.weights": {"choice": ["w.safetensors", "none.safetensors"]}}))
    with pytest.raises(InputError, match=r"/s\.yaml: search\.network\.backbone: 'no\.such:net' cannot be imported"):
        check_named(spec(mine, **{"network.backbone": {"choice": [NAME, "no.such:net"]}}))


def test_no_weights_are_a_choice_too(mine: Path) -> None:
    spec(mine, **{"network.weights": {"choice": ["w.safetensors", "scenes"]}})
    found = load_spec(mine / "s.yaml", ["search.network.weights.choice=[null, w.safetensors, scenes]"])
    check_named(found)
    assert set(named_contents(found)) == {NAME, str(mine / "w.safetensors")}


def test_shipped_code_is_ours_and_the_users(mine: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("shipped")
    made = runtime_environment({"A": "1", "PYTHONPATH": "/here"}, True, [NAME], folder)
    assert made == {"env_vars": {"A": "1"}, "working_dir": str(folder)}
    assert {path.name for path in folder.iterdir()} == {*OURS, "shipped_pkg", "shipped_parts.py"}
    assert (folder / "shipped_pkg" / "__init__.py").is_file() and (folder / "cpn" / "run.py").is_file()
    lay_out([NAME], folder)  # twice the same


def test_a_worker_with_another_file_or_module_does_not_train(mine: Path) -> None:
    network = {"backbone": NAME, "weights": str(mine / "w.safetensors")}
    config, known = config_from({"network": network}, "x"), named_contents(spec(mine))
    check_contents(config, known)
    (mine / "shipped_parts.py").write_text("x = 22\n")
    with pytest.raises(InputError, match=r"network\.backbone: shipped_pkg.* is another one .* --set name=NEW") as said:
        check_contents(config, known)
    assert "\n" not in str(said.value)
    (mine / "shipped_parts.py").write_text("x = 1\n")
    (mine / "w.safetensors").unlink()
    with pytest.raises(InputError, match=r"network\.weights: .* is not on this machine"):
        check_contents(config, known)
