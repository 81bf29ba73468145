"""Importances with intervals: what mattered in made-up trials is found, what did not is not; sizes side by side."""

from dataclasses import replace
from pathlib import Path
from platform.meta.effects import PatchSize, follows, median_sides, patch_size, sweep_importances
from platform.reports.importances import main_effects
from platform.reports.snapshot import SweepSnapshot
from platform.search.study import State, TrialRow
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.platform.reports.test_importances import SEARCH, make_spec, trials


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit of 16 trees takes a tenth of a second, and there are hundreds."""
    monkeypatch.setattr("platform.reports.importances.TREES", 4)


def two_names(count: int) -> list[TrialRow]:
    """Trials whose score follows w_tcp alone, of two names."""
    rng = np.random.default_rng(0)
    made = []
    for row in trials(count):
        values = {"loss.w_tcp": float(10 ** rng.uniform(-1, 1)), "loss.w_cls": float(10 ** rng.uniform(-0.5, 0.4))}
        score = 50 + 8 * np.log10(values["loss.w_tcp"])
        made.append(replace(row, values=values, miou=float(score), state=State.COMPLETE))
    return made


TWO = {name: SEARCH[name] for name in ("loss.w_tcp", "loss.w_cls")}


def test_what_mattered_stands_above_chance(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    spec = make_spec(tmp_path, TWO)
    found = sweep_importances(spec.search, two_names(40), 20, 0, lambda done, total: heard.append((done, total)))
    tcp, cls = found["loss.w_tcp"], found["loss.w_cls"]
    assert tcp.mattered and not cls.mattered and cls.share < cls.high < tcp.low < tcp.share
    assert heard[-1] == (20, 20) and tcp.trials == 40


def test_a_conditional_name_counts_where_it_exists(tmp_path: Path) -> None:
    found = sweep_importances(make_spec(tmp_path).search, trials(40), 20, 0, lambda done, total: None)
    assert found["patches.S_N"].trials + found["patches.K"].trials == found["loss.w_tcp"].trials
    assert all(0 <= one.low <= one.high <= 100 for one in found.values())
    assert "cam.beta" not in found and set(found) <= set(SEARCH)


def test_equal_seeds_give_equal_intervals(tmp_path: Path) -> None:
    spec, rows = make_spec(tmp_path, TWO), two_names(20)
    one, again, other = (sweep_importances(spec.search, rows, 20, seed, lambda done, total: None) for seed in (3, 3, 4))
    assert one == again != other


def test_too_few_trials_say_nothing(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    assert sweep_importances(spec.search, trials(7), 20, 0, lambda done, total: None) == {}
    rows = [row for row in trials(20) if row.state is State.COMPLETE]
    assert main_effects(spec.search, [rows[0]] * 9, ["loss.w_tcp"], 0) == {}, "one score has no variance"


def test_the_best_quarter_gives_the_patch_size(tmp_path: Path) -> None:
    spec, rows = make_spec(tmp_path), trials(80)
    spec = spec.model_copy(update={"base": {**spec.base, "data": {"root": str(tmp_path / "none")}}})
    sweep = cast(SweepSnapshot, SimpleNamespace(spec=spec, rows=rows, store=None))
    size = patch_size(sweep)
    assert size is not None and size.low <= size.best <= size.high
    assert 10 < size.best < 160, "the made-up score is best at 40"
    assert size.object_side is None and size.patch_side is None, "the data are not here"
    narrow: Any = SimpleNamespace(spec=make_spec(tmp_path, {"loss.w_tcp": SEARCH["loss.w_tcp"]}), rows=rows, store=None)
    assert patch_size(narrow) is None


def test_sides_are_roots_of_pixels() -> None:
    truth = np.zeros((20, 30), np.uint8)
    truth[:4, :4], truth[10:18, 10:18], truth[19] = 1, 2, 255
    split: Any = SimpleNamespace(mask=lambda index: truth, __len__=None)

    class Two(SimpleNamespace):
        def __len__(self) -> int:
            return 2

    objects, image = median_sides(cast(Any, Two(mask=split.mask)))
    assert (objects, image) == (6.0, pytest.approx(600**0.5))


def test_a_trend_needs_sweeps_and_an_order() -> None:
    def size(best: float, side: float) -> PatchSize:
        return PatchSize(best, best, best, side, 100.0)

    assert "2 sweeps can be compared, 4 are needed" in follows([size(9, 5), size(4, 8)])
    rising = [size(100 / n**2, 10.0 * n) for n in range(1, 7)]
    assert "larger objects go with larger best patches: rank correlation +1.00" in follows(rising)
    mixed = [size(100 / n**2, side) for n, side in zip(range(1, 6), (3, 1, 4, 2, 3.5), strict=True)]
    assert "no trend is shown" in follows(mixed)
