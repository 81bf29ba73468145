"""When progress within an epoch is saved, by a clock that the test moves; SIGTERM held back in a process of its own."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from types import FrameType

import pytest

from cpn.training import saving
from cpn.training.saving import DECIDE_S, HeldSigterm, SaveTimer, Saving
from tests.gloo import in_group

Clock = Callable[[float], None]


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Seconds by which the clock moves."""
    now = [0.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])

    def by(seconds: float) -> None:
        now[0] += seconds

    return by


def test_an_epoch_is_saved_after_so_many_minutes(move: Clock) -> None:
    timer = SaveTimer(Saving(1.0), HeldSigterm())
    saved = []
    for step in range(1, 13):
        move(25)
        if timer.due():
            saved.append(step)
            timer.saved()
        if step == 5:
            timer.saved()  # the end of an epoch
    assert saved == [3, 8, 11]


def test_without_minutes_or_a_notice_nothing_is_saved(move: Clock) -> None:
    timer = SaveTimer(Saving(), HeldSigterm())
    move(1e9)
    assert not any(timer.due() for _ in range(5))


def test_a_notice_saves_once_and_is_not_asked_for_each_step(move: Clock) -> None:
    notice, asked = [False], []

    def announced() -> bool:
        asked.append(True)
        return notice[0]

    timer = SaveTimer(Saving(announced=announced), HeldSigterm())
    due = []
    for step in range(400):
        move(0.1)
        notice[0] = step >= 200
        due.append(timer.due())
    assert sum(due) == 1 and 200 <= due.index(True) <= 200 + DECIDE_S / 0.1
    assert len(asked) == pytest.approx(400 * 0.1 / DECIDE_S, abs=6)
    for notice[0], more in ((False, 0), (True, 1)):  # it was taken back, and there is another one
        due = []
        for _ in range(50):
            move(0.1)
            due.append(timer.due())
        assert sum(due) == more


def test_fast_first_steps_do_not_put_the_next_look_off(move: Clock) -> None:
    """A GPU queues its first steps in no time, and then takes a second for each."""
    asked: list[int] = []
    step = 0
    timer = SaveTimer(Saving(announced=lambda: bool(asked.append(step))), HeldSigterm())
    for step in range(40):
        move(0.0 if step < 3 else 1.0)
        timer.due()
    assert len(asked) >= 15 and max(b - a for a, b in pairwise(asked)) <= 4


def test_sigterm_is_held_and_then_takes_its_course() -> None:
    heard: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        held = HeldSigterm()
        for release in (held.release, lambda: None):
            with held:
                timer = SaveTimer(Saving(), held)
                assert not timer.due()
                signal.raise_signal(signal.SIGTERM)
                assert held.came and heard == []
                assert timer.due() and not timer.due(), "saved at once, and once"
                release()
            assert heard == [signal.SIGTERM] and not held.came
            assert signal.getsignal(signal.SIGTERM) is handler
            heard.clear()
        with held:
            pass
        assert heard == []
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_of_the_main_thread_nothing_is_held() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside: list[object] = []

    def work() -> None:
        with HeldSigterm():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before] == [signal.getsignal(signal.SIGTERM)]


def test_an_ignored_sigterm_stays_ignored() -> None:
    code = (
        "import signal; from cpn.training.saving import HeldSigterm; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "with HeldSigterm(): signal.raise_signal(signal.SIGTERM)\n"
        "print('lives')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "lives\n"


def decisions(rank: int, world: int) -> list[bool]:
    """Whether each of 6 steps is saved: the last rank has a notice after step 3, and a clock of its own."""
    step = 0
    timer = SaveTimer(Saving(None if rank == 0 else 1e-9, lambda: rank == world - 1 and step >= 3), HeldSigterm())
    saving.DECIDE_S = 1e-9
    due = []
    for step in range(1, 7):  # noqa: B007  # read by the notice
        due.append(timer.due())
    return due


def test_all_ranks_save_after_the_same_step() -> None:
    assert in_group(2, decisions) == [[False, False, True, False, False, False]] * 2
