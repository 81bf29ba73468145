"""Domains as coordinates: the way there and back, and evenness."""

from platform.config.space import domains
from platform.config.space.unit_cube import from_unit, to_unit
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

DOMAINS: dict[str, Any] = domains.parse_search(
    {
        "plain": {"float": [-1, 3]},
        "stepped": {"float": [0.1, 0.5], "step": 0.1},
        "log": {"float": [0.1, 10], "log": True},
        "int": {"int": [2, 5]},
        "steps": {"int": [4, 16], "step": 4},
        "int_log": {"int": [5, 8000], "log": True},
        "choice": {"choice": [[4, 7], "a", None]},
        "single": {"float": [2, 2]},
    }
)


@pytest.mark.parametrize(
    ("name", "u", "value"),
    [
        ("plain", 0.25, 0.0),
        ("stepped", 0.0, 0.1),
        ("stepped", 0.45, 0.3),
        ("stepped", 1.0, 0.5),
        ("log", 0.5, 1.0),
        ("int", 0.0, 2),
        ("int", 0.2501, 3),
        ("int", 1.0, 5),
        ("steps", 0.6, 12),
        ("int_log", 0.0, 5),
        ("int_log", 1.0, 8000),
        ("choice", 0.0, [4, 7]),
        ("choice", 0.34, "a"),
        ("choice", 1.0, None),
        ("single", 0.7, 2.0),
    ],
)
def test_a_coordinate_by_hand(name: str, u: float, value: Any) -> None:
    found = from_unit(DOMAINS[name], u)
    assert found == pytest.approx(value) if isinstance(value, float) else found == value
    assert isinstance(found, int) == isinstance(value, int)


@given(name=st.sampled_from(sorted(DOMAINS)), u=st.floats(0, 1))
def test_every_coordinate_gives_a_value_that_comes_back(name: str, u: float) -> None:
    value = from_unit(DOMAINS[name], u)
    assert domains.contains(DOMAINS[name], value)
    back = from_unit(DOMAINS[name], to_unit(DOMAINS[name], value))
    assert back == pytest.approx(value) if isinstance(value, float) else back == value


@pytest.mark.parametrize(("name", "count"), [("stepped", 5), ("int", 4), ("steps", 4), ("choice", 3)])
def test_single_values_share_the_coordinates_evenly(name: str, count: int) -> None:
    found = [str(from_unit(DOMAINS[name], u)) for u in (np.arange(count * 100) + 0.5) / (count * 100)]
    assert sorted(found.count(value) for value in set(found)) == [100] * count


def test_a_log_range_is_even_in_ratios() -> None:
    assert from_unit(DOMAINS["log"], 0.25) * from_unit(DOMAINS["log"], 0.75) == pytest.approx(1)
    assert from_unit(DOMAINS["int_log"], 0.5) == round((4.5 * 8000.5) ** 0.5)
