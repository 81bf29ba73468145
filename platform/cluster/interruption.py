"""Signals that ask a sweep to stop, and the loss of its cluster: both interrupt the thread that drives the sweep."""

import _thread
import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cpn.core.errors import WorkError, quiet

from ..base.lock import SIGNAL_EXIT

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a sweep to stop: the keyboard, a batch system or `timeout`, a terminal that was closed."""

HEED_S = 1.0
"""Seconds that the main thread has to notice that the cluster is lost."""

AGAIN_S = 0.05
"""Seconds until a signal that the interpreter swallowed is raised once more."""

TOGETHER_S = 0.5
"""Seconds after the cluster's end in which a signal may still come that was sent to all processes at once."""


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
