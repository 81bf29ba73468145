"""Signals and the loss of the cluster, without Ray: what asks, what stops at once, whose the signals are afterwards."""

import _thread
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from platform.base.lock import read_driver
from platform.base.paths import SweepPaths
from platform.cluster import interruption as module
from platform.cluster.interruption import SIGNALS, Interruption
from platform.cluster.ray_environment import worker_environment
from typing import Any

import pytest

from cpn.core.errors import WorkError

pytestmark = pytest.mark.usefixtures("own_signals")


def test_the_first_signal_asks_and_the_second_stops_at_once() -> None:
    said: list[str] = []
    heard: list[bool] = []
    interruption = Interruption()
    with interruption.watch(said.append), interruption.patiently():
        interruption.listeners.append(lambda: heard.append(True))
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption
        assert interruption.signal == signal.SIGTERM
        assert heard == [True]
        assert len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_between_trials_the_first_signal_stops_at_once() -> None:
    interruption = Interruption()
    with interruption.watch(lambda line: None):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_amid_a_callback_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    """Python prints what is raised in a finalizer or in a weak reference's callback, and goes on."""

    class Thing:
        pass

    def dies(_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)

    interruption, thing, hook = Interruption(), Thing(), sys.unraisablehook
    watching = weakref.ref(thing, dies)
    with interruption.watch(lambda line: None):
        with pytest.raises(KeyboardInterrupt):
            del thing
            assert watching() is None
            for _ in range(500):
                time.sleep(0.02)
        assert interruption.signal == signal.SIGTERM and not interruption.hurried
    assert sys.unraisablehook is hook and capsys.readouterr().err == ""


@pytest.mark.parametrize("number", [*SIGNALS, None], ids=str)
def test_afterwards_the_signals_are_the_caller_s_again(number: signal.Signals | None) -> None:
    """Whether or not one came; the wakeup descriptor as well."""
    heard: list[int] = []
    for each in SIGNALS:
        signal.signal(each, lambda number, _: heard.append(number))
    mine = {each: signal.getsignal(each) for each in SIGNALS}
    with suppress(KeyboardInterrupt), Interruption().watch(lambda line: None):
        if number is not None:
            os.kill(os.getpid(), number)
    assert {each: signal.getsignal(each) for each in SIGNALS} == mine and heard == []
    assert signal.set_wakeup_fd(-1) == -1
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_a_hang_up_that_the_caller_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption = Interruption()
    with interruption.watch(lambda line: None):
        os.kill(os.getpid(), signal.SIGHUP)
    assert not interruption


@pytest.mark.parametrize("number", SIGNALS, ids=str)
@pytest.mark.parametrize("first", ["signal", "cluster"])
def test_a_signal_that_reaches_ray_too_is_a_stop_and_no_failure(number: signal.Signals, first: str) -> None:
    """A batch job's processes are told all at once: Ray's end is then no want of memory, whichever is noticed first.
    A thread hears of the cluster while the main thread has not handled the signal yet.
    """
    signal.signal(number, signal.SIG_DFL if number == signal.SIGHUP else signal.getsignal(number))  # as without nohup
    interruption = Interruption()
    with interruption.watch(lambda line: None):
        with pytest.raises(KeyboardInterrupt), interruption.patiently():
            signal.pthread_sigmask(signal.SIG_BLOCK, [number])
            try:
                if first == "cluster":
                    _thread.start_new_thread(interruption.lose, ("the cluster is gone",))
                os.kill(os.getpid(), number)
                if first == "signal":
                    _thread.start_new_thread(interruption.lose, ("the cluster is gone",))
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
            for _ in range(1000):
                time.sleep(0.01)
        interruption.explain()
        assert interruption.signal == number


