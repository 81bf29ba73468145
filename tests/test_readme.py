"""The pages: README is short, every link, module and file that they name exists, and no page or module is left out."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

README, CONTRIBUTING = CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"
ARCHITECTURE = CHECKOUT / "docs" / "architecture.md"
PAGES = [
    README,
    CONTRIBUTING,
    CHECKOUT / "AGENTS.md",
    CHECKOUT / "SECURITY.md",
    CHECKOUT / "deploy" / "README.md",
    CHECKOUT / "benchmarks" / "README.md",
    *sorted((CHECKOUT / "docs").rglob("*.md")),
]
LONGEST_README = 150
PATHS = re.compile(r"`((?:benchmarks|cpn|deploy|docs|platform|search_spaces|tests)/[\w./-]*)`")
"""A file or folder in backticks; one with a placeholder in capitals, such as TOPIC.py, is none."""
MADE = {"deploy/.env"}
"""Paths that a command writes."""


def named(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def links(page: Path) -> list[str]:
    """Every link of a page to a file of ours, without its anchor."""
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [target.partition("#")[0] for target in targets if "://" not in target and not target.startswith("#")]


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_readme_names_the_command_that_runs_the_tests() -> None:
    text = README.read_text(encoding="utf-8")
    command = re.search(r"-m (pytest .*) \$\(ARGS\)", (CHECKOUT / "Makefile").read_text())
    assert command is not None and "make test" in text and command[1] in text


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files(page: Path) -> None:
    for target in links(page):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_anchors_lead_to_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors, f"{target}#{anchor}"


def test_every_page_is_reached_from_readme() -> None:
    reached, left = set(), [README]
    while left:
        page = left.pop()
        reached.add(page)
        pages = {(page.parent / target).resolve() for target in links(page) if target.endswith(".md")}
        left += pages - reached
    assert {page for page in PAGES if page.is_relative_to(CHECKOUT / "docs")} <= reached


def test_architecture_names_every_module_and_no_other() -> None:
    lines = re.findall(r"^ {4}((?:cpn|platform)/[a-z0-9_/]+\.py) +\S", ARCHITECTURE.read_text("utf-8"), re.MULTILINE)
    files = {named(path) for top in ("cpn", "platform") for path in (CHECKOUT / top).rglob("*.py")}
    files = {file for file in files if not file.endswith("/__init__.py")} | {"platform/__init__.py"}
    assert set(lines) - files == set(), "gone: take the lines off docs/architecture.md"
    assert files - set(lines) == set(), "new: write a line for each in docs/architecture.md"
    assert len(lines) == len(files), "named twice"


def test_architecture_has_a_paragraph_for_every_package() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    packages = {named(path.parent) for top in ("cpn", "platform") for path in (CHECKOUT / top).rglob("__init__.py")}
    for package in packages - {"cpn", "platform"}:
        assert f"### `{package}/`\n\n" in text, package


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_modules_that_are_to_be_run_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for module in set(re.findall(r"python -m ((?:cpn|platform|benchmarks|tests)[a-z_.0-9]*)", text)):
        assert find_spec(module) is not None, module


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_pages_name_exist(page: Path) -> None:
    for path in set(PATHS.findall(page.read_text(encoding="utf-8"))) - MADE:
        assert re.search(r"[A-Z]{3}", Path(path).stem) or (CHECKOUT / path).exists(), path


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:^ {4}|`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert target in targets, f"{page}: make {target}"
    assert {"sweep", "test"} <= set(re.findall(r"^ {4}make ([a-z]+)", README.read_text("utf-8"), re.MULTILINE))


def test_search_spaces_that_pages_name_exist() -> None:
    for page in PAGES:
        for space in re.findall(r"search_spaces/([a-z0-9_]+\.yaml)", page.read_text(encoding="utf-8")):
            assert (CHECKOUT / "search_spaces" / space).exists(), f"{page}: {space}"


def test_usage_names_every_preset() -> None:
    from cpn.config.presets import PRESETS

    text = (CHECKOUT / "docs" / "usage.md").read_text(encoding="utf-8")
    for name in PRESETS:
        if name not in ("table2_row2", "table2_row3", "table2_row4"):
            assert f"`{name}`" in text, name
