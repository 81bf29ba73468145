"""Lines of progress where there is no terminal."""

import io
import re

import pytest
from rich.console import Console

from cpn.core.progress import shown_progress


def test_nothing_done_or_nothing_to_do_divides_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter(range(0, 1000, 20))
    monkeypatch.setattr("time.monotonic", lambda: float(next(times)))
    with shown_progress() as progress:
        for done in (0, 0, 5, 10):
            progress("packing", done, 10)
        progress("checking", 0, 0)
    assert capsys.readouterr().out.splitlines() == [
        "packing 0 of 10",
        "packing 5 of 10, 40 s left",
        "packing 10 of 10, 0 s left",
        "checking 0 of 0",
    ]


def test_a_console_that_is_given_gets_the_bar() -> None:
    text = io.StringIO()
    with shown_progress(Console(file=text, force_terminal=True, width=120)) as progress:
        progress("packing", 4, 10)
    assert "packing" in text.getvalue() and "4/10 -:--:-- left" in re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())
