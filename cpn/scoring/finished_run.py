"""The manifest of a finished run, and which of its files are damaged."""

from collections.abc import Callable, Collection
from pathlib import Path

from cpn.core.checked import OF_RUN, damaged_among, read_typed
from cpn.core.files import DamagedFile
from cpn.core.run_files import PICTURES, RESULT
from cpn.scoring.run_manifest import RunManifest


def finished_run(folder: Path, say: Callable[[str], None] = lambda line: None) -> RunManifest | None:
    """Read the manifest of a finished run whose files are whole, else None; `say` hears of a damaged one, in a line."""
    damaged = damaged_files(folder)
    if damaged:
        say(f"{folder / damaged[0]}: missing or damaged; the run is made again where it is needed")
    return read_result(folder) if damaged == [] else None


def read_result(folder: Path) -> RunManifest | None:
    """Return the manifest of a run, None where there is none, or none that is whole."""
    try:
        return read_typed(folder / RESULT, RunManifest, OF_RUN)
    except (OSError, DamagedFile):
        return None


def damaged_files(folder: Path, names: Collection[str] | None = None) -> list[str] | None:
    """List the files of a run (all, or `names` among them) that are missing or not what was written, pictures last;
    None where no run has been finished. Read once a machine, then remembered while the files stay unchanged.
    """
    if not (folder / RESULT).exists():
        return None
    result = read_result(folder)
    if result is None:
        return [RESULT]
    wanted = {name: sha256 for name, sha256 in result.digests.items() if names is None or name in names}
    return sorted(damaged_among(folder, wanted), key=lambda name: (name.startswith(PICTURES), name))
