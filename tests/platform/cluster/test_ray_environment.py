"""What Ray's processes get: where this code and the user's own lie, and what is sent to a cluster."""

import os
from pathlib import Path
from platform.cluster.ray_environment import CHECKOUT, OURS, runtime_environment, worker_environment
from zipfile import ZipFile

import pytest


def test_workers_find_this_checkout_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    paths = worker_environment()["PYTHONPATH"].split(os.pathsep)
    assert (Path(paths[0]) / "platform" / "sweep.py").is_file()
    assert paths[-1] == "/elsewhere"


def test_a_setting_of_the_user_goes_before_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "9")
    assert worker_environment()["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "9"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own reading of the patterns
def test_shipped_code_is_ours_and_nothing_else(tmp_path: Path) -> None:
    """Packed by Ray itself, which sends nothing at all where a pattern is one of the folder."""
    from ray._private.runtime_env.packaging import create_package

    shipped = runtime_environment({"A": "1", "PYTHONPATH": "/here"}, True)
    assert shipped["env_vars"] == {"A": "1"} and Path(shipped["working_dir"]) == CHECKOUT
    made = tmp_path / "made.zip"
    create_package(shipped["working_dir"], made, include_gitignore=True, excludes=[*shipped["excludes"]])
    with ZipFile(made) as package:
        files = {name for name in package.namelist() if not name.endswith("/")}
    wanted = {str(p.relative_to(CHECKOUT)) for name in OURS for p in (CHECKOUT / name).rglob("*") if p.is_file()}
    assert files == {name for name in wanted if "__pycache__" not in name}
    assert {"cpn/run.py", "platform/cluster/worker.py", "platform/__init__.py"} < files
    assert runtime_environment({"PYTHONPATH": "/here"}, False) == {"env_vars": {"PYTHONPATH": "/here"}}
