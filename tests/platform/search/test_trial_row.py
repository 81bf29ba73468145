from dataclasses import FrozenInstanceError, replace
from platform.search.trial_row import State, TrialRow

import optuna
import pytest


def row(reports: dict[int, float]) -> TrialRow:
    return TrialRow(3, "patch-0003", State.RUNNING, {}, 7, "search", reports=reports)


def test_states_are_optunas_by_name() -> None:
    assert {state.value for state in State} == {state.name for state in optuna.trial.TrialState}


def test_a_trial_that_ended_in_any_way_is_finished() -> None:
    finished = {state for state in State if state.finished}
    assert finished == {State.COMPLETE, State.PRUNED, State.FAIL}
    assert finished == {State(state.name) for state in optuna.trial.TrialState if state.is_finished()}


@pytest.mark.parametrize(("reports", "last"), [({}, 0), ({1: 40.0}, 1), ({4: 1.0, 2: 3.0}, 4)])
def test_the_last_epoch_is_the_highest_that_was_reported(reports: dict[int, float], last: int) -> None:
    assert row(reports).epochs == last


def test_a_row_is_frozen_and_shares_nothing_with_another() -> None:
    with pytest.raises(FrozenInstanceError):
        row({}).miou = 1.0  # type: ignore[misc]
    one, other = (TrialRow(n, f"p-{n:04d}", State.WAITING, {}, 0, "search") for n in (0, 1))
    one.attrs["x"] = 1
    assert other.attrs == {} and (one.miou, one.beta, one.reason) == (None, None, None)


def test_attributes_are_read_by_name_and_kind() -> None:
    assert {row({}).run_key, row({}).seconds, row({}).confirms, row({}).race_round, row({}).table_row} == {None}
    attrs = {
        "run_key": "0a",
        "seconds": 30,
        "would_prune_at": 0.5,
        "of": "p-0001",
        "race": "r",
        "round": 2,
        "row": "p_h .1",
    }
    confirm = replace(row({}), attrs=attrs)
    assert (confirm.run_key, confirm.seconds, confirm.would_prune_at) == ("0a", 30.0, 0.5)
    assert (confirm.confirms, confirm.race, confirm.race_round, confirm.table_row) == ("p-0001", "r", 2, "p_h .1")
    assert confirm.pruned_at is None and confirm.reused_from is None
