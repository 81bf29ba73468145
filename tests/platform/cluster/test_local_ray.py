"""Ray on this machine is this user's alone: its folder, its token, the loopback address; and a folder that it bears."""

import os
import select
import signal
import subprocess
from pathlib import Path
from platform.cluster import local_ray
from platform.cluster.local_ray import (
    LONGEST_FOLDER,
    LOOPBACK,
    STARTS,
    check_ray_folder,
    loopback,
    own_folder,
    own_token,
    start_ray,
)

import pytest

from cpn.core.errors import InputError


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"TMPDIR": "/tmp/" + "x" * 60}, "TMPDIR: "),
        ({"RAY_TMPDIR": "/tmp/" + "x" * 60, "TMPDIR": "/tmp"}, "RAY_TMPDIR: "),
        ({"TMPDIR": "/proc/nowhere"}, "TMPDIR: /proc/nowhere cannot be written"),
        ({"TMPDIR": "/tmp/" + "x" * 60, "RAY_TMPDIR": "/tmp"}, None),
        ({"TMPDIR": "/tmp/" + "x" * 60, "RAY_ADDRESS": "10.0.0.1:6379"}, None),
        ({"TMPDIR": ""}, None),
        ({}, None),
    ],
    ids=str,
)
def test_a_folder_that_ray_cannot_use_is_named_first(
    variables: dict[str, str], says: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch system gives every job a TMPDIR of its own."""
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if says is None:
        check_ray_folder()
        return
    with pytest.raises(InputError) as refused:
        check_ray_folder()
    assert str(refused.value).startswith(says) and "\n" not in str(refused.value)


@pytest.mark.parametrize("spare", [0, 1])
def test_the_longest_folder_is_one_that_ray_takes(spare: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray's own check of the same path."""
    from ray._private.utils import validate_socket_filepath

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * (LONGEST_FOLDER - len("/tmp/") + spare))
    name = f"session_2026-11-29_21-00-51_590741_{os.getpid():07d}"
    path = f"{os.environ['RAY_TMPDIR']}/ray/{name}/sockets/plasma_store"
    if spare:
        with pytest.raises(InputError, match=f"which bear {LONGEST_FOLDER}"):
            check_ray_folder()
        with pytest.raises(OSError, match="cannot exceed"):
            validate_socket_filepath(path)
    else:
        check_ray_folder()
        validate_socket_filepath(path)


@pytest.mark.parametrize("error", [Exception("The current node timed out during startup."), KeyboardInterrupt()])
def test_a_start_that_fails_leaves_no_process(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tries left three sets of Ray's processes on a machine that was too busy for one."""
    import ray
    from ray._private import services

    started: list[subprocess.Popen[bytes]] = []

    def init(**_: object) -> None:
        started.append(services.ConsolePopen(["sh", "-c", "sleep 60 & sleep 60"], stdout=subprocess.PIPE))
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(os, "environ", {**os.environ, "HOME": str(tmp_path)})
    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        start_ray()
    assert len(started) == (STARTS if isinstance(error, Exception) else 1)
    for process in started:
        assert process.returncode == -signal.SIGKILL and process.stdout is not None
        assert select.select([process.stdout], [], [], 10)[0], "its child holds the pipe open"
        process.stdout.close()


@pytest.mark.parametrize(
    ("home", "more", "made"),
    [
        ("/proc/nowhere", {}, True),
        ("/proc/nowhere", {"RAY_AUTH_TOKEN": "theirs"}, False),
        ("/proc/nowhere", {"RAY_AUTH_TOKEN_PATH": "/a/file"}, False),
        (None, {}, False),
    ],
    ids=str,
)
def test_without_a_home_ray_gets_a_token_all_the_same(
    home: str | None, more: dict[str, str], made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_TOKEN")}
    monkeypatch.setattr(os, "environ", {**environment, "HOME": home or str(tmp_path), **more})
    own_token()
    assert (os.environ.get("RAY_AUTH_TOKEN", "") not in ("", "theirs")) is made


@pytest.mark.parametrize("before", [None, "", "theirs", "as Ray wrote it"])
def test_the_token_is_for_this_user_s_eyes(before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_TOKEN")}
    monkeypatch.setattr(os, "environ", {**environment, "HOME": str(tmp_path)})
    kept = tmp_path / ".ray" / "auth_token"
    if before is not None:
        kept.parent.mkdir()
        kept.write_text(before)
        kept.chmod(0o644)
    own_token()
    assert kept.stat().st_mode & 0o777 == 0o600 and "RAY_AUTH_TOKEN" not in os.environ
    assert kept.read_text() == before or (not before and len(kept.read_text()) == 64)
    assert [path.name for path in kept.parent.iterdir()] == ["auth_token"]
    own_token()


def test_of_two_starts_at_once_the_first_token_stays(tmp_path: Path) -> None:
    for text in ("first", "second"):
        local_ray.write_secret(tmp_path / "t", text)
    assert (tmp_path / "t").read_text() == "first" and len(list(tmp_path.iterdir())) == 1


def test_ray_keeps_its_files_where_nobody_else_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Path("/tmp") / f"t{os.getpid()}"  # pytest's own folders are too long for a socket
    shared.mkdir()
    try:
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setenv("TMPDIR", str(shared))
        assert own_folder() is None, "this one is the user's alone"
        shared.chmod(0o1777)
        made = own_folder()
        assert made == shared / f"cpn-{os.geteuid()}" and made.stat().st_mode & 0o777 == 0o700
        made.chmod(0o777)
        assert own_folder() == made and made.stat().st_mode & 0o777 == 0o700
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        assert own_folder() is None, "the user's choice"
        monkeypatch.delenv("RAY_TMPDIR")
        made.rmdir()
        made.symlink_to(tmp_path)
        with pytest.raises(InputError, match=f"RAY_TMPDIR: {made} is another user's; set RAY_TMPDIR to a folder"):
            own_folder()
        made.unlink()
        if os.geteuid() == 0:
            made.mkdir()
            os.chown(made, 65534, 65534)
            with pytest.raises(InputError, match="is another user's"):
                own_folder()
            made.rmdir()
        monkeypatch.setenv("TMPDIR", "/proc/nowhere")
        assert own_folder() is None
    finally:
        for path in shared.iterdir():
            path.unlink() if path.is_symlink() else path.rmdir()
        shared.rmdir()


def test_loopback_is_for_what_ray_starts_here_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ray's own question for this machine's address; a cluster that is joined later is not to be at 127.0.0.1."""
    from ray._private import services

    monkeypatch.setattr(os, "environ", {**os.environ, "NCCL_SOCKET_IFNAME": "theirs"})
    before = dict(os.environ), services.get_node_ip_address()
    with loopback():
        assert services.get_node_ip_address() == "127.0.0.1"
        assert {**LOOPBACK, "NCCL_SOCKET_IFNAME": "theirs"}.items() <= os.environ.items()
    assert before == (dict(os.environ), services.get_node_ip_address())
