"""The grid: each combination once, conditional names only where they exist, and what has no grid."""

from pathlib import Path
from platform.config.space import domains, grid
from typing import Any

import pytest

from cpn.core.errors import InputError
from tests.platform.search.test_study import make_spec

SEARCH: dict[str, Any] = {
    "patches.kind": {"choice": ["superpixel", "grid"]},
    "patches.S_N": {"int": [100, 300], "step": 100, "when": {"patches.kind": "superpixel"}},
    "patches.K": {"choice": [[4, 7], [56, 112]], "when": {"patches.kind": "grid"}},
    "patches.p_h": {"float": [0.1, 0.3], "step": 0.1},
    "cam.beta": {"curve": True},
}
PARSED = domains.parse_search(SEARCH)
REFERENCE = {"patches.kind": "superpixel", "patches.S_N": 200, "patches.p_h": 0.3}


def test_it_has_every_combination_once_but_the_reference() -> None:
    expected: list[dict[str, Any]] = [
        {"patches.kind": "superpixel", "patches.S_N": n, "patches.p_h": p}
        for n in (100, 200, 300)
        for p in (0.1, 0.2, 0.3)
    ]
    expected += [
        {"patches.kind": "grid", "patches.K": k, "patches.p_h": p} for k in ([4, 7], [56, 112]) for p in (0.1, 0.2, 0.3)
    ]
    expected.remove(REFERENCE)
    found = grid.points(PARSED, REFERENCE, 0)
    assert sorted(map(str, found)) == sorted(map(str, expected))
    assert found == grid.points(PARSED, REFERENCE, 0) != grid.points(PARSED, REFERENCE, 1)


def test_the_sweep_ends_with_the_grid(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "search_options.sampler=grid", "budget.trials=null", search=SEARCH)
    assert spec.trial_limit == 1 + 15  # the reference has p_h .5, so nothing of the grid is left out
    assert make_spec(tmp_path, "search_options.sampler=grid", "budget.trials=4", search=SEARCH).trial_limit == 4


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        ({"float": [0.1, 0.5]}, "range is continuous; give it a step, or write {choice"),
        ({"float": [0.1, 0.5], "log": True}, "range is continuous; write {choice"),
    ],
)
def test_a_continuous_range_is_refused_with_key_and_cure(tmp_path: Path, domain: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"search.patches.p_h: .*{said}") as error:
        make_spec(tmp_path, "search_options.sampler=grid", search={**SEARCH, "patches.p_h": domain})
    assert "\n" not in str(error.value)


def test_a_grid_that_nobody_can_run_is_refused(tmp_path: Path) -> None:
    wide = {**SEARCH, "patches.S_N": {"int": [1, 8000]}}
    with pytest.raises(InputError, match=r"search.patches.S_N: the grid has more than 10000 points, 8000 values"):
        make_spec(tmp_path, "search_options.sampler=grid", search=wide)
