"""What pruning costs and saves: correlation, regret and hours by hand, and a pruner that switches itself off."""

import math
from pathlib import Path
from platform.cluster.tune_searcher import StudyPruner, StudySearcher
from platform.config.sections import Pruning
from platform.search.pruning import audited
from platform.search.pruning_audit import (
    LEAST_PAIRS,
    Agreement,
    account,
    agreement,
    bounds,
    hours_saved,
    is_too_low,
    regret,
    spearman,
)
from platform.search.study import State, Study, TrialRow
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.platform.search.test_study import make_study

RUNG = 0.5
EPOCHS = 8


def row(
    number: int, early: float, miou: float | None = None, *, marked: bool = False, epochs: int = EPOCHS, **more: Any
) -> TrialRow:
    """A trial with `early` at half of its schedule: finished with `miou`, or pruned there."""
    state = State.PRUNED if miou is None else State.COMPLETE
    attrs = {"pruned_at": RUNG} if miou is None else {"would_prune_at": RUNG} if marked else {}
    reports = {epochs // 2: early} | ({} if miou is None else {epochs: miou})
    values = {} if epochs == EPOCHS else {"train.epochs": epochs}
    return TrialRow(
        number, f"s-{number:04d}", state, values, 0, "search", miou, reports=reports, attrs={**attrs, **more}
    )


def rungs_of(trial: TrialRow) -> dict[float, int]:
    return {RUNG: int(trial.values.get("train.epochs", EPOCHS)) // 2}


def measured(rows: list[TrialRow]) -> Agreement:
    return agreement(rows, RUNG, rungs_of)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 4)), min_size=3, max_size=30))
def test_the_weighted_correlation_is_scipys(members: list[tuple[int, int, int]]) -> None:
    first, second, weights = (np.array(column, float) for column in zip(*members, strict=True))
    found = spearman(first, second, weights)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert found is None
        return
    count = weights.astype(int)
    expected = stats.spearmanr(np.repeat(first, count), np.repeat(second, count)).statistic
    assert found == pytest.approx(expected, abs=1e-9)


def test_bounds_by_hand() -> None:
    low, high = bounds(0.5, np.ones(12))
    half = 1.959964 * math.sqrt((1 + 0.125) / 9)
    assert low == pytest.approx(math.tanh(math.atanh(0.5) - half), abs=1e-6)
    assert high == pytest.approx(math.tanh(math.atanh(0.5) + half), abs=1e-6)
    assert bounds(0.5, np.ones(3)) == (None, None)
    wider = bounds(0.5, np.array([5.0] + [1.0] * 11))  # one member that stands for five makes the sample smaller
    assert wider[0] is not None and wider[0] < low


def test_without_pruning_it_is_the_plain_correlation() -> None:
    rows = [row(n, early, final) for n, (early, final) in enumerate(zip([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], strict=True))]
    found = measured(rows)
    assert (found.trials, found.audited) == (5, 0)
    assert found.correlation == pytest.approx(stats.spearmanr([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]).statistic)


def test_audited_trials_stand_for_the_pruned_ones() -> None:
    """Among the survivors the order is random; that the pruned half was worse is known by the audited alone."""
    kept = [row(n, 50 + n, final) for n, final in enumerate([60, 58, 61, 59])]
    ran_on = [row(10, 10, 20, marked=True), row(11, 12, 25, marked=True)]
    pruned = [row(20 + n, 11 + n / 10) for n in range(4)]
    found = measured([*kept, *ran_on, *pruned])
    assert (found.trials, found.audited) == (6, 2)
    weights = [1, 1, 1, 1, 3, 3]  # two stand for two and four
    early, late = [50, 51, 52, 53, 10, 12], [60, 58, 61, 59, 20, 25]
    expected = stats.spearmanr(np.repeat(early, weights), np.repeat(late, weights)).statistic
    assert found.correlation == pytest.approx(expected)
    alone = measured(kept).correlation
    assert alone is not None and found.correlation is not None and found.correlation > alone + 0.5


def test_schedules_of_another_length_are_compared_at_their_half() -> None:
    rows = [row(0, 1, 1), row(1, 2, 2, epochs=20), row(2, 3, 3, epochs=2)]
    assert measured(rows).correlation == pytest.approx(1)
    stopped_before = TrialRow(3, "s-0003", State.FAIL, {}, 0, "search", reports={2: 9.0})
    assert measured([*rows, stopped_before]).trials == 3


