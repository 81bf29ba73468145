"""Print which package of `cpn` and `platform` imports which: `python -m tests.package_graph`.

Read from the files, without running them; imports inside functions and under TYPE_CHECKING count like any other.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
COMMANDS = "commands"
"""The level of the files right below `cpn/` and `platform/`."""

LEVELS = (
    "cpn.core",
    "cpn.config",
    "cpn.data",
    "cpn.sources",
    "cpn.models",
    "cpn.scoring",
    "cpn.training",
    "cpn.plots",
    "cpn.propagation",
    "cpn.segmentation",
    "cpn.cost",
    "cpn.run",
    "cpn.stages",
    f"cpn.{COMMANDS}",
    "platform.base",
    "platform.config.space",
    "platform.config",
    "platform.search",
    "platform.tracking.in_mlflow",
    "platform.tracking",
    "platform.cluster",
    "platform.plan",
    "platform.run",
    "platform.reports",
    "platform.reports.html",
    "platform.promotion",
    "platform.sweeps",
    "platform.meta",
    f"platform.{COMMANDS}",
)
"""Lowest first: a package imports itself and lower ones only. `cpn.run` is one file, cpn/run.py."""


def module_files() -> list[Path]:
    """Every module of `cpn` and `platform`, relative to the checkout."""
    found = [path for name in ("cpn", "platform") for path in sorted((CHECKOUT / name).rglob("*.py"))]
    return [path.relative_to(CHECKOUT) for path in found]


def package_of(file: Path) -> str:
    """The level that a file belongs to."""
    folder = ".".join(file.parts[:-1])
    if folder in LEVELS:
        return folder
    alone = f"{folder}.{file.stem}"
    return alone if alone in LEVELS else f"{folder}.{COMMANDS}"


def imported(source: str, file: Path) -> set[str]:
    """Return the full dotted names that `source` imports anywhere in it, relative ones resolved against `file`.

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


def imported_files(source: str, file: Path) -> Iterator[Path]:
    """Yield the files of `cpn` and `platform` that `source` imports, relative to the checkout."""
    for name in sorted(imported(source, file)):
        parts = name.split(".")
        if parts[0] not in ("cpn", "platform"):
            continue
        for length in range(len(parts), 1, -1):
            path = Path(*parts[:length])
            for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                if (CHECKOUT / candidate).is_file():
                    yield candidate
                    break
            else:
                continue
            break


def graph() -> dict[str, set[str]]:
    """Package -> the other packages that its files import."""
    arrows: dict[str, set[str]] = {level: set() for level in LEVELS}
    for file in module_files():
        here = package_of(file)
        source = (CHECKOUT / file).read_text(encoding="utf-8")
        arrows[here] |= {package_of(target) for target in imported_files(source, file)} - {here}
    return arrows


def main() -> None:
    """Print a line for each package, lowest first, with its number of files."""
    files = module_files()
    for level, targets in graph().items():
        count = sum(package_of(file) == level and file.name != "__init__.py" for file in files)
        names = [name for name in LEVELS if name in targets]
        print(f"{level} ({count} files) -> {', '.join(names) or '-'}")


if __name__ == "__main__":
    main()
