"""Looks at made-up rows whose relation to the whole run is known."""

import argparse

import numpy as np
import pytest

from benchmarks.sweeps import fidelity, tables
from benchmarks.sweeps.fidelity import all_looks, outcome
from benchmarks.sweeps.tables import WHOLE, Row
from cpn.core.errors import InputError


def rows_of(points: int = 40) -> list[Row]:
    """Whole runs that rank alike after two of three epochs and at the end, and a cheap form that ranks in reverse."""
    rng, rows = np.random.default_rng(0), []
    for point in range(points):
        score = 50 + 5 * float(rng.standard_normal())
        epochs = [float(rng.standard_normal()), score - 10, score]
        rows += [
            Row(point, 0, WHOLE, {}, epochs, score, score, 0.5, 10.0),
            Row(point, 1, WHOLE, {}, epochs, score + 1, score, 0.5, 12.0),
            Row(point, 0, "half_images", {}, epochs, 100 - score, score, 0.5, 4.0),
        ]
    return rows


def test_each_look_says_what_it_was_made_to_say() -> None:
    looks = {look.name: look for look in all_looks(rows_of())}
    assert list(looks) == ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3", "half images", "another seed"]
    assert abs(looks["epoch 1 of 3"].correlation) < 0.35 and looks["epoch 1 of 3"].deviation > 3
    assert looks["epoch 2 of 3"].correlation == pytest.approx(1) and looks["epoch 2 of 3"].deviation < 1e-6
    assert looks["half images"].correlation == pytest.approx(-1)
    assert [round(look.cost, 3) for look in looks.values()] == [0.333, 0.667, 1.0, 0.4, 1.2]


def test_a_rule_by_hand() -> None:
    """Five trials of four epochs; the fifth is the worst at half and the best at the end."""
    rows = [Row(i, 0, WHOLE, {}, [0, half, 0, end], end, end, 0.5, 1) for i, (half, end) in
            enumerate([(40, 50), (41, 51), (42, 52), (43, 53), (30, 60)])]  # fmt: skip
    assert outcome(0.5, 2.0, rows) == (18 / 20, 7)
    assert outcome(0.5, 2.0, rows[:4]) == (1, 0), "no trial is stopped before four others were at the rung"


def test_a_half_with_few_points_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace(family="scenes", half="both", quick=False, json=False)
    monkeypatch.setattr(tables, "read_rows", lambda path: rows_of(points=7))
    with pytest.raises(InputError, match="no look at 8 points of this half; python -m benchmarks tables"):
        fidelity.run(options)
    monkeypatch.setattr(tables, "read_rows", lambda path: rows_of(points=8))
    numbers = fidelity.run(options)
    assert numbers["correlation, half images"] == -1
    printed = capsys.readouterr().out
    assert (
        "| half images | 8 | -1.00 [-1.00, -1.00] |" in printed
        and "| from 50% of the schedule on, one in 2 |" in printed
    )
