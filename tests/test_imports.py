"""Who may import whom, read from every file of `cpn/` and `platform/` without running it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.package_graph import CHECKOUT, COMMANDS, LEVELS, imported, imported_files, module_files, package_of

FILES = module_files()

ONLY_IN = {
    "optuna": {"platform/search", "platform/reports/importances.py"},
    "plotly": {"platform/reports/html/figures.py"},
    "jinja2": {"platform/reports/html/page.py", "platform/reports/html/paper_report.py"},
    "pandas": {
        "platform/reports/appendix.py",
        "platform/tracking/in_mlflow",
    },
    "fcntl": {"platform/base/claims.py"},
    "shtab": {"platform/completion.py"},
    "ray": {"platform/cluster", "platform/run", "platform/sweeps/table_readings.py"},
    "ray.tune": {"platform/cluster/ray_driver.py", "platform/cluster/tune_searcher.py"},
    "ray.train": {"platform/cluster/worker.py", "platform/cluster/trial_trainer.py"},
    # The second folder holds files that MLflow loads in processes of its own; nothing of ours imports them.
    "mlflow": {"platform/tracking/client.py", "platform/tracking/in_mlflow"},
    "yaml": {"platform/base/yaml_files.py"},
    "pydensecrf": {"cpn/propagation/crf.py"},
    "cv2": {"cpn/core/opencv.py"},
    "timm": {"cpn/models/timm_backbone.py"},
    "requests": {"cpn/sources/fetch.py"},
    "urllib3": {"cpn/sources/fetch.py"},
}
"""Package -> the only files, or folders, that may import it; the longest name that fits decides."""

NOT_IN_CPN = {"platform", "ray", "mlflow", "optuna", "yaml"}
"""`cpn` runs alone, from a plain script."""

NOWHERE = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
"""Nothing that is read back may run code."""

LARGE = ("torch", "cv2", "scipy", "pydensecrf", "ray", "mlflow", "optuna")
WITHOUT = {"cpn.core": LARGE, "cpn.config": (*LARGE, "pyarrow")}
"""Packages, and what importing them does not load."""

MOST_FILES = 16


def absolute(source: str) -> set[str]:
    """The modules that `source` names in full."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def within(name: str, package: str) -> bool:
    """Whether `name` is `package` or lies in it."""
    return name == package or name.startswith(package + ".")


def rule_of(name: str) -> str | None:
    """The entry of ONLY_IN that decides about an imported name; None where there is none."""
    return max((package for package in ONLY_IN if within(name, package)), key=len, default=None)


def lies_in(file: Path, places: set[str]) -> bool:
    """Whether a file is one of the places, or lies in one."""
    return any(file.as_posix() == place or file.as_posix().startswith(place + "/") for place in places)


def complaints(source: str, file: Path) -> list[str]:
    """What `file`, relative to the checkout, imports against the rules."""
    names = imported(source, file)
    place = file.as_posix()
    forbidden = NOWHERE | NOT_IN_CPN if file.parts[0] == "cpn" else NOWHERE
    found = [f"{place} imports {name}" for name in names for package in forbidden if within(name, package)]
    for name in names:
        rule = rule_of(name)
        if rule is not None and not lies_in(file, ONLY_IN[rule]):
            found.append(f"{place} imports {name}")
    if file.parts[0] == "platform":
        found += [f"{place} imports {name} absolutely" for name in absolute(source) if within(name, "platform")]
    here = package_of(file)
    for target in imported_files(source, file):
        there = package_of(target)
        higher = target.parts[0] == file.parts[0] and LEVELS.index(there) > LEVELS.index(here)
        command = there.endswith(COMMANDS) and target.name != "__init__.py" and place != "platform/completion.py"
        if higher or (command and target != file):
            found.append(f"{place} imports {target.as_posix()}")
    return found


@pytest.mark.parametrize("file", FILES, ids=str)
def test_the_directions_of_imports_hold(file: Path) -> None:
    assert complaints((CHECKOUT / file).read_text(encoding="utf-8"), file) == []


def test_no_entry_of_the_table_is_left_over() -> None:
    used: set[tuple[str, str]] = set()
    for file in FILES:
        for name in imported((CHECKOUT / file).read_text(encoding="utf-8"), file):
            rule = rule_of(name)
            if rule is not None:
                used |= {(rule, place) for place in ONLY_IN[rule] if lies_in(file, {place})}
    assert {(package, place) for package, places in ONLY_IN.items() for place in places} == used


def test_no_folder_holds_more_files_than_one_can_guess_in() -> None:
    folders = {file.parent for file in FILES}
    counts = {str(folder): len([file for file in FILES if file.parent == folder]) for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("package", WITHOUT)
def test_nothing_large_is_loaded(package: str) -> None:
    folder = CHECKOUT / package.replace(".", "/")
    names = [f"{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    names = [package, *(name for name in names if name != "cpn.core.opencv")]  # which wraps cv2
    code = f"import sys, {', '.join(names)}\nprint([name for name in {WITHOUT[package]!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("cpn/scoring/cam.py", "import optuna"),
        ("cpn/scoring/cam.py", "from platform.config import spec"),
        ("cpn/scoring/cam.py", "import ray"),
        ("cpn/scoring/cam.py", "def f():\n    import yaml"),
        ("cpn/scoring/cam.py", "from pydensecrf import densecrf"),
        ("cpn/scoring/cam.py", "import cv2"),
        ("cpn/models/losses.py", "from cpn.training import loop"),
        ("cpn/models/losses.py", "from cpn.scoring.cam import load_maps"),
        ("cpn/models/losses.py", "if TYPE_CHECKING:\n    from cpn.run import train_and_score"),
        ("cpn/stages/inputs.py", "from cpn.prepare import main"),
        ("cpn/core/files.py", "import pickle"),
        ("platform/sweep.py", "import optuna.samplers"),
        ("platform/sweep.py", "from ray import tune"),
        ("platform/cluster/worker.py", "from ray.tune import Tuner"),
        ("platform/cluster/ray_driver.py", "from ray.train.torch import TorchTrainer"),
        ("platform/sweep.py", "import importlib\nimportlib.import_module('mlflow.tracking')"),
        ("platform/sweep.py", "import platform.config.spec"),
        ("platform/sweep.py", "from platform.config import spec"),
        ("platform/sweep.py", "import platform"),
        ("platform/sweep.py", "from .gc import main"),
        ("platform/base/paths.py", "from ..search.study import Study"),
        ("platform/base/paths.py", "def f():\n    from ..search import study"),
    ],
)
def test_a_breach_is_seen(file: str, source: str) -> None:
    assert complaints(source, Path(file)) != []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("cpn/models/losses.py", "from cpn.data.voc import IGNORE\nfrom cpn.core import errors\nimport torch"),
        ("platform/search/study.py", "import optuna\nfrom ..config.spec import SweepSpec\nfrom . import samplers"),
        ("platform/sweep.py", "import argparse\nfrom cpn.config import Config"),
        ("platform/cluster/worker.py", "from ray.train.torch import TorchConfig"),
        ("cpn/core/opencv.py", "import cv2"),
    ],
)
def test_what_is_allowed_passes(file: str, source: str) -> None:
    assert complaints(source, Path(file)) == []
