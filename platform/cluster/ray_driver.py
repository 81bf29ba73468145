"""Drives Ray Tune over a study: joins or starts Ray, runs trials until the study has none left, stops cleanly."""

import _thread
import ctypes
import logging
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from cpn.core.errors import InputError, WorkError, quiet

from ..base.lock import SIGNAL_EXIT
from ..base.paths import storage
from ..config.own_code import import_folders, looked_at
from ..config.sections import Pruning, Resources
from ..search.study import Study, TrialRow
from .capacity import Node, check_resources
from .local_ray import check_ray_folder, start_ray
from .placement_groups import free_at_the_end, free_placement_groups
from .ray_environment import LOCAL_ENVIRONMENT, in_environment, runtime_environment, worker_environment
from .raylet_watch import watched
from .worker import TrialSetup, trial

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a sweep to stop: the keyboard, a batch system or `timeout`, a terminal that was closed."""

HEED_S = 1.0
"""Seconds that the main thread has to notice that the cluster is lost."""

AGAIN_S = 0.05
"""Seconds until a signal that the interpreter swallowed is raised once more."""

TOGETHER_S = 0.5
"""Seconds after the cluster's end in which a signal may still come that was sent to all processes at once."""


class Listener(Protocol):
    """Hears what happens to trials, in the driver."""

    def started(self, uid: str) -> None:
        """Hear that a trial began, or goes on after a restart."""

    def reported(self, uid: str, result: Mapping[str, Any]) -> None:
        """Hear an epoch's report, or the last one with the metrics."""

    def ended(self, uid: str) -> None:
        """Hear that the study has been told how the trial ended, or keeps it as resumable."""

    def pruning_off(self, line: str) -> None:
        """Pruning has switched itself off, in words; said again after a restart."""


