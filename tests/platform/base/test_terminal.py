"""What a person sees: a live table on a terminal, plain lines elsewhere, times that can be read."""

import io
import os
import sys
from collections.abc import Callable
from platform.base import remaining_time
from platform.base import terminal as module
from platform.base.json_lines import JsonLines
from platform.base.remaining_time import RunPrice
from platform.base.terminal import Terminal, TrialTable, clock, remaining, shown, widths
from types import SimpleNamespace
from typing import IO

import pytest
from rich.console import Console


def plain(width: int = 80) -> tuple[Terminal, io.StringIO]:
    text = io.StringIO()
    return Terminal(Console(file=text, force_terminal=False, width=width)), text


def gone_reader() -> IO[str]:
    reads, writes = os.pipe()
    os.close(reads)
    return os.fdopen(writes, "w")


@pytest.mark.parametrize(
    "use",
    [
        lambda terminal: terminal.say("a line"),
        lambda terminal: terminal.table("a table", ["a"], [[1]]),
        lambda terminal: terminal.event("ended", code=0),
        lambda terminal: terminal.stage("cam", "images", 3).__enter__().at(0),
        lambda terminal: terminal.trials("search", 3, 3).__enter__().started("a", "b"),
    ],
)
@pytest.mark.parametrize("kind", [Terminal, JsonLines])
def test_the_work_goes_on_when_the_reader_leaves(
    use: Callable[[Terminal], None], kind: type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m platform.sweep ... | head`: the trials are worth more than their lines."""
    with gone_reader() as out:
        monkeypatch.setattr(sys, "stdout", out)
        terminal = Terminal() if kind is Terminal else JsonLines(out)
        for _ in range(3):
            use(terminal)
    said = capsys.readouterr().err.replace("warning: nobody reads standard output any more; the sweep goes on", "")
    assert said.count("without it") <= 1 and "Traceback" not in said


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, to be set."""
    at = [1000.0]
    for each in (module, remaining_time):
        monkeypatch.setattr(each, "time", SimpleNamespace(monotonic=lambda: at[0]))
    return at


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.9, "0:59"), (60, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (90061, "25:01:01")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_remaining_says_nothing_when_nothing_is_known() -> None:
    assert remaining(None) == "" and remaining(123) == ", about 2:03 left"


def test_cells() -> None:
    assert [shown(cell) for cell in (None, 54.26, 3, "x", 0.0)] == ["-", "54.3", "3", "x", "0.0"]


def test_a_long_line_is_not_broken_and_not_read_as_markup() -> None:
    terminal, text = plain(width=40)
    line = (
        "next: python -m platform.sweep s.yaml --set patches.K=[56,112] --set name=[bold]a-long-name-for-a-sweep[/bold]"
    )
    terminal.say(line)
    assert text.getvalue() == line + "\n"


def test_without_a_terminal_there_are_plain_lines(now: list[float]) -> None:
    terminal, text = plain(width=200)
    with terminal.trials("s: search", 4, epochs=8) as table:
        table.already(1, (50.0, "s-0000"))
        table.started("s-0001", "cpn grid K=8,16 p_h=0.5")
        table.started("s-0001", "cpn grid K=8,16 p_h=0.5")
        table.reported("s-0001", {"epoch": 1, "miou_epoch": 40.0})
        now[0] += 60
        table.ended("s-0001", "COMPLETE", 55.0, None)
        table.started("s-0002", "cpn superpixel S_N=40 p_h=0.3")
        now[0] += 30
        table.reported("s-0002", {"epoch": 4, "miou_epoch": 30.0})
        now[0] += 30
        table.ended("s-0002", "PRUNED", None, "after epoch 4: 1 of 1 others were better")
    said = text.getvalue()
    assert "\x1b" not in said and said.splitlines() == [
        "s: search",
        "  s-0001  started  cpn grid K=8,16 p_h=0.5",
        "  s-0001  complete  miou 55.0  best 55.0  2 of 4 trials, sweep about 2:00 left",
        "  s-0002  started  cpn superpixel S_N=40 p_h=0.3",
        "  s-0002  pruned  after epoch 4: 1 of 1 others were better  best 55.0  3 of 4 trials, sweep about 0:45 left",
    ]


def test_a_long_trial_says_its_epochs_once_a_minute(now: list[float]) -> None:
    terminal, text = plain(width=200)
    with terminal.trials("s: search", 2, epochs=8) as table:
        table.started("s-0001", "cpn grid", RunPrice(0.0, 50.0, 0.0, 4))
        for epoch in (1, 2, 3):
            now[0] += 50
            table.reported("s-0001", {"epoch": epoch, "miou_epoch": 41.26, "loss_total": 0.934})
        table.reported("s-0001", {"epoch": 4, "miou": 50.0})
    assert text.getvalue().splitlines()[2:] == [
        "  s-0001  epoch 2/4  miou_epoch 41.3  loss 0.934, trial 1:40 left, sweep about 5:00 left"
    ]


def test_a_run_that_does_not_count_is_never_the_best() -> None:
    """cam_baseline is what others are compared with."""
    text = io.StringIO()
    with Terminal(Console(file=text, force_terminal=False, width=200)).trials("s", 2, 4) as table:
        table.ended("s.confirm-0000", "COMPLETE", 60.0, None, counted=False)
        table.ended("s.confirm-0001", "COMPLETE", 50.0, None)
    lines = [line for line in text.getvalue().splitlines() if "complete" in line]
    assert "best" not in lines[0] and "miou 60.0" in lines[0] and "best 50.0" in lines[1]


def test_the_live_table_shows_every_trial_and_the_best(now: list[float]) -> None:
    console = Console(record=True, width=140, file=io.StringIO(), force_terminal=True)
    table = TrialTable(Terminal(console), "s: search", 4, 8)
    console.print(table)
    assert "no result yet" in console.export_text()
    table.started("s-0001", "cpn grid")
    table.reported("s-0001", {"epoch": 3, "miou_epoch": 41.26})
    table.started("s-0002", "cpn superpixel")
    table.reported("s-0002", {"epoch": 8, "miou": 55.04, "miou_epoch": 50.0, "beta": 0.4})
    now[0] += 30
    table.ended("s-0002", "COMPLETE", 55.04, None)
    console.print(table)
    said = console.export_text()
    assert "miou_epoch (select)" in said and "miou (select)" in said
    one, two = (next(line for line in said.splitlines() if uid in line) for uid in ("s-0001", "s-0002"))
    assert "running" in one and "3/8" in one and "41.3" in one
    assert "complete" in two and "8/8" in two and "55.0" in two
    assert "1 of 4 trials, best so far 55.0 (s-0002), 0:30 so far, sweep about 0:43 left" in said


def test_a_terminal_gets_the_table_at_once() -> None:
    text = io.StringIO()
    terminal = Terminal(Console(file=text, force_terminal=True, width=120))
    with terminal.trials("s: search", 4, epochs=8) as table:
        table.started("s-0001", "cpn grid")
        terminal.say("a line above the table")
    assert "s: search" in text.getvalue() and "cpn grid" in text.getvalue() and "a line above" in text.getvalue()


def test_only_the_last_trials_are_shown() -> None:
    console = Console(record=True, width=140, file=io.StringIO())
    table = TrialTable(plain()[0], "s", None, 8)
    for number in range(30):
        table.started(f"s-{number:04d}", "cpn")
        table.ended(f"s-{number:04d}", "COMPLETE", float(number), None)
    console.print(table)
    said = console.export_text()
    assert "s-0029" in said and "s-0018" in said and "s-0017 " not in said
    assert "30 of ? trials, best so far 29.0 (s-0029)" in said and "left" not in said


def test_a_trial_left_to_be_resumed_is_not_done(now: list[float]) -> None:
    terminal, text = plain(width=200)
    table = TrialTable(terminal, "s", 4, 8)
    table.started("s-0000", "cpn")
    now[0] += 10
    table.ended("s-0000", "resumable", None, None)
    assert "resumable  0 of 4 trials" in text.getvalue() and "left" not in text.getvalue()


def test_a_stage_says_now_and_then_how_far_it_is(now: list[float]) -> None:
    terminal, text = plain()
    with terminal.stage("random_walk", "images", 100) as bar:
        bar.at(10)
        now[0] += 20
        bar.at(40)
        now[0] += 1
        bar.at(50)
    assert text.getvalue() == "  random_walk: 40 of 100 images, about 0:30 left\n"


def test_a_stage_has_a_bar_on_a_terminal() -> None:
    text = io.StringIO()
    with Terminal(Console(file=text, force_terminal=True, width=120)).stage("deeplab", "epochs", 8) as bar:
        bar.at(8)
    assert "deeplab" in text.getvalue() and "8/8" in text.getvalue()


def test_tables_have_their_heads_and_dashes() -> None:
    terminal, text = plain(width=120)
    terminal.table("scores", ["step", "images", "mIoU %"], [("CAM", "train, confirm", 51.26), ("walk", "val", None)])
    said = text.getvalue()
    assert "scores" in said and "mIoU %" in said and "51.3" in said and " - " in said


def test_a_table_breaks_heads_first_and_words_last() -> None:
    columns = [["trial", "quickstart-seed100-0006"], ["values", "kind=grid p_h=.4 K=8,16"], ["a long head", "57.3"]]
    assert widths(columns, 200, 2) == [23, 23, 11]
    assert widths(columns, 10 + 23 + 23 + 5, 2) == [23, 23, 5], "the head has words"
    assert widths(columns, 10 + 23 + 12 + 4, 2) == [23, 12, 4]
    assert sum(widths(columns, 40, 2)) == 30, "no room: words are broken"


def test_what_a_trial_waits_for_is_shown_until_its_first_epoch(now: list[float]) -> None:
    terminal, text = plain(width=200)
    with terminal.trials("s: search", 4, epochs=8) as table:
        table.started("s-0001", "cpn superpixel S_N=40 p_h=0.3")
        table.preparing("s-0001", "superpixels", 64, 600)
        assert "superpixels" not in text.getvalue(), "a line now and then"
        now[0] += 20
        table.preparing("s-0001", "superpixels", 192, 600)
        assert text.getvalue().splitlines()[-1] == "  s-0001  superpixels 192 of 600"
        shown_now = io.StringIO()
        Console(file=shown_now, width=200).print(table)
        assert "superpixels 32 %" in shown_now.getvalue() and table.seconds_left() is None
        table.reported("s-0001", {"epoch": 1, "miou_epoch": 40.0})
        later = io.StringIO()
        Console(file=later, width=200).print(table)
        assert "superpixels 32" not in later.getvalue() and "running" in later.getvalue()
