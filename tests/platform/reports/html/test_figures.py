"""The report's charts: what they hold, how many trials they draw, and what they are too few for."""

from dataclasses import replace
from platform.reports.html import figures
from platform.reports.ranking import ranking
from platform.reports.snapshot import SweepSnapshot
from platform.search.study import State, TrialRow


def row(number: int, miou: float | None, role: str = "search") -> TrialRow:
    state = State.COMPLETE if miou is not None else State.PRUNED
    return TrialRow(number, f"s-{number:04d}", state, {"loss.w_tcp": 1.0 + number}, 0, role, miou, 0.4)


def test_history_has_the_best_so_far(sweep: SweepSnapshot) -> None:
    figure = figures.history(sweep.rows, "miou")
    assert figure is not None
    by_name = {trace.name: trace for trace in figure.data}
    assert set(by_name) == {"trial", "reference", "best so far", "pruned", "failed"}
    assert list(by_name["pruned"].x) == [6, 13, 20] and list(by_name["failed"].x) == [5]
    assert by_name["best so far"].y[-1] == max(r.miou or 0 for r in sweep.rows)
    assert figures.history([row(0, None)], "miou") is None


def test_numbers_of_few_trials_are_whole(sweep: SweepSnapshot) -> None:
    few, many = figures.history(sweep.rows[:3], "miou"), figures.history(sweep.rows, "miou")
    assert few is not None and few.layout.xaxis.dtick == 1
    assert many is not None and many.layout.xaxis.dtick is None


def test_the_forest_shows_intervals_and_the_cam_baseline(sweep: SweepSnapshot) -> None:
    entries = ranking(sweep)
    figure = figures.forest(entries, 36.0, "miou")
    assert figure is not None
    trials, reference = figure.data
    assert set(trials.error_x.array) == {2.0} and list(reference.y) == ["made-0000"]
    line = figure.layout.shapes[0]
    assert line.x0 == 36.0 and (line.name, line.showlegend) == ("cam_baseline", True)
    low, high = figure.layout.xaxis.range
    assert low < 36.0 and high > max(entry.interval[1] for entry in entries if entry.interval), "no end on the edge"
    assert figures.forest([replace(entry, confirmed=None) for entry in entries], None, "miou") is None


def test_a_log_axis_names_numbers_in_full() -> None:
    assert figures.log_ticks(5, 300) == [5, 10, 20, 50, 100, 200]
    assert figures.log_ticks(0.05, 1) == [0.05, 0.1, 0.2, 0.5, 1]
    assert figures.log_ticks(5, 8000) == [10, 100, 1000], "too many for a small chart"


def test_slices_and_parallel_hold_every_name(sweep: SweepSnapshot) -> None:
    slices = figures.slices(sweep.spec, sweep.rows)
    names = ["patches.kind", "patches.S_N", "patches.K", "patches.p_h", "loss.w_tcp"]
    assert list(slices) == names
    assert slices["loss.w_tcp"].layout.xaxis.type == "log" and slices["patches.kind"].layout.xaxis.type == "category"
    superpixel = [r for r in sweep.rows if r.miou is not None and "patches.S_N" in r.values]
    assert len(slices["patches.S_N"].data[0].x) == len(superpixel)
    ticks = slices["loss.w_tcp"].data[1]
    assert (ticks.name, len(ticks.x), set(ticks.y)) == ("pruned", 3, {min(r.miou for r in sweep.rows if r.miou)})
    lines = figures.parallel(sweep.spec, sweep.rows)
    assert lines is not None
    dimensions = lines.data[0].dimensions
    assert [d.label for d in dimensions] == ["kind", "S_N (log)", "K", "p_h", "w_tcp (log)", "miou %"]
    assert len(dimensions[0]["values"]) == 23 and "absent" in dimensions[1].ticktext
    assert (
        dimensions[-1].ticktext[0] == "pruned" and list(lines.data[0].line.color).count(dimensions[-1].tickvals[0]) == 3
    )
    complete = figures.parallel(sweep.spec, [r for r in sweep.rows if r.state is State.COMPLETE])
    assert complete is not None and complete.data[0].dimensions[-1].ticktext is None
    assert figures.parallel(sweep.spec, []) is None and figures.slices(sweep.spec, []) == {}


