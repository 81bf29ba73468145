"""Optuna's GPSampler on a simulated problem: when it has found, and when it is given up."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.sweeps import gp_sampler
from benchmarks.sweeps.search import published


def test_trials_are_counted_to_the_first_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Mapping[str, Any]] = []

    def score(values: Mapping[str, Any]) -> float:
        drawn.append(values)
        return 60.0 if len(drawn) >= 5 else 0.0  # asked twice about each trial that is not good: it is the third

    monkeypatch.setattr(gp_sampler, "CAP", 4)
    assert gp_sampler.gp_sampler(replace(published(0), true_miou=score, optimum=60.0), 0) == 3
    assert all(("patches.K" in values) == (values["patches.kind"] == "grid") for values in drawn)
    assert gp_sampler.gp_sampler(replace(published(0), true_miou=lambda values: 0.0, optimum=60.0), 0) == 4


def test_the_ratio_is_printed_with_its_misses(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = gp_sampler.compared("gp_sampler_ratio", {"ours": [10.0, 20.0], "gp_sampler": [40.0, gp_sampler.CAP]})
    assert numbers["gp_sampler_ratio"] == pytest.approx((0.25 * 20 / gp_sampler.CAP) ** 0.5)
    assert "gp_sampler: median 95, 1 of 2 not found" in capsys.readouterr().out
