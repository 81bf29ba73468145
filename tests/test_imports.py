"""Who may import whom, read from every file of `cpn/` and `platform/` without running it."""

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
FILES = [path.relative_to(CHECKOUT) for name in ("cpn", "platform") for path in sorted((CHECKOUT / name).rglob("*.py"))]

ONLY_IN = {
    "optuna": {
        "platform/what_mattered.py",  # importances, on a study in memory
        "platform/search.py",
        "platform/space.py",
        "platform/study.py",
        "platform/study_store.py",
        "platform/samplers.py",
        "platform/history.py",
        "platform/pruning.py",
    },
    "cmaes": {"platform/cma.py"},
    "plotly": {"platform/report_figures.py"},
    "jinja2": {"platform/report.py", "platform/paper_report.py"},
    "pandas": {"platform/appendix.py", "platform/pyfunc.py", "platform/pyfunc_folder.py"},
    "shtab": {"platform/completion.py"},
    "ray.tune": {"platform/driver.py", "platform/search.py"},
    "ray.tune.integration": {"platform/worker.py"},  # the callback of Train that reports to Tune
    "ray.train": {"platform/worker.py", "platform/cleaner.py"},
    # The second is a model's own code: MLflow copies it into the model and runs it there, nothing of ours imports it.
    # Nor the third, which MLflow's server imports.
    "mlflow": {"platform/tracking_client.py", "platform/pyfunc.py", "platform/ui_users.py"},
    "yaml": {"platform/files.py"},
    "pydensecrf": {"cpn/crf.py"},
    "cv2": {"cpn/opencv.py"},
}
"""Package -> the only files that may import it; the longest name that fits decides."""

NOT_IN_CPN = {"platform", "ray", "mlflow", "optuna", "yaml"}
"""`cpn` runs alone, from a plain script."""

NOWHERE = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
"""Nothing that is read back may run code."""

LEAVES = {"voc", "patches", "losses", "metrics", "correlation", "resnet38d", "random_walk", "crf"}
BELOW_LEAVES = {"cpn.voc", "cpn.section", "cpn.present", "cpn.errors", "cpn.files", "cpn.opencv", "cpn.remote"}
BELOW_LEAVES |= {"cpn.plain_file", "cpn.checked"}


def imported(source: str, file: Path) -> set[str]:
    """The full dotted names that `source` imports anywhere in it, relative ones resolved against `file`.

    `from a import b` counts as a.b, for b may be a module; import_module("a") and __import__("a") count too.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(file.parts[: len(file.parts) - node.level]) if node.level else ""
            base = ".".join(filter(None, [package, node.module]))
            names |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                names.add(str(node.args[0].value))
    return names


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


def complaints(source: str, file: Path) -> list[str]:
    """What `file`, relative to the checkout, imports against the rules."""
    names = imported(source, file)
    place = file.as_posix()
    forbidden = NOWHERE | NOT_IN_CPN if file.parts[0] == "cpn" else NOWHERE
    found = [f"{place} imports {name}" for name in names for package in forbidden if within(name, package)]
    for name in names:
        rules = [package for package in ONLY_IN if within(name, package)]
        if rules and place not in ONLY_IN[max(rules, key=len)]:
            found.append(f"{place} imports {name}")
    if file.parts[0] == "cpn" and file.stem in LEAVES:
        own = {name for name in names if within(name, "cpn")}
        found += [f"{place} imports {name}" for name in own if not any(within(name, low) for low in BELOW_LEAVES)]
    if file.parts[0] == "platform":
        found += [f"{place} imports {name} absolutely" for name in absolute(source) if within(name, "platform")]
    return found


@pytest.mark.parametrize("file", FILES, ids=str)
def test_the_directions_of_imports_hold(file: Path) -> None:
    assert complaints((CHECKOUT / file).read_text(encoding="utf-8"), file) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("cpn/cam.py", "import optuna"),
        ("cpn/cam.py", "from platform import spec"),
        ("cpn/cam.py", "import ray"),
        ("cpn/cam.py", "def f():\n    import yaml"),
        ("cpn/cam.py", "from pydensecrf import densecrf"),
        ("cpn/cam.py", "import cv2"),
        ("cpn/losses.py", "from .network import CPN"),
        ("cpn/losses.py", "from cpn import network"),
        ("cpn/files.py", "import pickle"),
        ("platform/sweep.py", "import optuna.samplers"),
        ("platform/sweep.py", "from ray import tune"),
        ("platform/worker.py", "from ray.tune import Tuner"),
        ("platform/driver.py", "from ray.train.torch import TorchTrainer"),
        ("platform/sweep.py", "import importlib\nimportlib.import_module('mlflow.tracking')"),
        ("platform/sweep.py", "import platform.spec"),
        ("platform/sweep.py", "from platform import spec"),
        ("platform/sweep.py", "import platform"),
    ],
)
def test_a_breach_is_seen(file: str, source: str) -> None:
    assert complaints(source, Path(file)) != []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "cpn/losses.py",
            "from cpn.voc import IGNORE\nfrom .section import Section\nfrom cpn import errors\nimport torch",
        ),
        ("platform/search.py", "import optuna\nfrom ray import tune\nfrom .spec import SweepSpec\nfrom . import space"),
        ("platform/sweep.py", "import ray\nfrom cpn.config import Config"),
        ("platform/worker.py", "from ray.tune.integration.ray_train import TuneReportCallback"),
        ("cpn/opencv.py", "import cv2"),
    ],
)
def test_what_is_allowed_passes(file: str, source: str) -> None:
    assert complaints(source, Path(file)) == []