class Interruption:
    """Set by the first Ctrl-C or SIGTERM; the second raises KeyboardInterrupt, as does the first if `at_once`."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.hurried = False
        """Whether it was said that nothing is to be waited for."""
        self._closing = False
        self.at_once = True
        """Off while trials run: they are given the time to finish their current report."""
        self.listeners: list[Callable[[], None]] = []
        self.lost: str | None = None
        """Why nothing can go on: the cluster is gone."""
        self.last_words: list[Callable[[int, str | None], None]] = []
        """Told the exit code and why it failed, when the process has to end without its main thread."""
        self._watched = False
        self._swallowed = False
        self._thread = threading.get_ident()
        """The thread that drives the sweep: the one that made this object."""
        self._heeded = threading.Event()
        self._arrived: socket.socket | None = None
        """Readable as soon as a signal has arrived, however long the main thread takes to handle it."""

    def lose(self, why: str) -> None:
        """End what runs, as nothing of it can end by itself; from any thread. Not while it is being ended anyway.

        Mostly Ray looks at signals while it waits. Where it doesn't, the main thread never comes back, or Ray's C++
        code aborts as soon as another cluster answers: then the process ends here, as cleanly as one that is killed.
        """
        if self._closing:
            return
        for listener in self.listeners:
            listener()
        stopped = self.asked(TOGETHER_S)
        self.lost = why
        self._heeded.clear()
        self._interrupt()
        if self._watched and not self._heeded.wait(HEED_S):
            ending = "stopped; every trial can go on with the same command" if stopped else f"failed: {why}"
            print(ending, file=sys.stderr, flush=True)
            code = SIGNAL_EXIT + stopped if stopped else 1
            for words in self.last_words:
                words(code, None if stopped else why)
            os._exit(code)

    @property
    def watched(self) -> bool:
        """Whether signals are handled here; otherwise they are the caller's, as for a sweep that Python code runs."""
        return self._watched

    def _interrupt(self) -> None:
        """Raise KeyboardInterrupt in the thread that drives the sweep, from any other."""
        main = self._thread == threading.main_thread().ident
        if self._watched or (main and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
            _thread.interrupt_main()
        else:  # another thread, or a handler of the caller's that may do anything else
            raised = ctypes.py_object(KeyboardInterrupt)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), raised)

    def asked(self, wait_s: float = 0.0) -> int | None:
        """Return the signal that has come so far, or comes within that time; from any thread. What is sent to a process
        group or a batch job reaches Ray's processes too, whose end is noticed before the main thread handles the
        signal.
        """
        if self.signal is None and self._arrived is not None and select.select([self._arrived], [], [], wait_s)[0]:
            numbers = [number for number in self._arrived.recv(64, socket.MSG_PEEK) if number in SIGNALS]
            self.signal = numbers[0] if numbers and self.signal is None else self.signal
        return self.signal

    def explain(self) -> None:
        """Raise WorkError where a KeyboardInterrupt was no signal but the cluster's end."""
        if self.lost is not None and not self:
            raise WorkError(self.lost)

    def __bool__(self) -> bool:
        return self.signal is not None

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """While the block runs, the first signal only asks."""
        self.at_once = False
        try:
            yield
        finally:
            self.at_once = True
            self.listeners.clear()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """While the block runs, signals change nothing: what was started is being ended, which half done leaves it."""
        self._closing = True
        try:
            yield
        finally:
            self._closing = False

    def _unraised(self, said: "sys.UnraisableHookArgs") -> bool:
        """Raise KeyboardInterrupt again where the first one came amid a finalizer or a callback of the interpreter's,
        which prints it and goes on: the signal would be lost. Whether it was one.
        """
        if said.exc_type is not KeyboardInterrupt or threading.current_thread() is not threading.main_thread():
            return False
        self._swallowed = True

        def again() -> None:
            time.sleep(AGAIN_S)  # until the callback has ended
            if self._watched:
                _thread.interrupt_main()

        _thread.start_new_thread(again, ())  # threading's own locks may be held just here
        return True

    @contextmanager
    def watch(self, say: Callable[[str], None]) -> Iterator["Interruption"]:
        """Handle the signals while the block runs; only the main thread can. Afterwards they are the caller's again.
        A hang-up that the caller ignores (nohup) stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def handle(number: int, _frame: FrameType | None) -> None:
            self._heeded.set()
            if number == signal.SIGHUP:
                quiet(sys.stdout, sys.stderr)
            if self._swallowed:
                self._swallowed = False
                if self._closing:
                    return
                raise KeyboardInterrupt
            if self._closing:
                say("ending what was started; it takes seconds")
                return
            if self.lost is not None:
                raise KeyboardInterrupt
            again, self.signal = handled[0], number
            handled[0] = True
            if again or self.at_once:
                self.hurried = again
                raise KeyboardInterrupt
            for listener in self.listeners:
                listener()
            say("stopping after the current reports; once more stops at once")

        handled = [False]
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        before = {n: handler for n, handler in handlers.items() if n != signal.SIGHUP or handler is not signal.SIG_IGN}
        self._arrived, tell = socket.socketpair()
        for end in (self._arrived, tell):
            end.setblocking(False)
        waker = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        for number in before:
            signal.signal(number, handle)
        hook, sys.unraisablehook = sys.unraisablehook, lambda said: self._unraised(said) or hook(said)
        self._watched = True
        try:
            yield self
        finally:
            self._watched = False
            sys.unraisablehook = hook
            put_back(before)
            signal.set_wakeup_fd(waker)
            arrived, self._arrived = self._arrived, None
            for end in (arrived, tell):
                end.close()


@contextmanager
def ray_cluster(
    resources: Resources, lose: Callable[[str], None] | None = None, backbones: Sequence[str] = ()
) -> Iterator[list[Node]]:
    """Connect to the cluster that RAY_ADDRESS names, or start one on this machine; gives its nodes' resources.

    `lose` is told from a thread, with the reason, when the Ray node of this machine dies meanwhile. The user's own
    `backbones` can be imported there. Raises InputError when the cluster does not answer, or lacks what one trial
    needs.
    """
    address = os.environ.get("RAY_ADDRESS")
    environment = {**worker_environment(import_folders(backbones)), **looked_at(backbones)}
    # What Ray starts on this machine inherits this; as a runtime_env it would keep Ray from the processes that it has
    # started in advance, a second or more for each of a trial's eight.
    ours = environment if address else {**environment, **LOCAL_ENVIRONMENT}
    with in_environment(ours):
        import ray

        where = f"RAY_ADDRESS: {address} does not answer" if address else "Ray does not start on this machine"
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            try:
                if address:
                    with tempfile.TemporaryDirectory(prefix="cpn-code-") as folder:
                        runtime = runtime_environment(environment, resources.ship_code, backbones, Path(folder))
                        ray.init(address=address, runtime_env=runtime, log_to_driver=False, logging_level=logging.ERROR)
                else:
                    check_ray_folder()
                    start_ray()
                put_back(handlers)  # Ray sets its own for SIGTERM: it ends the process on the spot
            except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
                raise InputError(f"{where} ({' '.join(str(error).split())[:200]}); {start_cure(address)}") from error
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            check_resources(resources, nodes)
            if address:
                free_placement_groups()
            with (
                nullcontext(threading.Event())
                if lose is None
                else watched(partial(lose, cluster_gone_message(address))) as lost
            ):
                try:
                    yield nodes
                finally:
                    if address and not lost.is_set():
                        free_at_the_end()
        finally:
            with sigterm_ignored():
                ray.shutdown()  # also when a signal came while Ray was starting
            put_back(handlers)


BUSY = 4
"""Waiting processes a core from which on a Ray that does not start is put down to the machine's load."""


def start_cure(address: str | None) -> str:
    """Return what to do about a Ray that does not start; its processes are given up after 30 s, also where others hold
    the cores.
    """
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if address is None and load > BUSY * cores:
        return f"other programs keep the cores busy (load {load:.0f} on {cores}); give the same command again later"
    return "check the address or free its ports"


