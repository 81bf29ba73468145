"""Plots of a search by hand: places in a domain, areas, and what there is too little to draw."""

import io
from pathlib import Path
from platform.reports import plots
from platform.reports.plots import ABSENT, is_flat_area, points, rung_scatter, setting_words, unit
from platform.search.study import REFERENCE, State, TrialRow

import numpy as np
import pytest
from PIL import Image

from tests.platform.reports.html.test_figures import row
from tests.platform.reports.test_importances import make_spec, trials


def test_places_by_hand(tmp_path: Path) -> None:
    search = make_spec(tmp_path).search
    assert unit(search, "loss.w_tcp", 1.0) == pytest.approx(0.5) and unit(search, "loss.w_tcp", 99.0) == 1
    assert [unit(search, "patches.K", k) for k in ([4, 8], [8, 16], [1, 2])] == [0, 1, 0.5]
    assert unit(search, "loss.w_cpcr", 1.0) == 0.5 and ABSENT < 0
    rows = [row for row in trials(20) if "patches.S_N" in row.values and row.state is State.COMPLETE]
    at, values = points(search, trials(20), ("loss.w_tcp", "patches.S_N"))
    assert at.shape == (len(rows), 2) and at[0, 0] == pytest.approx(np.log10(rows[0].values["loss.w_tcp"]))
    assert values.tolist() == [row.miou for row in rows]
    assert is_flat_area(np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]))
    assert not is_flat_area(np.array([[0.0, 0], [1, 1], [2, 2], [3, 3]]))
    assert not is_flat_area(np.array([[0.0, 0], [1, 0], [2, 0], [3, 0]])) and not is_flat_area(np.zeros((9, 2)))
    assert (setting_words([4, 8]), setting_words(0.12345), setting_words(["superpixel", "grid"])) == (
        "4,8",
        "0.123",
        "superpixel or grid",
    )


def test_a_rung_that_nobody_reached_has_no_plot() -> None:
    row = TrialRow(0, "s-0000", State.COMPLETE, {}, 0, "search", 50.0, reports={})
    assert rung_scatter([row], "miou", 0.5, lambda _: {0.5: 4}, None) is None
    drawn = rung_scatter([TrialRow(0, "s", State.COMPLETE, {}, 0, "search", 50.0, reports={4: 1.0})], "miou", 0.5,
                         lambda _: {0.5: 4}, None)  # fmt: skip
    assert drawn is not None and Image.open(io.BytesIO(drawn)).format == "PNG"


def test_of_many_the_best_half_and_an_even_choice_of_the_rest() -> None:
    rows = [row(i, float((i * 37) % 1000), REFERENCE if i == 400 else "search") for i in range(1000)]
    some = plots.fewer(rows, 100)
    assert len(some) == len({r.number for r in some}) == 100 and some == sorted(some, key=lambda r: r.number)
    assert 400 in [r.number for r in some]
    values = sorted((r.miou or 0 for r in some), reverse=True)
    assert values[:49] == [999.0 - i for i in range(49)]
    rest = [r.number for r in some if (r.miou or 0) < 950]
    assert max(b - a for a, b in zip(rest, rest[1:], strict=False)) < 60
    assert plots.fewer(rows[:100], 100) == rows[:100]
    assert plots.how_many(rows) == "500 of 1,000 trials are drawn: the best 250 and an even choice of the others"
    assert plots.how_many(rows[:7]) == "7 trials"
    assert plots.how_many(rows[:1], "complete trials") == "1 complete trial"
