"""sqlite on a disk that several hosts share belongs to one of them; on this machine's own disk nothing is asked."""

from pathlib import Path
from platform.base import network_disk
from platform.base.network_disk import check_host, claims, disk_kind, one_host
from platform.search.study_store import connect

import pytest

from cpn.core.errors import InputError

TABLE = """\
22 1 252:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
90 22 0:55 / /home rw,relatime shared:9 - nfs4 server:/home rw,vers=4.2
91 90 0:56 / /home/me/local\\040disk rw - xfs /dev/sdb rw
95 22 0:60 / /scratch rw - lustre 10.0.0.1@tcp:/lus rw
96 22 0:61 / /homes rw - ext4 /dev/sdc rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "ext4"), ("/var/x.db", "ext4"), ("/home/me/sweeps/study.db", "nfs4"), ("/home", "nfs4"),
     ("/home/me/local disk/study.db", "xfs"), ("/scratch/study.db", "lustre"), ("/homes/study.db", "ext4")],
)  # fmt: skip
def test_the_kind_of_disk_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert disk_kind(Path(path), TABLE) == kind


def test_this_machine_says_something(tmp_path: Path) -> None:
    assert disk_kind(tmp_path) not in ("", *network_disk.NETWORK_DISKS)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database on what looks like NFS."""
    path = tmp_path / "study.db"
    connect(f"sqlite:///{path}", create=True).remove_session()
    monkeypatch.setattr(network_disk, "disk_kind", lambda path, table=None: "nfs4")
    return path


def test_a_second_host_is_refused_in_words(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with one_host(study), one_host(study):
        assert len(claims(study)) == 1
        connect(f"sqlite:///{study}", create=False).remove_session()
        monkeypatch.setattr(network_disk.socket, "gethostname", lambda: "node2")
        for use in (lambda: one_host(study).__enter__(), lambda: connect(f"sqlite:///{study}", create=False)):
            with pytest.raises(InputError) as refused:
                use()
            said = str(refused.value)
            assert said.startswith(f"tracking.study: {study} lies on a network disk (nfs4) and ")
            assert "several hosts cannot share sqlite: set CPN_STUDY_URL to postgresql://" in said
            assert str(claims(study)[0]) in said
        monkeypatch.undo()
    assert claims(study) == []


def test_two_hosts_at_the_same_moment_are_both_refused(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch = Path.touch

    def both(path: Path, **more: bool) -> None:
        touch(path, **more)
        touch(study.with_name("study.db.used-by.node2.1"), **more)

    monkeypatch.setattr(Path, "touch", both)
    with pytest.raises(InputError, match="node2 uses it"), one_host(study):
        raise AssertionError("used")
    assert [claim.name for claim in claims(study)] == ["study.db.used-by.node2.1"], "ours is taken back"


def test_what_a_killed_driver_of_this_host_left_goes(study: Path) -> None:
    import socket

    dead = study.with_name(f"study.db.used-by.{socket.gethostname()}.999999")
    dead.touch()
    with one_host(study):
        assert not dead.exists()


def test_a_local_disk_needs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with one_host(path):
        check_host(path)
        assert list(tmp_path.iterdir()) == []
