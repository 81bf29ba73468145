"""A packed data set in object storage: putting it there, and copying it to a machine once, for whoever works on it.

Training reads single rows in random order, many times over; a memory map of a local copy is what makes that quick.
"""

import shutil
from pathlib import Path

from filelock import FileLock

from cpn.core import object_storage
from cpn.core.errors import InputError
from cpn.core.files import check_place, digest, whole_folder, write_json
from cpn.core.progress import Progress, shown_progress, silent
from cpn.data.voc import Pack, open_pack, packed_files

MANIFEST = "manifest.json"


def publish(pack: Pack, url: str, progress: Progress | None = None) -> None:
    """Put a packed data set to `url`/packed, its manifest last; what lies there already is not sent again.

    Raises InputError when object storage does not take it.
    """
    report, files = progress or silent, packed_files(pack)
    folder, system_and_path = Path(pack.root) / "packed", object_storage.filesystem(f"{url}/packed")
    try:
        if object_storage.read_object(f"{url}/packed/{MANIFEST}") == (folder / MANIFEST).read_bytes():
            return
        system, path = system_and_path
        if object_storage.read_object(f"{url}/packed/{MANIFEST}") is not None:
            system.delete_file(f"{path}/{MANIFEST}")  # the old list of files, which are about to be replaced
        for done, name in enumerate([*files, MANIFEST]):
            report("sending", done, len(files) + 1)
            object_storage.send(folder / name, f"{url}/packed/{name}")
        report("sending", len(files) + 1, len(files) + 1)
    except OSError as error:
        raise InputError(f"--out: {url}: {object_storage.explain(error)}") from error


def data_folder(root: str) -> str:
    """Return where this machine reads a packed data set: its folder, or its own copy of what lies at a URL."""
    if not object_storage.is_url(root):
        return root
    place = object_storage.scratch()
    check_place(place, object_storage.SCRATCH)
    with shown_progress() as progress:
        return str(local_copy(root, place, progress))


def local_copy(url: str, cache: Path, progress: Progress | None = None) -> Path:
    """Return the folder of this machine's copy of the packed data set at `url`, below `cache`; copied if it is not
    there.

    The copy is known by its content: another data set at the same URL is another copy. Several processes may ask at
    once: one copies, the others wait. Raises InputError when there is none at `url`, it changes meanwhile, or does not
    fit.
    """
    report = progress or silent
    pack = open_pack(url)
    files = packed_files(pack)
    copy = cache / f"data-{digest([pack.fingerprint, files])}"
    with FileLock(cache / f".{copy.name}.lock"):
        if (copy / "packed").is_dir():
            if _whole(copy):
                return copy
            shutil.rmtree(copy / "packed")
        needed, free = sum(size for size, _ in files.values()), shutil.disk_usage(cache).free
        if free < needed:
            raise InputError(
                f"data.root: {url} takes {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free in {cache}; make room, "
                f"or set {object_storage.SCRATCH} to a larger disk of this machine"
            )
        try:
            _copy(url, pack, copy / "packed", report)
        except object_storage.Damaged as error:
            raise InputError(
                f"data.root: {error}; put it there again: python -m cpn.prepare FOLDER --out {url}"
            ) from None
        except OSError as error:
            if error.filename is not None:
                raise
            raise InputError(f"data.root: {url}: {object_storage.explain(error)}") from error
    return copy


def _whole(copy: Path) -> bool:
    """Return whether this machine's copy is what was fetched (`Pack.check`)."""
    try:
        open_pack(copy).check()
    except InputError:
        return False
    return True


def _copy(url: str, pack: Pack, target: Path, report: Progress) -> None:
    """Fetch every file and hold it against the manifest; the folder gets its name when all are there."""
    system, path = object_storage.filesystem(f"{url}/packed")
    files = packed_files(pack)
    with whole_folder(target) as folder:
        for done, (name, (size, sha256)) in enumerate(files.items()):
            report("copying data", done, len(files))
            object_storage.fetch(system, f"{path}/{name}", folder / name, sha256)
            if (folder / name).stat().st_size != size:
                raise object_storage.Damaged(f"{path}/{name}: is not what was written there")
        write_json(folder / MANIFEST, pack.manifest)
        report("copying data", len(files), len(files))
