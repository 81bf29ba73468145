"""sqlite on a network disk belongs to one host: its write-ahead log needs memory that all its users share.

Which host that is, is said by files beside the database, one for each driver that uses it.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpn.core.errors import InputError

NETWORK_DISKS = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "fuse.sshfs", "fuse.glusterfs",
    "fuse.ceph", "fuse.s3fs", "fuse.juicefs", "fuse.gcsfuse", "fuse.rclone", "wekafs", "panfs",
}  # fmt: skip
"""Kinds of filesystem that several hosts share."""


@contextmanager
def one_host(path: Path) -> Iterator[None]:
    """Claim an sqlite file on a network disk for this host; on a local disk nothing is needed."""
    if disk_kind(path) not in NETWORK_DISKS:
        yield
        return
    check_host(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for claim in claims(path):
        if not os.path.exists(f"/proc/{claim.name.rpartition('.')[2]}"):
            claim.unlink(missing_ok=True)  # this host's own, of a driver that was killed
    mine = path.with_name(f"{path.name}.used-by.{socket.gethostname()}.{os.getpid()}")
    mine.touch()
    try:
        check_host(path)  # another may have looked at the same moment; then both are refused
        yield
    finally:
        mine.unlink(missing_ok=True)


def check_host(path: Path) -> None:
    """Raise InputError where another host uses an sqlite file on a network disk: also reading may break it."""
    kind = disk_kind(path)
    others = [c for c in claims(path) if _host(path, c) != socket.gethostname()] if kind in NETWORK_DISKS else []
    if others:
        raise InputError(
            f"tracking.study: {path} lies on a network disk ({kind}) and {_host(path, others[0])} uses it; several "
            "hosts cannot share sqlite: set CPN_STUDY_URL to postgresql://USER@HOST/DATABASE, or go to that host; if "
            f"nothing runs there any more, delete {others[0]}"
        )


def claims(path: Path) -> list[Path]:
    """Return the files that say which process of which host uses an sqlite file."""
    return sorted(path.parent.glob(f"{path.name}.used-by.*"))


def _host(path: Path, claim: Path) -> str:
    return claim.name.removeprefix(f"{path.name}.used-by.").rpartition(".")[0]


def disk_kind(path: Path, table: str | None = None) -> str:
    """Return the kind of filesystem that a path lies on, as the kernel calls it: nfs4, ext4, ...; empty where none is
    told.
    """
    if table is None:
        try:
            table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    place, best, kind = os.path.realpath(path), "", ""
    for line in table.splitlines():
        first, _, second = line.partition(" - ")
        mount = first.split()[4].replace("\\040", " ") if len(first.split()) > 4 else ""
        if mount and len(mount) >= len(best) and (place == mount or place.startswith(mount.rstrip("/") + "/")):
            best, kind = mount, second.split()[0] if second else ""
    return kind
