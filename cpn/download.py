"""Get published data sets and weights: `python -m cpn.download voc2012 sbd --to data`."""

import argparse
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from cpn.core.errors import InputError, run_command
from cpn.core.files import check_place
from cpn.core.progress import Progress, shown_progress
from cpn.sources.download_sources import SOURCES, Archive, Source
from cpn.sources.fetch import PAGE_STARTS, PAUSE_S, check_digest, fetch
from cpn.sources.unpack import unpack

MB = 1_000_000
UNPACKED = 1.2
"""Bytes on the disk for a byte of an archive of images, which hardly compress."""


def source_lines(name: str, source: Source) -> list[str]:
    """Return what is had and under which terms: lines before anything is downloaded."""
    lines = [f"{name}: {source.what}", f"  terms: {source.licence}"]
    for archive in source.archives:
        size = "size not known" if archive.size is None else f"about {archive.size / MB:,.0f} MB"
        lines.append(f"  {archive.address} ({size}; the address is stated by {archive.address_from})")
        lines.append(f"    {_digest_words(archive.md5, archive.sha256_start, archive.digest_from)}")
    if source.page:
        lines.append(f"  no direct address: {source.page}")
        lines.append(f"    {_digest_words(source.by_hand_md5, None, source.digest_from)}")
    return lines


def _digest_words(md5: str | None, sha256_start: str | None, digest_from: str) -> str:
    """Return how far a file is checked."""
    if md5 is not None:
        return f"checked: its MD5 has to be {md5}, stated by {digest_from}"
    if sha256_start is not None:
        return f"checked: its SHA-256 has to start with {sha256_start}, stated by {digest_from}"
    return "not verified: no digest is published"


def missing(sources: Sequence[Source], to: Path) -> list[Archive]:
    """Return archives of which nothing stands at their place yet."""
    return [archive for source in sources for archive in source.archives if not (to / archive.to).exists()]


def check_order(name: str, names: Sequence[str], to: Path) -> None:
    """Raise InputError where a source goes into the folder of one that is neither there nor asked for."""
    first = SOURCES[name].into
    if first and first not in names and missing([SOURCES[first]], to):
        raise InputError(f"{name} goes into the folder of {first}, which is not in {to}: name {first} too")


