"""What makes docs/results-scenes.md: which runs it trains, and what it puts between the page's marks."""

import json
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from tests.development_script import development_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return development_script("results_scenes")


def test_every_run_is_there_once_and_first_seeds_come_first(script: ModuleType) -> None:
    configs = script.wanted()
    assert len(set(configs)) == len(configs) and all(config.network.backbone == "scene" for config in configs)
    seeds = [config.train.seed for config in configs]
    assert seeds == sorted(seeds) and set(seeds) == {0, 1, 2}
    assert set(Counter(seeds).values()) == {len(configs) // 3}, "fig5 and fig8 need no run of their own"


def test_more_seeds_are_more_runs_of_tables_with_several(script: ModuleType) -> None:
    few, more = script.wanted(1), script.wanted(2)
    assert len(more) == 2 * len(few) and more[: len(few)] == few and len(script.wanted(3)) == len(script.wanted())


def test_a_page_gets_the_tables_there_are(script: ModuleType, tmp_path: Path) -> None:
    for name in ("table2", "beyond_joint"):
        (tmp_path / name).mkdir()
    (tmp_path / "table2" / "table.md").write_text("**T**\n\n| a |\n")
    (tmp_path / "table2" / "table.json").write_text(
        json.dumps({"columns": [], "rows": [], "runs": {"x": {"key": "1"}, "y": {"key": "2"}}, "run_hours": 0.5})
    )
    (tmp_path / "beyond_joint" / "summary.json").write_text(json.dumps({"verdict": "better", "hours": 0.25}))
    (tmp_path / "beyond_joint" / "leaderboard.md").write_text("# beyond_joint: leaderboard\n\n| trial |\n")
    marks = "".join(f"<!-- {n}: begin -->old {n}<!-- {n}: end -->\n" for n in ("table2", "table4", "beyond_joint"))
    page = script.filled(f"above\n{marks}below\n", tmp_path)
    assert "**T**\n\n| a |\n\n2 runs, 0.50 hours of training." in page and "old table2" not in page
    assert "old table4" in page and "**better**\n\n| trial |\n\n0.25 hours in all." in page
    assert script.filled(page, tmp_path) == page and page.startswith("above\n") and page.endswith("below\n")


def test_of_many_trials_the_best_are_shown_and_the_reference(script: ModuleType) -> None:
    rows = [f"| {i} | s-{i:04d} | {'complete, reference' if i == 50 else 'complete'} |" for i in range(1, 65)]
    found = script.shortened("\n".join(["words", "", "| # | trial | state |", "|---|---|---|", *rows])).splitlines()
    assert found[:5] == ["words", "", "| # | trial | state |", "|---|---|---|", rows[0]]
    assert found[4:-2] == [*rows[: script.SHOWN], rows[49]] and found[-1] == "43 trials below these are left out."
    assert script.shortened("| # |\n|---|\n| 1 |") == "| # |\n|---|\n| 1 |"


def test_the_page_has_a_place_for_every_table(script: ModuleType) -> None:
    text = script.PAGE.read_text()
    for path in script.SPACES.glob("*.yaml"):
        if path.stem == "beyond_backbone":
            continue  # compares backbones for photographs; scenes have one of their own
        if "\ntable:" in path.read_text() or path.stem in ("beyond_joint", "patch"):
            assert f"<!-- {path.stem}: begin -->" in text, path.stem
