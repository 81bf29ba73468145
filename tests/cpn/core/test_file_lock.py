"""Lock files: one process at a time, and free when the holder ends however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from cpn.core.file_lock import file_lock, file_lock_if_free

HOLDER = """
import sys, time
from pathlib import Path
from cpn.core.file_lock import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_folder_is_made_and_the_lock_is_free_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    for _ in range(2):
        with file_lock(path):
            assert path.is_file()


def test_it_is_told_whether_the_lock_is_held_here(tmp_path: Path) -> None:
    with file_lock_if_free(tmp_path / ".lock") as first, file_lock_if_free(tmp_path / ".lock") as second:
        assert (first, second) == (True, False)
    with file_lock_if_free(tmp_path / ".lock") as again:
        assert again


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with file_lock_if_free(path) as ours:
            assert not ours
        os.kill(holder.pid, signal.SIGKILL)
    with file_lock(path):
        pass
