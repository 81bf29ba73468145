"""What the driver decides without Ray: resources, trials at a time, signals, the environment of its processes."""

import _thread
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from platform.base.lock import read_driver
from platform.base.paths import SweepPaths
from platform.cluster import ray_driver
from platform.cluster.local_ray import STARTS
from platform.cluster.ray_driver import SIGNALS, Interruption, cause, ends_now, ray_cluster, start_cure
from platform.cluster.ray_environment import worker_environment
from platform.config.sections import Resources
from types import SimpleNamespace
from typing import Any

import pytest

from cpn.core.errors import InputError, WorkError


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Pytest's own handlers, again after each test."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
    monkeypatch.setattr(ray_driver, "HEED_S", 60.0)  # or a busy machine's main thread is taken for one that never comes
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


def test_what_tune_makes_a_traceback_of_is_said_in_words() -> None:
    """As in its loop: an `except Exception` that raises a text, and once more around that."""
    from ray.tune import TuneError

    def made(first: Exception) -> TuneError:
        with pytest.raises(TuneError) as caught:
            try:
                try:
                    raise first from None
                except Exception:
                    raise TuneError("Traceback (most recent call last): ...")  # noqa: B904
            except Exception:
                raise TuneError("Traceback (most recent call last): ... again")  # noqa: B904
        return caught.value

    down, full, bug = InputError("the study is down"), OSError(28, "full"), KeyError("a bug")
    bug.__context__ = OSError(2, "what was being handled when the bug came")
    assert cause(made(down)) is down and cause(made(full)) is full
    told = made(bug)
    assert cause(told) is told, "a bug keeps its traceback"


STUCK = """
import ctypes, os, threading
from platform.cluster.ray_driver import Interruption
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
    ray_driver = read_driver(SweepPaths(tmp_path / "sweeps/stuck"))
    assert ray_driver is not None and (ray_driver.stands, ray_driver.reason) == (stands, reason)


def test_a_signal_while_ray_starts_leaves_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    done: list[str] = []
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("RAY_TRAIN_V2_ENABLED", raising=False)

    def interrupted(**_: object) -> None:
        assert os.environ["OMP_NUM_THREADS"] == "1" and os.environ["RAY_TRAIN_V2_ENABLED"] == "1"
        done.append("started in part")
        raise KeyboardInterrupt

    monkeypatch.setattr(ray, "init", interrupted)
    monkeypatch.setattr(ray, "shutdown", lambda: done.append("shut down"))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(KeyboardInterrupt), ray_cluster(Resources()):
        raise AssertionError("Ray did not start")
    assert done == ["started in part", "shut down"]
    assert os.environ["OMP_NUM_THREADS"] == "7" and "RAY_TRAIN_V2_ENABLED" not in os.environ


@pytest.mark.parametrize("late", [1, 3])
def test_a_ray_whose_processes_are_late_is_started_again(monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    import ray

    starts: list[str] = []

    def init(address: str, **_: object) -> None:
        starts.append(address)
        if len(starts) <= late:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    if late < STARTS:
        with ray_cluster(Resources(gpus_per_worker=0)):
            assert starts == ["local"] * (late + 1), "or it joins what a `ray start` left"
    else:
        with pytest.raises(InputError, match=r"Ray does not start on this machine \(tried 3 times: The current node"):
            with ray_cluster(Resources(gpus_per_worker=0)):
                raise AssertionError("Ray did not start")


@pytest.mark.parametrize(
    ("load", "address", "says"),
    [
        (9.0, None, "other programs keep the cores busy (load 9 on 2); give the same command again later"),
        (7.0, None, "check the address or free its ports"),
        (9.0, "host:6379", "check the address or free its ports"),
    ],
)
def test_a_busy_machine_is_named(load: float, address: str | None, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert start_cure(address) == says


def test_rays_own_signal_handler_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end the driver at the first SIGTERM, with trials in the middle of a report."""
    import ray

    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(signal.SIGTERM))

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    interruption = Interruption()
    with interruption.watch(lambda line: None), ray_cluster(Resources(gpus_per_worker=0)), interruption.patiently():
        ours = signal.getsignal(signal.SIGTERM)
        assert ours is signal.getsignal(signal.SIGINT)
        assert callable(ours)
        ours(signal.SIGTERM, None)
    assert interruption.signal == signal.SIGTERM


def signal_set(which: str) -> int:
    """The signals that this process has a handler for (SigCgt) or ignores (SigIgn), as the system sees it: a bit for
    each, bit 0 for signal 1.
    """
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{which}:"))
    return int(line.split()[1], 16)


def test_sigterm_is_ours_again_when_ray_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's end gives it back to the system, past Python: the next SIGTERM would kill, and spoil the exit code."""
    import ray

    def shutdown() -> None:
        ctypes.CDLL(None).signal(int(signal.SIGTERM), None)  # the default action, as Ray's own C++ code sets it
        end = time.monotonic() + 60
        while not signal_set("SigIgn") >> (signal.SIGTERM - 1) & 1 and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", shutdown)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with Interruption().watch(lambda line: None):
        with ray_cluster(Resources(gpus_per_worker=0)):
            pass
        assert signal_set("SigCgt") >> (signal.SIGTERM - 1) & 1


def test_hours_that_are_up_end_trials_without_failing_them() -> None:
    """The searcher knows before Tune stops anything, and nothing is asked again after that."""
    searcher, hours = SimpleNamespace(interrupted=False), iter([False, True])
    asked = ends_now(searcher, Interruption(), lambda: next(hours))
    assert not asked() and not searcher.interrupted
    assert asked() and searcher.interrupted
    assert asked()


def test_a_signal_ends_trials_whatever_the_hours() -> None:
    interruption = Interruption()
    asked = ends_now(SimpleNamespace(interrupted=False), interruption, lambda: False)
    assert not asked()
    interruption.signal = signal.SIGTERM
    assert asked()


@pytest.mark.parametrize("name", ["RAY_ENABLE_UV_RUN_RUNTIME_ENV", "RAY_USAGE_STATS_ENABLED"])
def test_what_ray_would_do_by_itself_is_off(name: str) -> None:
    assert worker_environment()[name] == "0"
