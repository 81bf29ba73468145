"""One driver per sweep, and what its record tells the others."""

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from platform.base.lock import Driver, birth, driving, read_driver, second_driver_message
from platform.base.paths import SweepPaths

import pytest

from cpn.core.errors import InputError, WorkError
from cpn.core.files import read_json, write_json

COMMAND = "python -m platform.sweep s.yaml"
HOLDER = f"""
import sys
from pathlib import Path
from platform.base.lock import driving
from platform.base.paths import SweepPaths

with driving(SweepPaths(Path(sys.argv[1])), "small", {COMMAND!r}):
    print("held", flush=True)
    sys.stdin.read()
"""

FORKER = HOLDER.replace("import sys", "import os, sys, time").replace(
    "    print(", "    if os.fork() == 0:\n        print(os.getpid(), flush=True)\n    time.sleep(60)\n    print("
)
"""The child speaks, which by then has let go of the lock; the other one holds it until it is killed."""


@pytest.fixture
def paths(tmp_path: Path) -> SweepPaths:
    return SweepPaths(tmp_path / "sweeps" / "small")


def now(paths: SweepPaths) -> Driver:
    found = read_driver(paths)
    assert found is not None
    return found


def test_the_record_names_this_process_and_then_its_end(paths: SweepPaths) -> None:
    with driving(paths, "small", COMMAND) as held:
        me = now(paths)
        assert (me.pid, me.command, me.state, me.here, me.alive) == (os.getpid(), COMMAND, "running", True, True)
        held.code = 0
    assert now(paths).stands == "finished" and not now(paths).alive


@pytest.mark.parametrize(("code", "state"), [(0, "finished"), (1, "failed"), (130, "stopped"), (143, "stopped")])
def test_the_exit_code_says_how_it_ended(paths: SweepPaths, code: int, state: str) -> None:
    with driving(paths, "small", COMMAND) as held:
        held.code = code
    assert now(paths).stands == state


def test_an_exception_is_a_failure_with_its_reason(paths: SweepPaths) -> None:
    with pytest.raises(WorkError), driving(paths, "small", COMMAND):
        raise WorkError("no trial\nfinished")
    assert (now(paths).state, now(paths).reason) == ("failed", r"no trial\nfinished")
    with pytest.raises(KeyboardInterrupt), driving(paths, "small", COMMAND):
        raise KeyboardInterrupt
    assert (now(paths).state, now(paths).reason) == ("stopped", None)


def test_a_refused_command_leaves_what_is_finished(paths: SweepPaths) -> None:
    with driving(paths, "small", COMMAND):
        pass
    before = now(paths)
    with pytest.raises(InputError), driving(paths, "small", "python -m platform.sweep wrong.yaml"):
        raise InputError("made with other settings")
    assert now(paths) == before


@pytest.mark.parametrize(
    "ending",
    [0, 130, 143, KeyboardInterrupt(), SystemExit(1), InputError("wrong"), "kill -9"],
    ids=lambda ending: str(ending) or type(ending).__name__,
)
def test_a_start_with_nothing_to_do_leaves_what_is_finished(
    paths: SweepPaths, ending: int | BaseException | str
) -> None:
    with driving(paths, "small", COMMAND) as held:
        held.works()
    before = now(paths)
    with suppress(BaseException), driving(paths, "small", COMMAND) as held:
        assert now(paths).alive and now(paths).stands == "running"
        if ending == "kill -9":
            raise_at = now(paths)
            assert replace(raise_at, ticks=raise_at.ticks - 1).stands == "finished"
        elif isinstance(ending, int):
            held.code = ending
        elif isinstance(ending, BaseException):
            raise ending
    assert now(paths) == before


@pytest.mark.parametrize("ending", [143, KeyboardInterrupt(), SystemExit(1)], ids=str)
def test_a_start_that_finds_something_to_do_does_not(paths: SweepPaths, ending: int | BaseException) -> None:
    with driving(paths, "small", COMMAND):
        pass
    with suppress(BaseException), driving(paths, "small", COMMAND) as held:
        held.works()
        held.works()
        assert replace(now(paths), ticks=-1).stands == "stopped"
        if isinstance(ending, BaseException):
            raise ending
        held.code = ending
    assert now(paths).stands == "stopped"


