"""The README and the pages in docs: every link leads somewhere, every module and file they name is there."""

import re
from importlib.util import find_spec

import pytest

from tests.conftest import CHECKOUT

PAGES = [
    CHECKOUT / "README.md",
    CHECKOUT / "CONTRIBUTING.md",
    CHECKOUT / "deploy" / "README.md",
    *sorted((CHECKOUT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_to_files(page) -> None:  # type: ignore[no-untyped-def]
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_tree_names_every_file_and_no_other() -> None:
    text = (CHECKOUT / "README.md").read_text()
    named = set(re.findall(r"^ {4}((?:cpn|platform)/[a-z0-9_]+\.py)", text, re.MULTILINE))
    there = {f"{p.parent.name}/{p.name}" for k in ("cpn", "platform") for p in (CHECKOUT / k).glob("*.py")}
    there -= {"cpn/__init__.py", "platform/__main__.py"}
    assert named == there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_modules_that_are_to_be_run_exist(page) -> None:  # type: ignore[no-untyped-def]
    for module in set(re.findall(r"python -m ((?:cpn|platform|benchmarks)[a-z_.0-9]*)", page.read_text())):
        assert find_spec(module) is not None, module


def test_make_targets_exist() -> None:
    text = (CHECKOUT / "README.md").read_text()
    made = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", text)) - {"it"} <= made


def test_presets_and_spaces_named_in_the_readme_exist() -> None:
    from cpn.config.presets import PRESETS

    text = (CHECKOUT / "README.md").read_text()
    for space in set(re.findall(r"search_spaces/([a-z0-9_]+\.yaml)", text)):
        assert (CHECKOUT / "search_spaces" / space).exists()
    for name in PRESETS:
        if name not in ("table2_row2", "table2_row3", "table2_row4"):
            assert f"`{name}`" in text, name