def cluster_gone_message(address: str | None) -> str:
    """Return what is said when the cluster that was joined, or started here, does not run any more."""
    if address:
        return f"RAY_ADDRESS: this machine's Ray node at {address} has died; start Ray again, then run the same command"
    return "Ray's processes on this machine have died (for want of memory?); the same command continues"


@contextmanager
def sigterm_ignored() -> Iterator[None]:
    """Ignore SIGTERM while Ray ends. Its C++ code gives it back to the system half-way, past Python: the next one would
    kill the driver there, with Ray's processes left and another exit code. Only the C library can set it against that.
    """
    system = ctypes.CDLL(None).signal
    system.argtypes, system.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    ended = threading.Event()

    def ignore() -> None:
        while not ended.wait(0.002):
            system(int(signal.SIGTERM), int(signal.SIG_IGN))

    before = system(int(signal.SIGTERM), int(signal.SIG_IGN))
    thread = threading.Thread(target=ignore, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        # Whoever called from another thread than the main one gets it back by nothing else.
        system(int(signal.SIGTERM), before)


def put_back(handlers: Mapping[signal.Signals, Any]) -> None:
    """Make these the handlers of their signals again; only the main thread can."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if handler is not None:  # it was set past Python, which cannot set it again
                signal.signal(number, handler)


def run_trials(
    study: Study,
    setup: TrialSetup,
    *,
    limit: int | None,
    concurrent: int,
    pruning: Pruning,
    search_seed: int,
    epochs: int,
    listener: Listener,
    interruption: Interruption,
    over: Callable[[], bool],
    reuse: Callable[[TrialRow], dict[str, Any] | None],
    claim: Callable[[TrialRow], bool],
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Run the study's unfinished trials and then new ones until it has none left, or something says stop.

    `over` is asked before each new trial and while trials run, and ends them where they are; `enough` is asked before
    one is drawn, and lets those that run come to their end.
    A trial for which `reuse` has a result is told at once and never started; one that `claim` refuses waits.
    """
    from ray import tune

    from .tune_searcher import StopWhen, StudyPruner, StudySearcher, TrialEvents

    def reused(row: TrialRow) -> dict[str, Any] | None:
        result = reuse(row)
        if result is not None:
            listener.started(row.uid)
        return result

    logging.getLogger("ray").setLevel(logging.ERROR)
    # Tune prints a traceback for each attempt at a trial that died; the reason is kept with the trial if it has failed.
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    # And one when a file of its own snapshot vanishes while it is copied. Nobody reads that copy: the study counts.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    while True:
        searcher = StudySearcher(study, limit, over, reused, listener.ended, claim, enough)
        interruption.listeners.append(partial(setattr, searcher, "interrupted", True))
        scheduler = StudyPruner(study, searcher, pruning, search_seed, epochs, listener.pruning_off)
        tuner = tune.Tuner(
            # Tune wants a trial to hold something. A share of a CPU, however small, would keep the workers from filling
            # the last one; a byte of memory keeps nobody from anything.
            tune.with_resources(tune.with_parameters(trial, setup=setup, report=tune.report), {"memory": 1}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=concurrent,
                reuse_actors=False,
                trial_name_creator=lambda tune_trial: str(tune_trial.config["uid"]),
                trial_dirname_creator=lambda tune_trial: str(tune_trial.config["uid"]),
            ),
            run_config=tune.RunConfig(
                name=study.name,
                storage_path=str(storage(setup.storage).train(setup.sweep)),
                callbacks=[TrialEvents(listener.started, listener.reported, listener.ended)],
                stop=StopWhen(ends_now(searcher, interruption, over)),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=1),
            ),
        )
        try:
            try:
                tuner.fit()
            except tune.TuneError as error:
                raise cause(error) from None
        except OSError as error:  # of Tune's own snapshot, which names no file
            error.filename = error.filename or str(storage(setup.storage).train(setup.sweep))
            raise
        if searcher.halted:
            raise WorkError(f"{study.name}: {searcher.halted}; mend the disk and go on with the same command")
        if not searcher.left:
            return


def cause(error: BaseException) -> BaseException:
    """Return what a callback of ours raised in words, as when the study is down: Tune makes the text of a traceback of
    it.
    """
    from ray.tune import TuneError

    inner: BaseException | None = error
    while isinstance(inner, TuneError):
        inner = inner.__context__
    return inner if isinstance(inner, (InputError, WorkError, OSError)) else error


class Interruptible(Protocol):
    """What has to know that trials end without a result because of us."""

    interrupted: bool


def ends_now(searcher: Interruptible, interruption: object, over: Callable[[], bool]) -> Callable[[], bool]:
    """Return whether all running trials end: on a signal, or when the budget is used up. They stay resumable in the
    study.
    """

    def asked() -> bool:
        if not searcher.interrupted and over():
            searcher.interrupted = True  # before Tune stops anything, or the study is told that trials failed
        return bool(interruption) or searcher.interrupted

    return asked