def test_too_few_or_equal_trials_have_no_correlation() -> None:
    assert measured([]).correlation is None
    assert measured([row(0, 1, 1), row(1, 2, 2)]).correlation is None
    assert measured([row(n, 1, n) for n in range(5)]).correlation is None
    assert "not measured" in str(measured([]))


def test_when_it_is_too_low() -> None:
    options = Pruning(min_audited=4, min_rank_correlation=0.3)
    low = Agreement(LEAST_PAIRS, 4, 0.29, -0.4, 0.7)
    assert is_too_low(low, options)
    assert not is_too_low(Agreement(LEAST_PAIRS, 4, 0.3, -0.4, 0.7), options)
    assert not is_too_low(Agreement(LEAST_PAIRS, 3, 0.0, None, None), options)
    assert not is_too_low(Agreement(LEAST_PAIRS - 1, 4, 0.0, None, None), options)
    assert not is_too_low(Agreement(20, 9, None, None, None), options)
    assert not is_too_low(low, Pruning(min_rank_correlation=None))
    assert not is_too_low(Agreement(20, 0, 0.0, None, None), Pruning(min_audited=0))


def test_regret_by_hand() -> None:
    others = [row(0, 5, 50), row(1, 6, 54)]
    ran_on = [row(n, 1, miou, marked=True) for n, miou in ((10, 40), (11, 52), (12, 57))]
    found = regret([*others, *ran_on, *(row(20 + n, 1) for n in range(2))])
    assert (found.audited, found.unseen, found.best_audited, found.best_other, found.points) == (3, 2, 57, 54, 3)
    assert found.better == 1
    # Of 3 one is better: Clopper and Pearson's upper bound solves P(Binomial(3, q) <= 1) = .05, q = .8647.
    assert found.better_unseen_at_most == int(2 * 0.8647)
    # The larger of two draws from {40, 52, 57} is 57 with probability 5/9, and that is 3 above.
    assert found.expected_loss == pytest.approx(3 * 5 / 9)


def test_regret_without_an_audit_is_not_known() -> None:
    found = regret([row(0, 5, 50), row(1, 1)])
    assert (found.points, found.better_unseen_at_most, found.expected_loss) == (None, None, None)
    assert regret([]).points is None
    nothing_lost = regret([row(0, 5, 50), row(1, 1, 40, marked=True)])
    assert (nothing_lost.points, nothing_lost.expected_loss, nothing_lost.better_unseen_at_most) == (-10, 0.0, 0)


def test_hours_saved_by_hand() -> None:
    full = [row(0, 5, 50, seconds=3600.0), row(1, 6, 54, seconds=7200.0), row(2, 6, 54, seconds=0.0)]  # one was reused
    pruned = [row(10, 1), row(11, 1, epochs=20)]  # half of the schedule each
    assert hours_saved([*full, *pruned], lambda trial: int(trial.values.get("train.epochs", 8))) == pytest.approx(1.5)
    assert hours_saved(full, lambda trial: 8) == 0
    assert hours_saved(pruned, lambda trial: 8) is None


def test_the_account_says_everything() -> None:
    rows = [row(n, 50 + n, 60 + n, seconds=3600.0) for n in range(8)]
    rows += [row(10 + n, 10 + n, 70 if n == 3 else 20 + n, marked=True, seconds=3600.0) for n in range(4)]
    rows += [row(20 + n, 5 + n) for n in range(6)]
    found = account(rows, Pruning(), EPOCHS, 2, {"0.5": "pruning is switched off at 50%"})
    assert found.gpu_hours_saved == pytest.approx(6.0) and found.rungs[0].audited == 4
    said = "\n".join(found.words)
    assert "pruning stopped 6 of 18 trials; 6.00 GPU-hours saved" in said
    assert "4 would-be-pruned trials ran on: pruning them would have cost 3.0 miou (70.0 became 67.0)" in said
    assert "rank correlation of 50% of the schedule with its end" in said and "pruning is switched off" in said
    on_cpu = account(rows, Pruning(), EPOCHS, 0, {})
    assert "3.00 hours of trials saved" in on_cpu.words[0]
    assert account([], Pruning(), EPOCHS, 1, {}).words == ()
    assert account(rows[:3], Pruning(kind="none"), EPOCHS, 1, {}).rungs == ()


