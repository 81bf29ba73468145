"""Learning from earlier sweeps: which trials count, that they stay out of everything else, and what is refused."""

from pathlib import Path
from platform.reports.ranking import in_order
from platform.search.study import State, Study
from typing import Any

import pytest

from cpn.core.errors import InputError
from tests.platform.search.test_study import SEARCH, ask, make_study


def finished(folder: Path, name: str = "early", trials: int = 15, **changes: Any) -> Study:
    """A sweep whose best has the largest w_tcp; one trial pruned, one failed, one under way."""
    study = make_study(folder, f"name={name}", **changes)
    for number in range(trials):
        row = ask(study)
        if number == 2:
            study.report(row.uid, 4, 99.0)
            study.tell(row.uid, State.PRUNED)
        elif number == 3:
            study.tell(row.uid, State.FAIL, reason="no luck")
        elif number != 4:
            study.tell(row.uid, State.COMPLETE, row.values["loss.w_tcp"])
    return study


def warm(folder: Path, *sets: str, **changes: Any) -> Study:
    return make_study(folder, "search_options.warm_start=[early]", *sets, **changes)


def test_the_best_earlier_trial_runs_after_the_reference(tmp_path: Path) -> None:
    best = in_order(finished(tmp_path).rows())[0]
    study = warm(tmp_path)
    assert study.warm_trials == 12
    first, second = ask(study), ask(study)
    assert (first.role, first.number) == ("reference", 0)
    assert (second.role, second.values) == ("search", best.values)
    assert second.attrs["warm_start_from"] == best.uid
    third = ask(study)
    assert third.number == 2 and "warm_start_from" not in third.attrs
    assert [row.number for row in study.rows()] == [0, 1, 2]
    assert all(row.miou is None for row in study.rows())
    assert sum(study.counts().values()) == 3  # what budgets count


def test_a_restart_draws_the_same_whatever_the_earlier_did(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        finished(tmp_path / folder)
    through, stopped = warm(tmp_path / "a"), warm(tmp_path / "b")
    one, two = [], []
    for number in range(5):
        if number in (1, 3):
            late = make_study(tmp_path / "b", "name=early")
            late.tell(ask(late).uid, State.COMPLETE, 999.0)
            stopped = warm(tmp_path / "b")
        for study, seen in ((through, one), (stopped, two)):
            row = ask(study)
            seen.append(row.values)
            study.tell(row.uid, State.COMPLETE, row.values["loss.w_tcp"])
    assert one == two
    assert [row.attrs.get("warm_start_from") is not None for row in stopped.rows()] == [
        False,
        True,
        False,
        False,
        False,
    ]


def test_it_draws_better_from_the_start(tmp_path: Path) -> None:
    finished(tmp_path, trials=40)

    def mean(study: Study) -> float:
        return float(sum(ask(study).values["loss.w_tcp"] for _ in range(10)) / 10)

    assert mean(warm(tmp_path)) > 1.5 * mean(make_study(tmp_path, "name=cold"))


def test_trials_outside_a_narrower_search_are_left_out(tmp_path: Path) -> None:
    early = finished(tmp_path)
    narrow = {**SEARCH, "loss.w_tcp": {"float": [0.5, 10], "log": True}}
    inside = [row for row in early.rows() if row.miou is not None and row.values["loss.w_tcp"] >= 0.5]
    assert 0 < warm(tmp_path, search=narrow).warm_trials == len(inside) < 12


def test_a_name_that_was_fixed_there_takes_its_value_there(tmp_path: Path) -> None:
    finished(tmp_path)
    wider = {**SEARCH, "patches.p_h": {"float": [0.1, 0.5], "step": 0.1}}
    study = warm(tmp_path, search=wider)
    ask(study)
    assert study.warm_trials == 12 and ask(study).values["patches.p_h"] == 0.5


def test_the_reference_is_not_run_twice(tmp_path: Path) -> None:
    early = make_study(tmp_path, "name=early")
    early.tell(ask(early).uid, State.COMPLETE, 5.0)
    study = warm(tmp_path)
    ask(study)
    assert study.warm_trials == 1 and "warm_start_from" not in ask(study).attrs


@pytest.mark.parametrize(
    ("sets", "changes", "said"),
    [
        (["search_options.warm_start=[none]"], {}, "warm_start: none: no such sweep in .*; there are: early"),
        (["patches.guard=true"], {}, "warm_start: early: .*base.patches.guard was False, is True; undo"),
        (["search.loss.w_tcp=null"], {}, "warm_start: early: loss.w_tcp is searched there and fixed here"),
        (["search.loss.w_tcp.float=[20, 30]"], {}, "warm_start: early: none of its 12 complete trials lies in this"),
        (["search_options.sampler=random"], {}, "warm_start: random learns from nothing; take gp or tpe"),
        (["search_options.warm_start=[small]"], {}, "warm_start: small is this sweep itself"),
        (["search_options.warm_start=[early, early]"], {}, "warm_start: a sweep stands there twice"),
        (["search_options.warm_start=[early.confirm]"], {}, "warm_start: early.confirm holds the confirm runs .*early"),
        (["search_options.warm_start=early"], {}, "warm_start: write a list of the sweeps' names"),
        (["search_options.warm_start=null"], {}, "warm_start: write a list of the sweeps' names"),
        (["search_options.warm_start=[1]"], {}, "warm_start: 1: no such sweep"),
        (["search_options.warm_start=[[1]]"], {}, "warm_start: write a list of the sweeps' names"),
        (
            [],
            {"search": {**SEARCH, "cam.beta": {"float": [0.2, 0.8]}}},
            r"early: .*search.cam.beta.within was None, is \[0.2, 0.8\]",
        ),
    ],
)
def test_what_says_nothing_here_is_refused_in_one_line(
    tmp_path: Path, sets: list[str], changes: dict[str, Any], said: str
) -> None:
    finished(tmp_path)
    with pytest.raises(InputError, match=said) as error:
        warm(tmp_path, *sets, **changes)
    assert "\n" not in str(error.value) and "search_options" in str(error.value)


def test_a_refused_start_leaves_no_trial_behind(tmp_path: Path) -> None:
    finished(tmp_path)
    with pytest.raises(InputError):
        warm(tmp_path, "search_options.warm_start=[none]")
    assert warm(tmp_path).warm_trials == 12
    with pytest.raises(InputError, match="search_options.warm_start was"):
        warm(tmp_path, "search_options.warm_start=[]")
