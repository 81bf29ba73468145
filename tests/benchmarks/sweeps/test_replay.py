"""A table of scores as something to search on: what is known at its points, its optimum, error and noise."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.sweeps import replay, tables
from benchmarks.sweeps.search import FAMILIES, objective
from benchmarks.sweeps.tables import WHOLE, Row
from cpn.core.errors import InputError

NOISE = 0.2


def made_up(values: dict[str, object]) -> float:
    grid = values["patches.kind"] == "grid"
    return 50 + 3 * grid - 40 * (float(str(values["patches.p_h"])) - 0.4) ** 2


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    rng, made = np.random.default_rng(0), []
    for point, values in enumerate(tables.drawn_points(tables.scenes())[:80]):
        for seed in range(2 if point < 40 else 1):
            score = made_up(values) + NOISE * float(rng.standard_normal())
            made.append(Row(point, seed, WHOLE, values, [score], score, score, 0.5, 10.0))
        made.append(Row(point, 0, "half_epochs", values, [0.0], 0.0, 0.0, 0.5, 5.0))
    return made


def test_it_finds_what_the_rows_were_made_of(rows: list[Row]) -> None:
    table = replay.Replay(rows, tables.search_of("scenes"))
    assert table.points == 80
    assert table.noise == pytest.approx(NOISE, rel=0.4)
    assert table.error < 3 * NOISE < table.spread
    assert table.optimum == pytest.approx(53, abs=0.4)
    wrong = [table.true_miou(row.values) - made_up(row.values) for row in rows]
    assert float(np.std(wrong)) < 1.5 * NOISE


def test_left_out_points_are_truly_left_out(rows: list[Row]) -> None:
    """The formula against fits without the point, the kernel held."""
    from sklearn.gaussian_process import GaussianProcessRegressor

    rng = np.random.default_rng(1)
    at = rng.random((12, 2))
    scores = np.sin(3 * at[:, 0]) + at[:, 1]
    fit = replay.fitted(at, scores)
    found = replay.left_out(fit, scores)
    scaled = (scores - scores.mean()) / scores.std()
    for i in range(len(scores)):
        rest = np.arange(len(scores)) != i
        other = GaussianProcessRegressor(fit.kernel_, optimizer=None).fit(at[rest], scaled[rest])
        assert found[i] == pytest.approx((scaled[i] - other.predict(at[[i]])[0]) * scores.std(), abs=1e-6)


def test_noise_needs_points_with_two_seeds(rows: list[Row]) -> None:
    with pytest.raises(InputError, match="no point with two seeds"):
        replay.seed_noise([row for row in rows if row.seed == 0])


def test_a_search_sees_the_noise_of_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: list[Row]) -> None:
    table = replay.Replay(rows, tables.search_of("scenes"))
    monkeypatch.setattr(replay, "replay", lambda family, first_half: table)
    problem = FAMILIES["scenes-first"](0)
    assert problem.note.startswith("80 points, error of a point left out ")
    values = rows[0].values
    seen = [objective(problem, 0)(values, number)[1] for number in range(300)]
    assert float(np.std(seen)) == pytest.approx(table.noise, rel=0.2)
    assert float(np.mean(seen)) == pytest.approx(table.true_miou(values), abs=0.1)


def test_a_table_with_few_points_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(replay, "TABLES", tmp_path)
    with pytest.raises(InputError, match="has 0 points in this half and needs 20; python -m benchmarks tables"):
        replay.replay("scenes", True)
