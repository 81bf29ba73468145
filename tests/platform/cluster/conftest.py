"""What tests of clusters share."""

import signal
from collections.abc import Iterator
from platform.cluster.interruption import SIGNALS

import pytest


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Put pytest's own handlers of signals back after the test."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