def test_a_second_driver_is_told_who_the_first_is(paths: SweepPaths) -> None:
    with driving(paths, "small", COMMAND):
        with pytest.raises(InputError) as refused, driving(paths, "small", COMMAND):
            pass
        assert now(paths).alive
        with driving(SweepPaths(paths.root.with_name("other")), "other", COMMAND):
            pass
    who = f"sweep 'small' is already running (process {os.getpid()} on {now(paths).host})"
    assert str(refused.value) == f"{paths.lock}: {who}; wait for it, or stop it: python -m platform.stop small"


def test_a_driver_that_has_written_nothing_yet_has_no_number(paths: SweepPaths) -> None:
    with driving(paths, "small", COMMAND):
        pass
    assert "process" not in second_driver_message("small", now(paths)) and "process" not in second_driver_message(
        "small", None
    )
    with open(paths.lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="'small' is already running; wait"), driving(paths, "small", COMMAND):
            pass


def test_what_a_kill_leaves_is_taken_over(paths: SweepPaths) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(paths.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == b"held\n"
    assert now(paths).alive and now(paths).pid == process.pid
    with pytest.raises(InputError, match=f"process {process.pid} on"), driving(paths, "small", COMMAND):
        pass
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    # Not reaped yet: the number is still there, the process is not.
    assert not now(paths).alive and (now(paths).state, now(paths).stands) == ("running", "stopped")
    process.communicate()
    assert birth(process.pid) is None
    with driving(paths, "small", COMMAND):
        assert now(paths).pid == os.getpid()


def test_a_fork_that_outlives_a_killed_driver_holds_no_lock(paths: SweepPaths) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FORKER, str(paths.root)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[0])
        try:
            process.kill()
            process.wait()
            assert birth(child) is not None
            with driving(paths, "small", COMMAND):
                assert now(paths).pid == os.getpid()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_number_that_came_again_is_another_process(paths: SweepPaths) -> None:
    with driving(paths, "small", COMMAND):
        me = now(paths)
        assert not replace(me, ticks=me.ticks - 1).alive
        assert not replace(me, boot="another start of the machine").alive
        assert not replace(me, state="finished").alive
        elsewhere = replace(me, host="elsewhere", boot="x")
        assert elsewhere.alive and not elsewhere.here


@pytest.mark.parametrize("text", ["", "4711", "[1]", '{"pid": 1}', '{"pid": 1, "more": 2}'])
def test_a_record_that_is_none_is_as_good_as_absent(paths: SweepPaths, text: str) -> None:
    paths.root.mkdir(parents=True)
    assert read_driver(paths) is None
    paths.driver.write_text(text)
    assert read_driver(paths) is None
    with driving(paths, "small", COMMAND):
        assert read_json(paths.driver)["pid"] == os.getpid()


def test_a_program_name_with_blanks_and_brackets_is_read_past(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_text

    def odd(path: Path, encoding: str | None = None, errors: str | None = None) -> str:
        text = real(path, encoding=encoding, errors=errors)
        return text.replace("(", "(a b) R 1 (", 1) if path.name == "stat" else text

    before = birth(os.getpid())
    monkeypatch.setattr(Path, "read_text", odd)
    assert birth(os.getpid()) == before is not None


def test_a_disk_without_locks_or_without_rights_is_refused(paths: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", none)
        with pytest.raises(InputError, match="has no file locks .*; choose another"), driving(paths, "small", COMMAND):
            pass
    paths.root.parent.joinpath("file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        with driving(SweepPaths(paths.root.parent / "file" / "small"), "small", COMMAND):
            pass


def test_a_disk_that_fills_up_hides_no_error(paths: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(WorkError, match="the true reason"), driving(paths, "small", COMMAND):
        monkeypatch.setattr("platform.base.lock.write_json", full)
        raise WorkError("the true reason")
    assert now(paths).state == "running"  # and no process of that number is it, once this one ends
    write_json(paths.driver, {})
