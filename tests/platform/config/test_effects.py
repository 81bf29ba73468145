"""A searched name that no trial would read is named with its cure, and one that some trial reads is not."""

from collections.abc import Mapping
from pathlib import Path
from platform.config.effects import NEEDS, SECTIONS, effect_warnings, without_effect
from platform.config.spec import load_spec
from platform.sweep import main
from typing import Any

import pytest

from cpn.config import known_names, to_dotted
from tests.platform.config.test_spec import refusal, spec_file

S_N = {"patches.S_N": {"int": [5, 80]}}
K = {"patches.K": {"choice": [[4, 7], [7, 14]]}}
KINDS = {"patches.kind": {"choice": ["superpixel", "grid"]}}
GRID: dict[str, Any] = {"patches": {"kind": "grid"}}
IRN: dict[str, Any] = {"random_walk": {"kind": "irn"}}
SYSTEM = "train.objective"
VOID: list[tuple[str, Mapping[str, Any], Mapping[str, Any], str]] = [
    ("superpixels of grids", GRID, S_N, "S_N: has no effect while patches.kind is grid"),
    (
        "one number where each image draws its own",
        {"patches": {"S_N_range": [10, 100]}},
        S_N,
        "S_N: has no effect while patches.S_N_range is [10, 100], so its trials differ by luck; drop it, or let "
        "patches.S_N_range be null",
    ),
    ("cells of superpixels", {}, K, "K: has no effect while patches.kind is superpixel"),
    ("the draw of grids", GRID, {"patches.draw": {"choice": ["bernoulli", "with_replacement"]}}, "draw: has no effect"),
    (
        "superpixels where grids are drawn",
        {},
        {**KINDS, "patches.S_N": {"int": [5, 80], "when": {"patches.kind": "grid"}}},
        "S_N: has no effect while patches.kind is grid, so its trials differ by luck; drop it, or let",
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
        "prcm_transposed: has no effect while network.prcm is false, so its trials differ by luck; drop it, or",
    ),
    ("a mean of one map", {"network": {"pcm": False}}, {"network.average_refined": {"choice": [True, False]}}, "pcm"),
]  # fmt: skip


def lines(place: Path, base: Mapping[str, Any], search: Mapping[str, Any]) -> list[str]:
    """What is said of a specification."""
    spec = load_spec(spec_file(place, base=base, search=search))
    assert set(spec.search) == set(search)
    return without_effect(spec.search, to_dotted(spec.base_config))


@pytest.mark.parametrize(("base", "search", "words"), [row[1:] for row in VOID], ids=[row[0] for row in VOID])
def test_a_name_without_effect_is_named(
    tmp_path: Path, base: dict[str, Any], search: dict[str, Any], words: str
) -> None:
    (line,) = lines(tmp_path, base, search)
    assert line.startswith("search.") and words in line and "drop it, or let" in line


def test_each_name_without_effect_is_named(tmp_path: Path) -> None:
    named = lines(tmp_path, {}, {**K, "network.x_image": {"float": [0.1, 10]}, **S_N})
    assert [line.partition(":")[0] for line in named] == ["search.patches.K", "search.network.x_image"]


def test_the_plan_warns_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = {"preset": ["official", "scenes"], "network": {"weights": None}}
    path = spec_file(tmp_path, base=base, search=K, resources={"storage": str(tmp_path / "sweeps")})
    assert main([str(path), "--dry-run"]) == 0
    assert "warning: search.patches.K: has no effect while patches.kind is superpixel" in capsys.readouterr().out


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
    assert lines(tmp_path, base, search) == []


GIVEN: list[tuple[dict[str, Any], dict[str, Any], str, str | None]] = [
    (GRID, {}, "patches.S_N=30", "has no effect while patches.kind is grid; drop it, or let it be superpixel"),
    ({"patches": {"S_N_range": [20, 60]}}, {}, "patches.S_N=30", "has no effect while patches.S_N_range is [20, 60]"),
    ({"patches": {"S_N": 40, "S_N_range": [20, 60]}}, {}, "patches.p_h=0.3", None),
    ({}, {}, "patches.S_N=30", None),
    ({}, S_N, "patches.S_N=30", None),
    (GRID, KINDS, "patches.S_N=30", None),
    ({}, {}, "network.x_image=2", "has no effect while network.x_scale is released; drop it, or let it be unit"),
    ({"network": {"x_scale": "unit"}}, {}, "network.x_image=2", None),
    ({}, {}, "irn.walk_beta=3", "has no effect while random_walk.kind is affinity; drop it, or let it be irn"),
    (IRN, {}, "irn.walk_beta=3", None),
    (IRN, {}, "random_walk.alpha=3", "has no effect while random_walk.kind is irn; drop it, or let it be affinity"),
    (IRN, {}, "affinity.epochs=3", "has no effect while random_walk.kind is irn"),
    (IRN, {}, "random_walk.keep_if=better", None),
    ({}, {}, "random_walk.alpha=3", None),
    (IRN, {}, "irn.weights=imagenet", "has no effect while irn.backbone is null; drop it, or let it be the backbone"),
    ({**IRN, "irn": {"backbone": "efficientnet_lite0"}}, {}, "irn.weights=imagenet", None),
]


@pytest.mark.parametrize(("base", "search", "given", "words"), GIVEN, ids=str)
def test_a_set_value_without_effect_is_named(
    tmp_path: Path, base: dict[str, Any], search: dict[str, Any], given: str, words: str | None
) -> None:
    found = effect_warnings(load_spec(spec_file(tmp_path, base=base, search=search), [given]))
    assert found == [] if words is None else found[0].startswith(f"--set {given.partition('=')[0]}: {words}")


def test_all_names_are_the_methods() -> None:
    sections = {name.partition(".")[0] for name in known_names()}
    assert set(SECTIONS) <= sections and {other for needs in SECTIONS.values() for other in needs} <= set(known_names())
    assert set(NEEDS) | {other for needs in NEEDS.values() for other in needs} <= set(known_names())


@pytest.mark.parametrize("value", [[], {}], ids=str)
def test_a_condition_without_a_value_is_refused(tmp_path: Path, value: Any) -> None:
    search = {**KINDS, "patches.S_N": {"int": [5, 80], "when": {"patches.kind": value}}}
    said = refusal(lambda: load_spec(spec_file(tmp_path, search=search)))
    assert said.startswith(f"{tmp_path}/sweep.yaml: search.patches.S_N")