def test_what_is_being_ended_is_ended_whatever_comes() -> None:
    """Half-stopped, Ray would leave processes behind."""
    said: list[str] = []
    interruption = Interruption()
    with interruption.watch(said.append):
        with pytest.raises(KeyboardInterrupt), interruption.patiently():
            os.kill(os.getpid(), signal.SIGINT)
            assert not interruption.hurried
            os.kill(os.getpid(), signal.SIGINT)
        assert interruption.hurried
        with interruption.closing():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        assert said[1:] == 2 * ["ending what was started; it takes seconds"]
        assert interruption.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_lost_cluster_ends_what_runs_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a thread, also while a first signal would only ask; not while everything is being ended anyway."""
    monkeypatch.setattr(module, "HEED_S", 60.0)  # or a busy machine's main thread is taken for one that never comes
    interruption, heard = Interruption(), list[str]()
    with interruption.watch(heard.append):
        with interruption.closing():
            interruption.lose("too late to matter")
        interruption.explain()
        with pytest.raises(KeyboardInterrupt), interruption.patiently():
            interruption.listeners.append(lambda: heard.append("no trial has failed"))
            threading.Thread(target=interruption.lose, args=("the cluster is gone",)).start()
            for _ in range(1000):  # an interruption from a thread wakes no sleep
                time.sleep(0.01)
        with pytest.raises(WorkError, match="the cluster is gone"):
            interruption.explain()
    assert heard == ["no trial has failed"] and not interruption


def wait_to_be_interrupted(interruption: Interruption, heard: list[str]) -> None:
    """Lose the cluster from another thread, and note in words what that raises here."""
    try:
        threading.Thread(target=interruption.lose, args=("the cluster is gone",)).start()
        for _ in range(1000):
            time.sleep(0.01)
    except KeyboardInterrupt:
        with pytest.raises(WorkError, match="the cluster is gone"):
            interruption.explain()
        heard.append(threading.current_thread().name)


def test_a_lost_cluster_ends_a_sweep_in_the_thread_that_runs_it() -> None:
    """As from Python, where signals are the caller's: its other threads, the main one too, go on."""
    heard: list[str] = []
    thread = threading.Thread(target=lambda: wait_to_be_interrupted(Interruption(), heard), name="the sweep's")
    thread.start()
    thread.join(60)
    assert heard == ["the sweep's"]


@pytest.mark.parametrize(
    "handler", [signal.default_int_handler, signal.SIG_IGN, lambda *_: None], ids=["usual", "ignored", "own"]
)
def test_a_lost_cluster_is_told_whatever_sigint_does(handler: Any) -> None:
    signal.signal(signal.SIGINT, handler)
    heard: list[str] = []
    wait_to_be_interrupted(Interruption(), heard)
    assert heard == [threading.main_thread().name] and signal.getsignal(signal.SIGINT) is handler


STUCK = """
import ctypes, os, threading
from platform.cluster.interruption import Interruption
from platform.base.lock import driving
from platform.base.paths import SweepPaths
from platform.cluster.ray_environment import worker_environment
from pathlib import Path
interruption = Interruption()
with interruption.watch(print), driving(SweepPaths(Path("sweeps/stuck")), "stuck", "again") as held:
    interruption.last_words.append(held.last_words)
    threading.Timer(0.5, interruption.lose, ["the cluster is gone"]).start()
    if {term}:
        threading.Timer(0.6, os.kill, [os.getpid(), 15]).start()
    lock = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(lock)  # the second never comes back, whatever signal arrives
"""


@pytest.mark.parametrize(
    ("term", "code", "said", "stands", "reason"),
    [
        (False, 1, "failed: the cluster is gone\n", "failed", "the cluster is gone"),
        (True, 143, "stopped; every trial can go on with the same command\n", "stopped", None),
    ],
    ids=["alone", "with a signal for all"],
)
def test_a_stuck_main_thread_does_not_keep_the_process(
    tmp_path: Path, term: bool, code: int, said: str, stands: str, reason: str | None
) -> None:
    """As in Ray's C++ code, which aborts when it has waited for one cluster and another answers."""
    environment = {**os.environ, "PYTHONPATH": worker_environment()["PYTHONPATH"]}
    command = [sys.executable, "-c", STUCK.format(term=term)]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", said)
    driver = read_driver(SweepPaths(tmp_path / "sweeps/stuck"))
    assert driver is not None and (driver.stands, driver.reason) == (stands, reason)