# The pruner that measures itself. Trials run one after the other through the searcher, as Tune would drive them.


def quick_study(folder: Path) -> Study:
    return make_study(folder, "budget.trials=90", "search_options.sampler=random")


def drive(study: Study, early: list[float], final: list[float], heard: list[str], **options: Any) -> list[str]:
    """Run simulated trials with these values at half of the schedule and at the end; each one's decision there."""
    search = StudySearcher(study, None)
    scheduler = StudyPruner(study, search, Pruning(**options), 0, EPOCHS, heard.append)
    decisions = []
    for name, (value, miou) in enumerate(zip(early, final, strict=True)):
        config = search.suggest(str(name))
        assert isinstance(config, dict)
        trial: Any = SimpleNamespace(config=config)
        result = {"epoch": EPOCHS // 2, "miou_epoch": value}
        decisions.append(scheduler.on_trial_result(None, trial, result))
        if decisions[-1] == "CONTINUE":
            result = {"epoch": EPOCHS, "miou_epoch": miou, "miou": miou}
        search.on_trial_complete(str(name), result)
    return decisions


def curves(count: int, agree: bool, seed: int = 0) -> tuple[list[float], list[float]]:
    """Values at half and at the end that agree in their order, or have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    early = rng.permutation(count) + 1.0
    return list(early), list(early + 30) if agree else list(rng.permutation(count) + 31.0)


def test_the_first_would_be_pruned_all_run_on(tmp_path: Path) -> None:
    study, heard = quick_study(tmp_path), list[str]()
    early, final = curves(60, agree=True)
    decisions = drive(study, early, final, heard, min_audited=4, audit=0.1)
    marks = [r.number for r in study.rows() if "would_prune_at" in r.attrs]
    stopped = [number for number, decision in enumerate(decisions) if decision == "STOP"]
    assert len(stopped) > 15 and max(marks[:4]) < min(stopped)
    assert all(audited(number, 0, 0.1) for number in marks[4:]) and not any(audited(n, 0, 0.1) for n in stopped)
    assert heard == [] and study.remembered("pruning")["off"] == {}
    assert {r.attrs["pruned_at"] for r in study.rows() if r.state is State.PRUNED} == {0.5}


def test_it_switches_off_where_the_rung_foretells_nothing(tmp_path: Path) -> None:
    study, heard = quick_study(tmp_path), list[str]()
    early, final = curves(40, agree=False, seed=1)
    decisions = drive(study, early, final, heard)
    assert len(heard) == 1 and heard[0].startswith("pruning is switched off at 50% of the schedule")
    assert "0.3 is asked for" in heard[0] and study.remembered("pruning")["off"] == {"0.5": heard[0]}
    off_since = max((n for n, decision in enumerate(decisions) if decision == "STOP"), default=-1)
    assert off_since < 20 and sum("would_prune_at" in r.attrs for r in study.rows()) > 8  # the evidence goes on

    again, more = quick_study(tmp_path), list[str]()
    after = drive(again, *curves(12, agree=True), more)
    assert set(after) == {"CONTINUE"} and more == heard  # off for good, and said again
    found = account(again.rows(), Pruning(), EPOCHS, 1, again.remembered("pruning")["off"])
    assert found.words[-1] == heard[0]


def test_a_restart_decides_as_an_uninterrupted_search(tmp_path: Path) -> None:
    early, final = curves(30, agree=True, seed=3)
    whole_folder, parts_folder = tmp_path / "whole", tmp_path / "parts"
    whole_folder.mkdir()
    parts_folder.mkdir()
    whole = drive(quick_study(whole_folder), early, final, [])
    parts: list[str] = []
    for at in range(0, 30, 6):
        study = quick_study(parts_folder)
        parts += drive(study, early[at : at + 6], final[at : at + 6], [])
    assert parts == whole and "STOP" in whole


def test_without_an_audit_or_a_threshold_it_never_doubts(tmp_path: Path) -> None:
    early, final = curves(24, agree=False, seed=1)
    for name, options in (("a", {"audit": 0}), ("b", {"min_rank_correlation": None})):
        (tmp_path / name).mkdir()
        heard: list[str] = []
        decisions = drive(quick_study(tmp_path / name), early, final, heard, **options)
        assert heard == [] and decisions.count("STOP") > 3
