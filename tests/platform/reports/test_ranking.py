"""The order of a leaderboard, its numbers, and what is a dash."""

from dataclasses import replace
from pathlib import Path
from platform.reports.ranking import cells, configuration, heads, in_order, ranking
from platform.reports.snapshot import SweepSnapshot, read_sweep
from platform.search.study import State

import pytest

from tests.platform.made_sweep import make_sweep


def test_full_trials_come_first_then_the_others_by_state(sweep: SweepSnapshot) -> None:
    open_ones = [replace(sweep.rows[1], number=30, state=State.RUNNING, miou=None),
                 replace(sweep.rows[1], number=29, state=State.WAITING, miou=None)]  # fmt: skip
    order = in_order([*open_ones, *sweep.rows])
    states = [row.state for row in order]
    kinds = list(dict.fromkeys(states))
    assert kinds == [State.COMPLETE, State.PRUNED, State.RUNNING, State.WAITING, State.FAIL]
    values = [row.miou or 0 for row in order if row.state is State.COMPLETE]
    assert values == sorted(values, reverse=True)
    tie = [replace(sweep.rows[2], miou=50.0), replace(sweep.rows[1], miou=50.0)]
    assert [row.number for row in in_order(tie)] == [1, 2]


def test_a_trial_says_all_that_is_known(sweep: SweepSnapshot) -> None:
    entries = {entry.uid: entry for entry in ranking(sweep)}
    winner = next(entry for entry in entries.values() if "winner" in entry.marks)
    assert winner.place == 2 and winner.seeds == 3
    assert winner.confirmed == pytest.approx(42.9) and winner.interval == pytest.approx([40.9, 44.9])
    assert cells(winner)[4:8] == ["0.44", "42.9 [40.9, 44.9]", "+1.9 [0.7, 3.1]", "3"]
    assert entries["made-0000"].marks == ["reference"] and entries["made-0004"].marks == ["reused"]
    assert entries["made-0003"].marks == ["audited at 50%"]
    pruned, failed = entries["made-0006"], entries["made-0005"]
    assert (pruned.place, pruned.objective, pruned.state, pruned.epochs) == (None, None, "pruned", 2)
    assert failed.reason == "loss_total is nan in epoch 1 <b>&" and cells(failed)[3:8] == ["-"] * 5
    assert [entry.place for entry in entries.values()][:20] == list(range(1, 21))
    assert winner.gpu_hours is None and winner.hours > 0


def test_before_the_end_confirm_runs_count_as_they_come(tmp_path: Path) -> None:
    entries = ranking(read_sweep(make_sweep(tmp_path, "early", 4, ended=False), "early"))
    told = [(e.confirmed, e.seeds, e.interval) for e in entries if e.confirmed is not None]
    assert told and all(seeds == 3 and interval is None and mean > 40 for mean, seeds, interval in told)


def test_heads_name_the_images_and_cells_fit_them(sweep: SweepSnapshot) -> None:
    assert "miou % (train, select)" in heads(sweep) and "confirmed % (train, confirm)" in heads(sweep)
    assert all(len(cells(entry)) == len(heads(sweep)) for entry in ranking(sweep))
    assert configuration({"patches.S_N": 40, "loss.w_tcp": 0.12345, "patches.K": "8,16"}) == "S_N=40 w_tcp=0.123 K=8,16"
