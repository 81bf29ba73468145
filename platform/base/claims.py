"""What this driver is making: two sweeps in one storage folder never write to one run's or stage's folder at once.

A claim is a lock on one byte of one file, held by the driver and let go by the system when it dies: by `fcntl`, as
filelock locks whole files only, and a file for each run and stage would be left behind. For a bucket it holds among
the drivers of one machine; runs need none there, for each attempt has its own folder (bucket_sync.py).
"""

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from .paths import Storage

LOOK_S = 1.0
"""Seconds between two looks whether another sweep is done."""


class Claims:
    """The runs and stages that this process has claimed. One for each storage and process: the system keeps the locks
    by process, and closing any handle of the file lets all of them go.
    """

    def __init__(self, store: Storage) -> None:
        self._path = store.claims
        self._file: BinaryIO | None = None
        self._held: dict[str, str] = {}

    def take(self, uid: str, key: str) -> bool:
        """Claim `key` for a trial or stage of ours; False while another process has it. Two of ours may share one."""
        if key not in self._held.values() and not self._locked(key, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
        self._held[uid] = key
        return True

    def give(self, uid: str) -> None:
        """Let what a trial or stage of ours has claimed go."""
        key = self._held.pop(uid, None)
        if key is not None and key not in self._held.values():
            self._locked(key, fcntl.LOCK_UN)

    @contextmanager
    def alone(self, key: str, say: Callable[[str], None]) -> Iterator[None]:
        """Wait until no other process makes `key`, and keep them from it while the block runs."""
        waiting = False
        while not self.take(key, key):
            if not waiting:
                say(f"{key} is being made by another sweep; waiting for it")
            waiting = True
            time.sleep(LOOK_S)
        try:
            yield
        finally:
            self.give(key)

    def close(self) -> None:
        """Let everything go."""
        self._held.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _locked(self, key: str, how: int) -> bool:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab")
        at = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
        try:
            fcntl.lockf(self._file, how, 1, at)
        except BlockingIOError:
            return False
        return True
