"""What a sweep says where Python code runs it: lines for its logging, nothing on the screen."""

import logging
from platform.base.logged_terminal import LOGGER, LoggedTerminal

import pytest


def test_lines_and_warnings_have_their_levels(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "platform.api"):
        terminal = LoggedTerminal()
        terminal.say("50 % of [bold]it[/bold]")
        terminal.warn("slow")
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines == [("INFO", "50 % of [bold]it[/bold]"), ("WARNING", "slow")]


def test_nothing_reaches_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    """Python prints warnings of a logger that has no handler."""
    terminal = LoggedTerminal()
    terminal.warn("slow")
    terminal.table("t", ["a"], [["b"]])
    with terminal.progress() as progress:
        progress("packing", 1, 2)
    with terminal.stage("cam", "images", 3) as bar:
        bar.at(3)
    assert capfd.readouterr() == ("", "") and LOGGER.name == "platform.api"
