"""Random landscapes: the same for a seed, with an optimum that no draw is above, and the shapes that they claim."""

from platform.config.space import domains
from platform.config.space.unit_cube import from_unit
from typing import Any

import numpy as np
import pytest

from benchmarks.sweeps.landscapes import SHAPES, Landscape
from benchmarks.sweeps.search import FAMILIES


def draws(landscape: Landscape, count: int) -> list[dict[str, Any]]:
    search, rng, found = domains.parse_search(landscape.search), np.random.default_rng(0), []
    for _ in range(count):
        values: dict[str, Any] = {}
        for name in domains.ordered(search):
            if domains.active(name, search, values):
                values[name] = from_unit(domains.drawn(search)[name], float(rng.random()))
        found.append(values)
    return found


@pytest.fixture(scope="module")
def landscapes() -> list[Landscape]:
    return [Landscape(seed) for seed in range(3)]


def test_a_seed_has_one_landscape(landscapes: list[Landscape]) -> None:
    again = Landscape(1)
    values = draws(again, 20)
    assert [again.true_miou(v) for v in values] == [landscapes[1].true_miou(v) for v in values]
    assert again.optimum == landscapes[1].optimum != landscapes[0].optimum
    assert FAMILIES["landscapes"](1).optimum == again.optimum


def test_no_draw_is_above_the_optimum(landscapes: list[Landscape]) -> None:
    for landscape in landscapes:
        best = max(landscape.true_miou(values) for values in draws(landscape, 300))
        assert landscape.optimum - 6 < best <= landscape.optimum + 1e-9


def test_shapes_take_turns(landscapes: list[Landscape]) -> None:
    assert [landscape.shape for landscape in landscapes] == list(SHAPES)
    smooth, plateau, flat = (
        np.array([landscape.true_miou(values) for values in draws(landscape, 300)]) for landscape in landscapes
    )
    assert (plateau == plateau.min()).mean() > 0.35 and (smooth == smooth.min()).sum() == 1
    assert flat.std() < 0.5 * smooth.std()


def test_each_kind_has_names_and_heights_of_its_own(landscapes: list[Landscape]) -> None:
    for landscape in landscapes:
        by_kind: dict[str, list[float]] = {}
        for values in draws(landscape, 200):
            assert ("patches.K" in values) != ("patches.S_N" in values)
            by_kind.setdefault(values["patches.kind"], []).append(landscape.true_miou(values))
        one, other = by_kind.values()
        assert abs(max(one) - max(other)) > 0.05
