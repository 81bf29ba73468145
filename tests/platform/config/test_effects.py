"""A searched name that no trial would read is refused with its cure, and one that some trial reads is not."""

from collections.abc import Mapping
from pathlib import Path
from platform.config.effects import NEEDS
from platform.config.spec import load_spec
from typing import Any

import pytest

from cpn.config import known_names
from tests.platform.config.test_spec import refusal, spec_file

S_N = {"patches.S_N": {"int": [5, 80]}}
K = {"patches.K": {"choice": [[4, 7], [7, 14]]}}
KINDS = {"patches.kind": {"choice": ["superpixel", "grid"]}}
GRID: dict[str, Any] = {"patches": {"kind": "grid"}}
SYSTEM = "train.objective"
VOID: list[tuple[str, Mapping[str, Any], Mapping[str, Any], str]] = [
    ("superpixels of grids", GRID, S_N, "S_N: has no effect while patches.kind is grid"),
    ("cells of superpixels", {}, K, "K: has no effect while patches.kind is superpixel"),
    ("the draw of grids", GRID, {"patches.draw": {"choice": ["bernoulli", "with_replacement"]}}, "draw: has no effect"),
    (
        "superpixels where grids are drawn",
        {},
        {**KINDS, "patches.S_N": {"int": [5, 80], "when": {"patches.kind": "grid"}}},
        "S_N: has no effect while patches.kind is grid, so its trials would differ by luck; drop it, or let",
    ),
    ("one kind that is searched", {}, {"patches.kind": {"choice": ["superpixel"]}, **K}, "K: has no effect"),
    ("patches without pairs", {"train": {"objective": "seam"}}, S_N, f"S_N: has no effect while {SYSTEM} is seam"),
    (
        "weights of one loss",
        {"train": {"objective": "classification"}},
        {"loss.w_tcp": {"float": [0.1, 10]}},
        f"w_tcp: has no effect while {SYSTEM} is classification",
    ),
    ("the scale of X as it comes", {}, {"network.x_image": {"float": [0.1, 10]}}, "network.x_scale is released"),
    (
        "a switch of PRCM without it",
        {"network": {"prcm": False}},
        {"network.prcm_transposed": {"choice": [True, False]}},
        "prcm_transposed: has no effect while network.prcm is false, so its trials would differ by luck; drop it, or",
    ),
    ("a mean of one map", {"network": {"pcm": False}}, {"network.average_refined": {"choice": [True, False]}}, "pcm"),
]  # fmt: skip


@pytest.mark.parametrize(("base", "search", "said"), [row[1:] for row in VOID], ids=[row[0] for row in VOID])
def test_a_name_without_effect_is_refused(
    tmp_path: Path, base: dict[str, Any], search: dict[str, Any], said: str
) -> None:
    line = refusal(lambda: load_spec(spec_file(tmp_path, base=base, search=search)))
    assert line.startswith(f"{tmp_path}/sweep.yaml: search.") and said in line and "drop it" in line


@pytest.mark.parametrize(
    ("base", "search"),
    [
        ({}, S_N),
        (GRID, K),
        ({}, {**KINDS, **S_N, **K}),
        (GRID, {**KINDS, "patches.S_N": {"int": [5, 80], "when": {"patches.kind": "superpixel"}}}),
        ({"train": {"objective": "pair_classification"}}, S_N),
        ({"train": {"objective": "seam"}}, {"loss.w_tcp": {"float": [0.1, 10]}}),
        ({}, {"network.x_scale": {"choice": ["unit", "released"]}, "network.x_image": {"float": [0.1, 10]}}),
        ({}, {"train.objective": {"choice": ["cpn", "classification"]}, **S_N}),
    ],
    ids=str,
)
def test_what_some_trial_reads_is_searched(tmp_path: Path, base: dict[str, Any], search: dict[str, Any]) -> None:
    assert set(load_spec(spec_file(tmp_path, base=base, search=search)).search) == set(search)


def test_all_names_are_the_methods() -> None:
    assert set(NEEDS) | {other for needs in NEEDS.values() for other in needs} <= set(known_names())


@pytest.mark.parametrize("value", [[], {}], ids=str)
def test_a_condition_without_a_value_is_refused(tmp_path: Path, value: Any) -> None:
    search = {**KINDS, "patches.S_N": {"int": [5, 80], "when": {"patches.kind": value}}}
    said = refusal(lambda: load_spec(spec_file(tmp_path, search=search)))
    assert said.startswith(f"{tmp_path}/sweep.yaml: search.patches.S_N")
