"""Tests mirror the tree: each module has its file of tests, and every test a name that one can read at a glance."""

import ast
from pathlib import Path

import pytest

from tests.package_graph import CHECKOUT, module_files

LONGEST_NAME = 59

MODULES = [file for file in module_files() if file.name != "__init__.py"]


def names_of_tests(source: str) -> list[str]:
    """The names of the tests in a file."""
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return [function.name for function in functions if function.name.startswith("test_")]


def mirrored(module: Path) -> Path:
    """The file with a module's tests: cpn/models/losses.py -> tests/cpn/models/test_losses.py."""
    return Path("tests") / module.parent / f"test_{module.stem.strip('_')}.py"


def untested(checkout: Path, modules: list[Path]) -> list[str]:
    """The modules without a mirrored file, or with one that holds no test."""
    files = {module: checkout / mirrored(module) for module in modules}
    return [str(module) for module, file in files.items() if not file.is_file() or not names_of_tests(file.read_text())]


def test_every_module_has_its_tests() -> None:
    assert len(MODULES) > 150 and untested(CHECKOUT, MODULES) == []


def test_names_of_tests_are_short() -> None:
    files = sorted((CHECKOUT / "tests").rglob("test_*.py"))
    long = [
        (file.name, name) for file in files for name in names_of_tests(file.read_text()) if len(name) > LONGEST_NAME
    ]
    assert len(files) > 150 and long == []


@pytest.mark.parametrize(
    ("module", "file"),
    [
        ("cpn/run.py", "tests/cpn/test_run.py"),
        ("platform/config/space/grid.py", "tests/platform/config/space/test_grid.py"),
        ("platform/__main__.py", "tests/platform/test_main.py"),
    ],
)
def test_where_a_modules_tests_lie(module: str, file: str) -> None:
    assert mirrored(Path(module)) == Path(file)


def test_a_file_without_a_test_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "tests/cpn").mkdir(parents=True)
    for name, source in (("one", "def test_it() -> None: ...\n"), ("two", "def helper() -> None: ...\n")):
        (tmp_path / f"tests/cpn/test_{name}.py").write_text(source)
    modules = [Path("cpn") / f"{name}.py" for name in ("one", "two", "three")]
    assert untested(tmp_path, modules) == ["cpn/two.py", "cpn/three.py"]
