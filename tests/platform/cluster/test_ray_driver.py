"""What the driver decides without Ray: resources, trials at a time, signals, the environment of its processes."""

import ctypes
import os
import signal
import time
from pathlib import Path
from platform.cluster.interruption import Interruption
from platform.cluster.local_ray import STARTS
from platform.cluster.ray_driver import cause, ends_now, ray_cluster, start_cure
from platform.cluster.ray_environment import worker_environment
from platform.config.sections import Resources
from types import SimpleNamespace

import pytest

from cpn.core.errors import InputError

pytestmark = pytest.mark.usefixtures("own_signals")


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