def test_epochs_are_one_trace_with_gaps_for_each_kind(sweep: SweepSnapshot) -> None:
    figure = figures.epochs(sweep.spec, sweep.rows)
    assert figure is not None
    by_name = {trace.name: trace for trace in figure.data}
    assert set(by_name) == {"pruned", "failed or unfinished", "trial", "reference"}
    assert list(by_name["pruned"].x) == [1, 2, None] * 3
    assert figures.epochs(sweep.spec, [replace(sweep.rows[0], reports={})]) is None


def test_the_rung_shows_the_audit_apart(sweep: SweepSnapshot) -> None:
    [(figure, words)] = figures.rungs(sweep.spec, sweep.rows).values()
    by_name = {trace.name: trace for trace in figure.data}
    assert len(by_name["audit: would have been pruned"].x) == 1 and len(by_name["pruned"].x) == 3
    assert len(by_name["ran on"].x) == 19 and words.startswith("20 trials with both values; rank correlation 1.00")
    none = sweep.spec.model_copy(update={"pruning": sweep.spec.pruning.model_copy(update={"kind": "none"})})
    assert figures.rungs(none, sweep.rows) == {}


def test_the_timeline_has_a_slot_for_what_ran_at_once() -> None:
    rows = [row(0, 50.0), row(1, None), row(2, 51.0), replace(row(3, 1.0), state=State.RUNNING, miou=None)]
    rows.append(replace(row(4, 51.0), attrs={"reused_from": "key"}))
    times: dict[str, tuple[float, float | None]] = {
        "s-0000": (0.0, 60.0), "s-0001": (10.0, 40.0), "s-0002": (10.0, 120.0), "s-0003": (100.0, None),
        "s-0004": (1.0, 1.1), "s.confirm-0000": (130.0, 190.0),
    }  # fmt: skip
    again = [replace(row(0, 50.0), uid="s.confirm-0000")]
    figure = figures.timeline(rows, again, times, {"s-0002": 60.0}, 160.0)
    assert figure is not None
    bars = {bar.name: (bar.base[0], bar.x[0], bar.y[0], bar.text[0]) for bar in figure.data if bar.name != "complete"}
    assert bars == {
        "pruned": (10 / 60, 0.5, 2, "0001"), "running": (100 / 60, 1.0, 2, "0003"),
        "confirm run": (130 / 60, 1.0, 1, "0000"),
    }  # fmt: skip
    complete = next(bar for bar in figure.data if bar.name == "complete")
    assert list(complete.y) == [1, 1] and list(complete.base) == [0.0, 1.0], "what a trial held, not what it waited"
    assert figures.timeline(rows[3:4], [], times, {}, None) is None


def test_hours_leave_out_what_took_none() -> None:
    figure = figures.hours({"useful": 1.0, "failed": 0.0, "confirming": 0.5}, "GPU-hours")
    assert figure is not None and [bar.name for bar in figure.data] == ["useful", "confirming"]
    assert figures.hours({"useful": 0.0}, "GPU-hours") is None


def test_a_part_is_the_same_each_time_without_own_script(sweep: SweepSnapshot) -> None:
    def made_part() -> str:
        figure = figures.history(sweep.rows, "miou")
        return figures.part(figure, "history")

    assert made_part() == made_part() and 'id="chart-history"' in made_part()
    assert len(made_part()) < 50_000 and "</script><script" not in made_part() and "function" not in made_part()
    evil = figures.history([replace(row(0, 1.0), uid="</script><b>")], "miou")
    assert "</script><b>" not in figures.part(evil, "x")
