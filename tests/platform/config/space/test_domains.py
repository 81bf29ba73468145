"""What may be searched: domains, conditions, and the forms that their values have."""

from pathlib import Path
from platform.config.space.domains import (
    ChoiceDomain,
    CurveDomain,
    FloatDomain,
    IntDomain,
    active,
    allowed,
    condition_problem,
    contains,
    decode,
    domain_words,
    drawn,
    encode,
    ordered,
    parse_search,
    values_of_base,
    with_curve,
)
from platform.config.spec import load_spec
from typing import Any

import pytest

SPACES = Path(__file__).resolve().parents[4] / "search_spaces"


def test_domains_in_words() -> None:
    search = load_spec(SPACES / "patch.yaml").search
    assert domain_words(search["loss.w_tcp"]) == "float 0.1 to 10.0, log"
    assert domain_words(search["patches.p_h"]) == "float 0.1 to 0.5"
    assert domain_words(search["patches.kind"]) == "one of superpixel, grid"
    assert domain_words(search["patches.S_N"]) == "int 5 to 8000, log, when patches.kind=superpixel"
    assert domain_words(search["patches.K"]).endswith(", [224, 448], when patches.kind=grid")
    assert domain_words(search["patches.K"]).startswith("one of [4, 7], [7, 14]")


SEARCH = parse_search(
    {
        "patches.K": {"choice": [[4, 7], [56, 112]], "when": {"patches.kind": "grid"}},
        "patches.kind": {"choice": ["superpixel", "grid"], "when": {"train.batch_size": [2, 4]}},
        "train.batch_size": {"int": [2, 8]},
        "cam.beta": {"curve": True},
    }
)


def test_each_form_is_read_as_its_domain() -> None:
    kinds = [type(domain) for domain in parse_search({"a": {"float": [1, 2]}, **SEARCH}).values()]
    assert kinds == [FloatDomain, ChoiceDomain, ChoiceDomain, IntDomain, CurveDomain]


def test_a_name_comes_after_those_it_depends_on() -> None:
    assert ordered(SEARCH) == ["train.batch_size", "patches.kind", "patches.K"] and condition_problem(SEARCH) is None
    assert list(drawn(SEARCH)) == ["patches.K", "patches.kind", "train.batch_size"]


def test_a_circle_of_conditions_names_where_it_begins() -> None:
    search = parse_search(
        {"a": {"choice": [1, 2], "when": {"b": 1}}, "b": {"choice": [1, 2], "when": {"c": 1}},
         "c": {"choice": [1, 2], "when": {"b": 2}}}
    )  # fmt: skip
    with pytest.raises(ValueError, match="^b$"):
        ordered(search)
    assert condition_problem(search) == ("b", "its `when` leads back to itself; drop one of the conditions")


@pytest.mark.parametrize(
    ("values", "exists"),
    [
        ({"train.batch_size": 4, "patches.kind": "grid"}, True),
        ({"train.batch_size": 4, "patches.kind": "superpixel"}, False),
        ({"train.batch_size": 8}, False),
        ({}, False),
    ],
    ids=["condition holds", "other choice", "parent inactive", "nothing"],
)
def test_a_name_exists_where_its_condition_holds(values: dict[str, Any], exists: bool) -> None:
    assert active("patches.K", SEARCH, values) is exists and active("train.batch_size", SEARCH, values)


def test_a_listed_list_is_one_value() -> None:
    parent = SEARCH["patches.K"]
    assert isinstance(parent, ChoiceDomain)
    assert allowed(parent, [4, 7]) == [[4, 7]] and allowed(parent, [[4, 7], [56, 112]]) == [[4, 7], [56, 112]]
    assert allowed(parent, "x") == ["x"]


def test_the_reference_has_what_is_active_in_the_base() -> None:
    base = {"patches.K": [1, 2], "patches.kind": "grid", "train.batch_size": 4, "cam.beta": 0.5, "loss.w_tcp": 1.0}
    assert values_of_base(SEARCH, base) == {"train.batch_size": 4, "patches.kind": "grid", "patches.K": [1, 2]}
    assert values_of_base(SEARCH, {**base, "train.batch_size": 16}) == {"train.batch_size": 16}


def test_a_plain_range_of_beta_is_a_part_of_the_curve() -> None:
    (beta,) = with_curve(parse_search({"cam.beta": {"float": [0.2, 0.6]}})).values()
    assert beta == CurveDomain(curve=True, within=(0.2, 0.6))
    for more in ({"log": True}, {"step": 0.2}, {"when": {"a": 1}}):
        search = parse_search({"cam.beta": {"float": [0.2, 0.6], **more}})
        assert with_curve(search) == search, "which the checks refuse, by name"
    assert with_curve({}) == {}


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        ({"float": [0.5, 2]}, [0.5, 2.0, 1], [0.49, 2.01, True, "1", None]),
        ({"int": [1, 3]}, [1, 3], [0, 4, 2.0, True]),
        ({"choice": [[4, 7], "a", None]}, [[4, 7], (4, 7), "a", None], [[4], "b", 4]),
    ],
    ids=["float", "int", "choice"],
)
def test_what_a_domain_contains(domain: dict[str, Any], inside: list[Any], outside: list[Any]) -> None:
    (made,) = drawn(parse_search({"x": domain})).values()
    assert [contains(made, value) for value in inside] == [True] * len(inside)
    assert [contains(made, value) for value in outside] == [False] * len(outside)


def test_lists_are_stored_as_text_and_come_back_new() -> None:
    domain = ChoiceDomain(choice=[[56, 112], "grid", True])
    assert [encode(value) for value in domain.choice] == ["56,112", "grid", True]
    assert [decode(domain, stored) for stored in ("56,112", "grid", True)] == [[56, 112], "grid", True]
    decode(domain, "56,112").append(1)
    assert domain.choice[0] == [56, 112]
    with pytest.raises(ValueError, match="'4,7' is not among the choices"):
        decode(domain, "4,7")


def test_a_step_that_is_too_fine_is_refused() -> None:
    with pytest.raises(ValueError, match="step 1e-17 is too fine for 0.0 to 1.0; write a larger one, or null"):
        FloatDomain.model_validate({"float": [0, 1], "step": 1e-17})
