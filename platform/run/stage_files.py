"""What a finished stage consists of: digests of its files, kept with its manifest and checked before it is used again.

    manifest.json    written last, with a digest of itself; `files` in it is the digest of
    files.json       name -> SHA-256 of every other file of the stage

The few files that a sweep shows (network, counts, pictures) are checked at every start, those of each image where a
later stage is about to read them: whoever has deleted maps to make room need not make them again for nothing. In a
bucket every file is checked when it is fetched (cpn/core/object_storage.py), and there is no files.json. Stages of
earlier versions have none either and are taken as they are.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cpn.core.checked import damaged_among, read_typed
from cpn.core.files import DamagedFile, file_digest, read_json, write_json
from cpn.core.object_storage import names_in
from cpn.core.run_files import CHECKPOINTS, COUNTS, PICTURES
from cpn.stages.stage_manifest import StageManifest

from ..base.paths import MANIFEST

FILES = "files.json"
READS = {
    "crf": ("cam",),
    "affinity": ("crf",),
    "random_walk": ("cam", "affinity"),
    "instance_masks": ("random_walk",),
    "deeplab": ("random_walk", "instance_masks"),
}
"""The earlier stages whose files a stage reads, as far as they are run."""
DRAWS = {"random_walk": ("cam", "crf")}
"""And those that its pictures show."""


@dataclass
class Found:
    """A stage's folder as it was found."""

    manifest: StageManifest | None = None
    """None: the stage is not done, or its manifest is damaged."""
    damaged: list[str] = field(default_factory=list)
    """Names of the files that are missing or not what was written."""
    known: bool = True
    """Whether there are digests of its files; earlier versions kept none."""

    @property
    def whole(self) -> bool:
        """Whether it is done and nothing is damaged."""
        return self.manifest is not None and not self.damaged

    @property
    def only_pictures(self) -> bool:
        """Whether nothing but pictures is damaged."""
        return self.manifest is not None and all(name.startswith(f"{PICTURES}/") for name in self.damaged)


def write_files(folder: Path) -> str:
    """Keep the digests of a stage's files; returns the digest of the file that holds them."""
    names = [name for name in names_in(folder) if name not in (MANIFEST, FILES) and not name.startswith(CHECKPOINTS)]
    write_json(folder / FILES, {name: file_digest(folder / name) for name in names})
    return file_digest(folder / FILES)


def is_of_image(name: str) -> bool:
    """Return whether a file of a stage is one of those that each image has."""
    return "/" not in name and name.endswith((".npz", ".png")) and name != COUNTS


def look(folder: Path, everything: bool) -> Found:
    """Return how a stage stands; with `everything` the files of each image are held against their digests too."""
    try:
        manifest = read_typed(folder / MANIFEST, StageManifest)
    except FileNotFoundError:
        # A folder has its own name only since all of it was there: one without a manifest has lost it.
        return Found(damaged=[MANIFEST]) if folder.is_dir() else Found()
    except DamagedFile:
        return Found(damaged=[MANIFEST])
    if manifest.files is None:
        return Found(manifest, known=False)
    try:
        digests: dict[str, str] = read_json(folder / FILES)
    except (FileNotFoundError, DamagedFile):
        return Found(manifest, [FILES])
    if file_digest(folder / FILES) != manifest.files:
        return Found(manifest, [FILES])
    wanted = {name: sha256 for name, sha256 in digests.items() if everything or not is_of_image(name)}
    return Found(manifest, damaged_among(folder, wanted))


def about_to_be_read(folders: Mapping[str, Path], stages: Iterable[str]) -> set[str]:
    """Return the stages (in order) whose files of each image some later stage, which is not done or damaged,
    will read.
    """
    needed: set[str] = set()
    for stage in reversed(list(stages)):
        if not look(folders[stage], stage in needed).whole:
            needed |= {*READS.get(stage, ()), *DRAWS.get(stage, ())}
    return needed & folders.keys()


def reopen(folder: Path, damaged: Iterable[str]) -> None:
    """Make a done stage one that is being made, without what is damaged: what is left in it is not made again."""
    for name in damaged:
        (folder / name).unlink(missing_ok=True)  # first: killed now, the stage is still found to be damaged
    work = folder.with_name(f"{folder.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    folder.rename(work)
    (work / MANIFEST).unlink(missing_ok=True)
    (work / FILES).unlink(missing_ok=True)


def checked(folder: Path, stage: str, everything: bool, warn: Callable[[str], None]) -> Found:
    """Return how a stage stands (`look`); `warn` hears, in a line, of damage and what is done about it.

    A stage that has lost more than pictures is being made again from here on: it has no manifest any more.
    """
    state = look(folder, everything)
    if not state.damaged:
        return state
    more = f" and {len(state.damaged) - 1} more" if len(state.damaged) > 1 else ""
    what = f"{folder / state.damaged[0]}{more}: missing or damaged"
    if state.damaged == [FILES] and state.manifest is not None:
        warn(f"{what}; the digests of its files are written anew")
        manifest = state.manifest.model_copy(update={"files": write_files(folder)})
        write_json(folder / MANIFEST, manifest.to_json())
        return Found(manifest)
    if state.only_pictures:
        warn(f"{what}; its pictures are drawn again")
    else:
        warn(f"{what}; what is lost of stage {stage} is made again")
        reopen(folder, state.damaged)
        return Found()
    return state
