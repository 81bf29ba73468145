"""Unpack an archive from elsewhere: only below the folder, no links out of it, no devices, whole or absent."""

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from cpn.core.errors import InputError

Report = Callable[[int, int], None]
"""Called with how many bytes of the archive are done, and of how many."""


def unpack(archive: Path, kind: str, holds: str, to: Path, report: Report) -> None:
    """Unpack the folder `holds` of a `tar` (of any compression) or `zip` archive to `to`, which must not be there.

    A killed unpacking leaves nothing under the name `to`. Raises InputError for a damaged archive, one that names files
    outside, or that lacks the folder.
    """
    aside = to.with_name(f".{to.name}.unpacking")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        if kind == "tar":
            _untar(archive, aside, report)
        else:
            _unzip(archive, aside, report)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError) as error:
        shutil.rmtree(aside)
        raise InputError(
            f"{archive} cannot be unpacked ({' '.join(str(error).split())[:160]}): delete it and run the same command"
        ) from error
    if not (aside / holds).is_dir():
        shutil.rmtree(aside)
        raise InputError(
            f"{archive} holds no folder {holds}: it is another archive; delete it and run the same command"
        )
    (aside / holds).rename(to)
    shutil.rmtree(aside)


def _untar(archive: Path, to: Path, report: Report) -> None:
    """Tar's own filter for data refuses absolute names, names with .., links out of the folder, and devices."""
    size = archive.stat().st_size
    with open(archive, "rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            tar.extract(member, to, filter="data")
            report(raw.tell(), size)


def _unzip(archive: Path, to: Path, report: Report) -> None:
    with zipfile.ZipFile(archive) as zipped:
        total, done = sum(member.file_size for member in zipped.infolist()), 0
        for member in zipped.infolist():
            if Path(member.filename).is_absolute() or ".." in Path(member.filename).parts:
                raise ValueError(f"it names {member.filename!r}, outside of its folder")
            zipped.extract(member, to)
            done += member.file_size
            report(done, total)
