"""What a sweep would print, for Python's own logging: nothing is seen unless the program that calls us asks for it."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from cpn.core.progress import Progress, silent

from .terminal import WARNING, Lasting, Terminal

LOGGER = logging.getLogger("platform.api")
"""`logging.basicConfig(level=logging.INFO)` shows its lines."""
LOGGER.addHandler(logging.NullHandler())  # without a handler Python would print the warnings


class LoggedTerminal(Terminal):
    """Lines go to `LOGGER`, tables and bars nowhere: results hold what they show."""

    def __init__(self) -> None:
        super().__init__(Lasting(file=io.StringIO(), quiet=True, force_terminal=False))

    def show(self, text: str) -> None:
        """Log a line, a warning as one."""
        level = logging.WARNING if text.startswith(WARNING) else logging.INFO
        LOGGER.log(level, "%s", text.removeprefix(WARNING))

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Give what shows no progress."""
        yield silent
