"""What may be searched is checked against the method's configuration, in one line with its cure."""

from pathlib import Path
from platform.config.sections import SearchOptions
from platform.config.spec import load_spec
from platform.config.spec_checks import check_gain, value_names
from platform.search.distributions import told_params
from typing import Any

import pytest

from tests.platform.config.test_spec import refusal, spec_file


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("loss.onehot_target", ["yes", "no"], [True, False]),
        ("loss.onehot_target", ["true", "off"], [True, False]),
        ("loss.onehot_target", [1, 0], [True, False]),
        ("train.batch_size", ["2", "4"], [2, 4]),
        ("train.lr", ["0.1", 0.01], [0.1, 0.01]),
        ("loss.alpha", [1, 2.5], [1, 2.5]),
        ("cam.scales", [[1], [0.5, 1]], [[1.0], [0.5, 1.0]]),
        ("patches.kind", ["grid", "superpixel"], ["grid", "superpixel"]),
    ],
    ids=str,
)
def test_choices_are_what_their_names_hold(tmp_path: Path, name: str, written: list[Any], meant: list[Any]) -> None:
    """Otherwise the reference's own value is none of them, and it silently leaves the search."""
    base = {name.split(".")[0]: {name.split(".")[1]: meant[0]}}
    spec = load_spec(spec_file(tmp_path, base=base, search={name: {"choice": written}}))
    choices = spec.search[name].choice  # type: ignore[union-attr]
    assert choices == meant and [type(value) for value in choices] == [type(value) for value in meant]
    assert name in told_params(spec.search, spec.reference)


def test_a_condition_on_such_a_choice_means_the_same(tmp_path: Path) -> None:
    given = {"loss.onehot_target": {"choice": ["yes", "no"]}, "train.batch_size": {"choice": ["2", "4"]}}
    when = {"loss.onehot_target": "yes", "train.batch_size": ["2"]}
    search = {**given, "loss.w_tcp": {"float": [0.1, 10], "when": when}}
    base = {"loss": {"onehot_target": True}, "train": {"batch_size": 2}}
    spec = load_spec(spec_file(tmp_path, base=base, search=search))
    assert spec.search["loss.w_tcp"].when == {"loss.onehot_target": True, "train.batch_size": [2]}  # type: ignore[union-attr]
    assert "loss.w_tcp" in spec.reference


def test_two_choices_that_mean_the_same_are_refused(tmp_path: Path) -> None:
    search = {"train.batch_size": {"choice": ["2", 2]}}
    assert "train.batch_size: the choice 2 stands twice" in refusal(
        lambda: load_spec(spec_file(tmp_path, search=search))
    )


GRID = {"patches.kind": "grid"}