def check_room(archives: Sequence[Archive], to: Path) -> None:
    """Raise InputError where the disk cannot hold the archives and what they unpack to."""
    needed = sum((archive.size or 0) * ((1 + UNPACKED) if archive.unpack else 1) for archive in archives)
    place = next(folder for folder in (to.absolute(), *to.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"--to {to}: {needed / MB:,.0f} MB are needed there while archives are unpacked, {free / MB:,.0f} are "
            "free: make room, or choose another folder"
        )


def get(archive: Archive, to: Path, mirror: str | None, keep: bool, progress: Progress, pause_s: float) -> None:
    """Download, check and unpack one archive, unless that is done. A file that lies there already is checked and used.

    Raises InputError for a file that is not the published one, and what `fetch` and `unpack` raise.
    """
    place = to / archive.to
    file = to / archive.file if archive.unpack else place
    to.mkdir(parents=True, exist_ok=True)
    address = archive.address if mirror is None else f"{mirror.rstrip('/')}/{archive.file}"
    if not file.exists():
        what = f"{archive.file}, MB"
        total_mb = (archive.size or 0) // MB
        fetch(
            address,
            file,
            lambda done, total: progress(what, done // MB, max(1, (total or 0) // MB or total_mb, done // MB)),
            pause_s,
        )
    wrong = check_digest(file, archive.md5, archive.sha256_start)
    if wrong is not None:
        aside = file.with_name(file.name + ".wrong")
        file.replace(aside)
        raise InputError(
            f"{file}: {wrong} ({archive.digest_from}); it was put aside as {aside.name}: run the same command, and if "
            "it comes again so, the server does not have the published file (--mirror names another)"
        )
    if not _has_digest(archive):
        print(f"note: {archive.file} was not checked: no published digest is known", flush=True)
    if archive.unpack:
        place.parent.mkdir(parents=True, exist_ok=True)
        unpack(
            file,
            archive.unpack,
            archive.holds,
            place,
            lambda done, total: progress(f"unpacking {archive.file}, MB", done // MB, max(1, total // MB)),
        )
        if not keep:
            file.unlink()
    print(f"{place} is there", flush=True)


def by_hand(name: str, source: Source, to: Path) -> bool:
    """Return whether the file that a person had to get lies there and is the right one. Says what to do where it does
    not.

    Raises InputError where it is another file.
    """
    file = to / source.by_hand
    if not file.exists():
        print(f"{name}: open {source.page}, save the file as {file}, then run the same command")
        return False
    check_by_hand(file, source)
    print(f"{file} is there" + ("" if source.by_hand_md5 else f", a whole {source.method}; no digest is published"))
    return True


def check_by_hand(file: Path, source: Source) -> None:
    """Raise InputError where a file that a person put there is a web page, or not what `source` says of it."""
    cure = f"delete it, and get it again from {source.page}"
    with open(file, "rb") as opened:
        start = opened.read(64)
    if start.lstrip().lower().startswith(PAGE_STARTS):
        raise InputError(f"{file}: is a web page in place of the file: {cure}")
    if (wrong := check_digest(file, source.by_hand_md5, None)) is not None:
        raise InputError(f"{file}: {wrong} ({source.digest_from}): {cure}")
    if source.method:
        from cpn.models.weights import read_weights
        from cpn.stages.released import is_released, method_of

        names = read_weights(file, cure).keys()
        if not is_released(names) or method_of(names).title != source.method:
            raise InputError(f"{file}: is no whole {source.method} as its authors released it: {cure}")


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m cpn.download",
        usage="python -m cpn.download voc2012 sbd --to data [--mirror URL] [--keep-archives] [--show]",
        description="Get published data sets and weights. Addresses, sizes and terms of use are said first. A download "
        "that was stopped goes on; files that lie in the folder already, under the publisher's name, are used.",
        epilog="; ".join(f"{name}: {source.what}" for name, source in SOURCES.items()),
    )
    command.add_argument("names", nargs="+", choices=list(SOURCES), metavar="NAME", help=f"of {', '.join(SOURCES)}")
    command.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where everything goes")
    command.add_argument(
        "--mirror", metavar="URL", help="a server's folder that has the same files under the same names"
    )
    command.add_argument("--keep-archives", action="store_true", help="archives stay when they have been unpacked")
    command.add_argument("--show", action="store_true", help="say what would be downloaded, and stop")
    return command


def main(arguments: list[str] | None = None, pause_s: float = PAUSE_S) -> int:
    """Run the command: see --help. Returns 0, or 1 where a file is still to be got by hand."""
    options = parser().parse_args(arguments)
    names = [name for name in SOURCES if name in options.names]  # in this order: SBD goes into VOC's folder
    if options.mirror is not None and not options.mirror.startswith(("http://", "https://")):
        raise InputError(f"--mirror {options.mirror}: give an address that begins with http:// or https://")
    check_place(options.to, "--to")
    for name in names:
        check_order(name, names, options.to)
    for name in names:
        print("\n".join(source_lines(name, SOURCES[name])))
    archives = missing([SOURCES[name] for name in names], options.to)
    check_room(archives, options.to)
    if options.show:
        return 0
    with shown_progress() as progress:
        for archive in archives:
            get(archive, options.to, options.mirror, options.keep_archives, progress, pause_s)
    done = [by_hand(name, SOURCES[name], options.to) for name in names if SOURCES[name].page]
    to = shlex.quote(str(options.to))
    if not all(done):
        return 1
    for line in dict.fromkeys(line for name in names for line in SOURCES[name].next):
        print(f"next: {line.format(to=to)}")
    return 0


def _has_digest(archive: Archive) -> bool:
    return archive.md5 is not None or archive.sha256_start is not None


if __name__ == "__main__":
    run_command(main)
