"""Checks a data set in VOC 2012 layout and packs it, so that training reads it through a memory map.

    python -m cpn.prepare /data/VOC2012
    python -m cpn.prepare /data/VOC2012 --out s3://bucket/voc    # packs it in its folder, and puts it there too

Everything is checked before anything is written. Unchanged sources (names, sizes, times) mean no work. `--lists test`
adds VOC's test images, which have no labels; lists that are packed stay packed.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock
from pyarrow import ipc

from cpn.core.errors import InputError
from cpn.core.files import DamagedFile, digest, file_digest, whole_folder, write_json
from cpn.core.jpeg_warnings import JpegWarnings
from cpn.core.plain_file import file_there, folder_there, is_there, refuse_irregular
from cpn.core.progress import Progress, silent
from cpn.data.voc import PACK_FORMAT, Pack, open_pack
from cpn.sources.check_picture import write_check
from cpn.sources.class_names import read_classes
from cpn.sources.prepare_notes import folder_notes, jpeg_notes, list_notes, pack_notes
from cpn.sources.voc_folder import Checked, Entry, check_entry, check_layout, read_list
from cpn.sources.voc_lists import SBD_FOLDERS, has_list, list_path, other_folders, other_names

LISTS = ("train", "trainaug", "val")
SCORED = ("train", "val")
"""Lists that need a mask for every picture."""
CHECK = "check.png"
"""Five images with their masks and labels, in the packed folder."""


def prepare(
    root: Path,
    lists: Sequence[str] = LISTS,
    out: Path | None = None,
    progress: Progress | None = None,
    scored: Sequence[str] = SCORED,
    say: Callable[[str], None] = lambda line: None,
    renew: bool = False,
) -> Pack:
    """Check the data set at `root` and pack `lists` into `out`/packed (default: `root`/packed); open the result.

    Lists packed earlier stay packed. `scored` names the lists that need masks. Several processes may prepare the same
    folder: one packs, the others find it done. What is packed already is held against its digests; a damaged pack is
    packed anew, and `say` hears so in a line. One of an earlier version has none, and is packed anew with `renew`.
    InputError: see cpn/sources/voc_folder.py; or no room, or no right to write.
    """
    target, report = out or root, progress or silent
    check_layout(root)
    _refuse_no_folder(target / "packed")
    lists = list(dict.fromkeys([*lists, *(name for name in _packed(target) if has_list(root, name))]))
    stamp = _stamp(root, lists, scored)
    if _up_to_date(target, stamp, renew, say):
        return open_pack(target)
    _refuse_if_unwritable(target)
    classes = read_classes(root)
    entries = {name: read_list(root, name, name in scored) for name in lists}
    with JpegWarnings() as jpeg:
        checked = _check_all(entries, classes, report, jpeg)
        notes = {name: list_notes(name, rows, classes, name in scored) for name, rows in checked.items()}
        notes[""] = [*_across(root, checked), *jpeg_notes(jpeg.result(), checked)]
    with _writing(target):
        target.mkdir(parents=True, exist_ok=True)
        refuse_irregular(lock := target / ".packed.lock")
        with FileLock(lock):
            if not _up_to_date(target, stamp, renew):
                _remove_leftovers(target / "packed")
                _refuse_if_full(target, checked)
                _write(target / "packed", checked, classes, stamp, report, notes, scored)
    return open_pack(target)


def _check_all(
    entries: dict[str, list[Entry]], classes: Sequence[str], report: Progress, jpeg: JpegWarnings
) -> dict[str, list[Checked]]:
    """Check each distinct picture once, in threads: decoding leaves the interpreter lock. JPEGs go on to `jpeg`."""

    def job(entry: Entry) -> tuple[Path, Path | None, bool, bool]:
        return entry.image, entry.mask, entry.labelled, entry.may_be_empty

    jobs: dict[tuple[Path, Path | None, bool, bool], Entry] = {}
    for entry in (entry for part in entries.values() for entry in part):
        jobs.setdefault(job(entry), entry)
    results: dict[tuple[Path, Path | None, bool, bool], Checked] = {}
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        try:
            for key, result in zip(jobs, pool.map(lambda e: check_entry(e, classes), jobs.values()), strict=True):
                results[key] = result
                if result.entry.image.suffix.lower() != ".png":
                    jpeg.add(result.entry.image)
                report("checking", len(results), len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return {name: [results[job(e)] for e in part] for name, part in entries.items()}


def _across(root: Path, checked: dict[str, list[Checked]]) -> list[str]:
    """List what is odd about the folder and all lists together, one line each."""
    lines = pack_notes(checked)
    there = [
        sorted(p.name for p in (root / part).iterdir()) if (root / part).is_dir() else []
        for part in ("Annotations", "SegmentationClass")
    ]
    lines += folder_notes(
        there[0], there[1], sum(row.entry.mask is not None for rows in checked.values() for row in rows)
    )
    for name in checked:
        if folders := other_folders(root, name):
            lines.append(
                f"note: {name}: its lines name files in {', '.join(folders[:3])}, of which none is read: images are "
                "those of JPEGImages, masks those of SegmentationClass"
            )
    if "trainaug" in checked and (others := [name for name in other_names(root, "trainaug") if name not in checked]):
        lines.append(f"note: there is also {others[0]}.txt, another name for trainaug, which is not packed")
    return lines


def _write(
    packed: Path,
    checked: dict[str, list[Checked]],
    classes: Sequence[str],
    stamp: str,
    report: Progress,
    notes: dict[str, list[str]],
    scored: Sequence[str],
) -> None:
    """Write the packed folder, whole or absent. `notes` has the lines of each list, and those of all under ""."""
    total, done = sum(map(len, checked.values())), 0
    listed: dict[str, Any] = {}
    with whole_folder(packed) as folder:
        for name, rows in checked.items():
            list_digest = _list_digest(rows)
            schema = pa.schema([("image", pa.binary()), ("mask", pa.binary())], metadata={"digest": list_digest})
            with open(folder / f"{name}.arrow", "wb") as file:
                with ipc.new_file(file, schema) as writer:
                    for row in rows:
                        image = _read_again(row.entry.image, row.image_digest)
                        mask = _read_again(row.entry.mask, row.mask_digest)
                        # One row per batch: a row is read alone, also from object storage.
                        writer.write_batch(pa.record_batch([[image], [mask]], schema=schema))
                        done += 1
                        report("packing", done, total)
                _sync(file)
            labels = [_label(row, len(classes)) for row in rows]
            index = pa.table(
                {"id": [row.entry.name for row in rows], "label": pa.array(labels, pa.list_(pa.float32()))}
            )
            with open(folder / f"{name}.index.arrow", "wb") as file:
                with ipc.new_file(file, index.schema) as writer:
                    writer.write_table(index)
                _sync(file)
            listed[name] = {
                "rows": len(rows),
                "digest": list_digest,
                "bytes": (folder / f"{name}.arrow").stat().st_size,
                "index_bytes": (folder / f"{name}.index.arrow").stat().st_size,
                "sha256": file_digest(folder / f"{name}.arrow"),
                "index_sha256": file_digest(folder / f"{name}.index.arrow"),
                "notes": notes[name],
            }
        write_check(folder / CHECK, checked, scored, classes)
        # A list without labels takes no part in any result: packing it later must not make a data set another one.
        labelled = [name for name, rows in checked.items() if rows[0].classes is not None]
        content = [list(classes), sorted((name, listed[name]["digest"]) for name in labelled)]
        manifest = {
            "format": PACK_FORMAT,
            "classes": list(classes),
            "fingerprint": hashlib.sha256(json.dumps(content).encode()).hexdigest(),
            "lists": listed,
            "sources": stamp,
            "notes": notes[""],
        }
        write_json(folder / "manifest.json", manifest)


def _label(row: Checked, count: int) -> list[float]:
    """1 for each class that is present, 0 for the others; all NaN where the label is not known."""
    return [math.nan] * count if row.classes is None else [float(c in row.classes) for c in range(count)]


def _list_digest(rows: Sequence[Checked]) -> str:
    """SHA-256 over the sorted (id, image digest, classes, mask digest): the content, in whatever order and place."""
    known = [(r, "unknown" if r.classes is None else list(r.classes)) for r in rows]
    content = sorted([r.entry.name, r.image_digest, classes, r.mask_digest or ""] for r, classes in known)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _read_again(path: Path | None, expected: str | None) -> bytes | None:
    if path is None:
        return None
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != expected:
        raise InputError(f"{path} changed while it was being packed: run the command again")
    return data


def _stamp(root: Path, lists: Sequence[str], scored: Sequence[str]) -> str:
    """Digest of names, sizes and times of all source files: quick, for it reads none of them."""
    by_rule = "trainaug" in lists and not file_there(list_path(root, "trainaug"))
    sources = sorted({*lists, "train", "val"} if by_rule else lists)
    files = [root / "classes.txt", *(list_path(root, name) for name in sources)]
    stamps = [[str(f.relative_to(root)), f.stat().st_size, f.stat().st_mtime_ns] for f in files if file_there(f)]
    for part in ("JPEGImages", "Annotations", "SegmentationClass", *(SBD_FOLDERS if by_rule else ())):
        if (root / part).is_dir():
            with os.scandir(root / part) as items:
                for item in items:
                    resolves = not item.is_symlink() or os.path.exists(item)  # a link to nowhere may be in no list
                    status = item.stat(follow_symlinks=resolves)
                    stamps.append([f"{part}/{item.name}", status.st_size, status.st_mtime_ns])
    return digest([PACK_FORMAT, sorted(lists), sorted(set(scored) & set(lists)), sorted(stamps)])


def _packed(target: Path) -> list[str]:
    """Return the names of the lists in a packed folder, by its files where its manifest cannot be read; none if there
    is none.
    """
    try:
        return list(open_pack(target).lists)
    except InputError:
        ending = ".index.arrow"
        return sorted(path.name.removesuffix(ending) for path in (target / "packed").glob(f"*{ending}"))


def _up_to_date(target: Path, stamp: str, renew: bool, say: Callable[[str], None] | None = None) -> bool:
    """Return whether what is packed is of these sources, and whole; with `say`, who hears of damage, all of it
    is read.
    """
    try:
        pack = open_pack(target)
        if pack.manifest.get("sources") != stamp or (renew and not pack.checkable):
            return False
        pack.check(again=say is not None)
    except DamagedFile as error:
        if say is not None:
            say(f"{error.path} is damaged; packing anew")
        return False
    except InputError:
        return False
    return True


def _refuse_no_folder(packed: Path) -> None:
    """Say what lies in the place of the packed folder, where it is none."""
    if is_there(packed) and not folder_there(packed):
        raise InputError(
            f"{packed} is a file, and the packed images lie there as a folder: move it away, or give --out FOLDER and "
            "then --set data.root=FOLDER"
        )


def _remove_leftovers(packed: Path) -> None:
    """Remove what a killed run left beside the packed folder; the lock is held, so no other run can be writing it."""
    for place in {packed.absolute(), packed.resolve()}:
        for pattern in (f".{place.name}.*.tmp", f".{place.name}.*.old"):
            for path in place.parent.glob(pattern):
                path.unlink() if path.is_symlink() else shutil.rmtree(path)


def _refuse_if_unwritable(target: Path) -> None:
    """Say so before minutes are spent on checking."""
    try:
        existing = next(path for path in (target, *target.absolute().parents) if path.exists())
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}): give --out FOLDER and then --set data.root=FOLDER"
        ) from error


def _refuse_if_full(target: Path, checked: dict[str, list[Checked]]) -> None:
    needed = sum(row.size + 1024 for rows in checked.values() for row in rows)
    free = shutil.disk_usage(target).free
    if free < needed:
        raise InputError(
            f"{target}: packing needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free: make room, "
            "or give --out FOLDER and then --set data.root=FOLDER"
        )


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn a folder that cannot be written into an InputError that says what to do."""
    reasons = {errno.ENOSPC: "is full", errno.EDQUOT: "is over quota", errno.EROFS: "is read-only"}
    reasons |= {errno.EACCES: "may not be written by this user", errno.EPERM: "may not be written by this user"}
    reasons |= {errno.EFBIG: "takes no file of this size, raise the limit (ulimit -f)"}
    reasons |= {errno.ENOTDIR: "is no folder", errno.EEXIST: "is no folder"}
    try:
        yield
    except OSError as error:
        if error.errno not in reasons:
            raise
        cure = "make room, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        reason = reasons[error.errno]
        raise InputError(f"{target} {reason}: {cure}give --out FOLDER and then --set data.root=FOLDER") from error


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