BOTH = {"patches.kind": {"choice": ["superpixel", "grid"]}}


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"loss.w_tpc": {"float": [1, 2]}}, "loss.w_tpc: unknown key; did you mean 'loss.w_tcp'?"),
        ({"patches.S_N": {"float": [5, 80]}}, "patches.S_N: float for a field of whole numbers; write {int: [5, 80]}"),
        ({"patches.S_N": {"int": [50, 8]}}, "patches.S_N: low 50 is above high 8; write [8, 50]"),
        ({"patches.S_N": {"int": [0, 8], "log": True}}, "patches.S_N: log needs low > 0, not 0"),
        (
            {"patches.S_N": {"int": [0, 8]}},
            "patches.S_N: 0 is not possible there (Input should be greater",
        ),
        ({"patches.S_N": {"int": [2.5, 8]}}, "patches.S_N.int.0: Input should be a whole number, given 2.5"),
        ({"patches.S_N": {"int": [2]}}, "patches.S_N.int.1: is missing; add it"),
        ({"patches.S_N": {"int": [2, 3], "lgo": True}}, "patches.S_N.lgo: unknown key; did you mean 'log'?"),
        ({"patches.S_N": {"integer": [2, 3]}}, "patches.S_N: not a domain; write {float: [low, high]}"),
        ({"patches.S_N": [2, 3]}, "patches.S_N: not a domain"),
        ({"patches.p_h": {"float": [0.1, 1.5]}}, "patches.p_h: 1.5 is not possible there"),
        ({"patches.p_h": {"float": [0.1, 0.5], "step": 0.3}}, "patches.p_h: high 0.5 is not low 0.1 plus whole steps"),
        (
            {"patches.p_h": {"float": [0.1, 0.5], "step": 0.1, "log": True}},
            "patches.p_h: log and step exclude",
        ),
        ({"patches.kind": {"choice": ["superpixel", "gird"]}}, "patches.kind: 'gird' is not possible there"),
        ({"patches.kind": {"choice": []}}, "patches.kind.choice: the list should have at least 1 item"),
        ({"patches.kind": {"choice": ["grid", "grid"]}}, "patches.kind: the choice 'grid' stands twice"),
        (
            {"patches.K": {"choice": [[4, 7]], "when": GRID}},
            "patches.K: `when` names patches.kind, which is not",
        ),
        (
            {"patches.kind": {"choice": ["superpixel"]}, "patches.K": {"choice": [[4, 7]], "when": GRID}},
            "patches.K: `when` wants patches.kind to be 'grid', which it never is",
        ),
        (
            {"loss.w_cls": {"float": [1, 2]}, "patches.p_h": {"float": [0.1, 0.2], "when": {"loss.w_cls": 1}}},
            "patches.p_h: `when` names loss.w_cls, which is no choice or int",
        ),
        (
            {
                "patches.kind": {"choice": ["superpixel", "grid"], "when": {"patches.S_N": 5}},
                "patches.S_N": {"int": [5, 6], "when": {"patches.kind": "superpixel"}},
            },
            "patches.kind: its `when` leads back to itself",
        ),
        ({"cam.beta": {"choice": [0.3]}}, "cam.beta: beta is read off the curve; write {curve: true}"),
        ({"patches.p_h": {"curve": True}}, "patches.p_h: only cam.beta has a curve"),
        ({"data.root": {"choice": ["a", "b"]}}, "data.root: changes no trial's miou; set it in base instead"),
        ({"crf.iterations": {"int": [1, 10]}}, "crf.iterations: changes no trial's miou"),
    ],
)
def test_a_bad_search_is_named_with_its_cure(tmp_path: Path, search: dict[str, Any], said: str) -> None:
    path = spec_file(tmp_path, search=search)
    assert refusal(lambda: load_spec(path)).startswith(f"{path}: search.{said}")


def test_a_conditional_domain_is_accepted(tmp_path: Path) -> None:
    path = spec_file(tmp_path, search={**BOTH, "patches.K": {"choice": [[4, 7], [7, 14]], "when": GRID}})
    assert list(load_spec(path).search) == ["patches.kind", "patches.K"]


def test_cmaes_is_refused_with_its_cure(tmp_path: Path) -> None:
    path = spec_file(tmp_path, search=BOTH, search_options={"sampler": "cmaes"})
    start = f"{path}: search_options.sampler: there is no CMA-ES any more; write gp"
    assert refusal(lambda: load_spec(path)).startswith(start)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_only_gp_knows_what_more_would_gain(tmp_path: Path, sampler: str) -> None:
    budget = {"trials": 9, "min_gain_per_gpu_hour": 0.01}
    path = spec_file(tmp_path, search=BOTH, budget=budget, search_options={"sampler": sampler})
    assert refusal(lambda: load_spec(path)) == (
        f"{path}: budget.min_gain_per_gpu_hour: only the sampler gp expects a gain, this is {sampler}; take "
        "search_options.sampler=gp, or drop it"
    )
    good = load_spec(path, ["search_options.sampler=gp"])
    assert good.budget.min_gain_per_gpu_hour == 0.01
    begun = good.model_copy(update={"search_options": SearchOptions(sampler=sampler)})  # as its study was begun
    assert refusal(lambda: check_gain(begun, "s.yaml", "drop it")).endswith(f"this is {sampler}; drop it")


def test_a_table_has_no_gain_to_expect(tmp_path: Path) -> None:
    table = {"title": "t", "rows": {"a": {}}}
    path = spec_file(tmp_path, search={}, table=table, budget={"min_gain_per_gpu_hour": 0.01})
    assert "budget.min_gain_per_gpu_hour: a table searches nothing" in refusal(lambda: load_spec(path))


def test_names_of_values_leave_the_sections_out() -> None:
    names = value_names()
    assert {"loss.w_tcp", "patches.kind", "train.seed"} <= set(names) and not {"loss", "patches"} & set(names)


def test_a_choice_of_an_unknown_backbone_names_the_file(tmp_path: Path) -> None:
    path = spec_file(tmp_path, search={"network.backbone": {"choice": ["scene", "resnet99"]}})
    said = refusal(lambda: load_spec(path))
    assert said.startswith(f"{path}: search.network.backbone: 'resnet99' is not possible there ('resnet99' is unknown;")
