"""Configurations as rows: there and back, conditions, and only what is possible."""

from platform.config.space.domains import active, ordered, parse_search
from platform.config.space.points import IDLE, Cube

import numpy as np
import pytest

SEARCH = parse_search(
    {
        "kind": {"choice": ["superpixel", "grid", "none"]},
        "S_N": {"int": [5, 8000], "log": True, "when": {"kind": "superpixel"}},
        "K": {"choice": [[4, 7], [14, 28], [56, 112]], "when": {"kind": ["grid", "superpixel"]}},
        "few": {"int": [1, 4], "when": {"K": [14, 28]}},
        "p": {"float": [0.1, 0.5], "step": 0.1},
        "x": {"float": [0.1, 10], "log": True},
    }
)
CUBE = Cube(SEARCH)


def test_possible_rows_are_configurations_there_and_back() -> None:
    rows = CUBE.possible(np.random.default_rng(0).random((300, 6)))
    for row in rows:
        values = CUBE.values(row)
        assert list(values) == [name for name in ordered(SEARCH) if active(name, SEARCH, values)]
        assert np.allclose(CUBE.point(values), row, atol=1e-9)
        assert all(row[i] == IDLE for i, name in enumerate(CUBE.names) if name not in values)
    assert (CUBE.possible(rows) == rows).all()


def test_rows_of_one_configuration_are_one_row() -> None:
    rows = np.full((40, 6), 0.1)
    rows[:, 1] = np.linspace(0, 0.05, 40)  # S_N from 5 to 8
    rows[:, 4] = np.linspace(0, 0.19, 40)
    possible = CUBE.possible(rows)
    assert len(np.unique(possible, axis=0)) == len({str(CUBE.values(row)) for row in possible}) == 3


def test_the_ends_stay_in_the_domains() -> None:
    low, high = (CUBE.values(CUBE.possible(np.full((1, 6), u))[0]) for u in (0.0, 1.0))
    assert low == {"kind": "superpixel", "S_N": 5, "K": [4, 7], "p": 0.1, "x": pytest.approx(0.1)}
    assert high == {"kind": "none", "p": 0.5, "x": 10}


def test_only_a_choice_without_order_is_spread_over_axes() -> None:
    features = CUBE.features(np.array([CUBE.point({"kind": "grid", "K": [56, 112], "p": 0.1, "x": 1.0})]))
    assert features.shape == (1, 8)
    assert features[0, -3:].tolist() == [0, 1, 0]
    assert features[0, 1] == 2.5 / 3
    mixed = parse_search({"a": {"choice": [1, 3, 2]}, "b": {"choice": [True, False, None]}, "c": {"choice": [3, 2, 1]}})
    assert Cube(mixed).features(np.full((1, 3), 0.5)).shape == (1, 7)
    assert CUBE.conditional == [1, 2, 3]
