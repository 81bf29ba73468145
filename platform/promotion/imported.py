"""Score maps or pseudo labels of any method on their way to DeepLab and champion, by the stages and gates of a run's.

Their configuration is the sweep's own, so that what differs between them and its runs is the method alone. beta is
chosen on the selection images of the list that is scored, never on the validation list.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from cpn.config import METHOD_VERSION, Config
from cpn.config.random_walk import extra_supervision
from cpn.core.errors import InputError
from cpn.core.files import DamagedFile, digest, file_digest, read_json, write_json
from cpn.core.progress import Progress, shown_progress
from cpn.core.run_files import MODEL
from cpn.data.voc import Pack
from cpn.scoring.run_manifest import Lineage
from cpn.stages.imported_files import ImportedFiles, find_imported, measure, write_list
from cpn.stages.stage_manifest import StageManifest

from ..base.paths import Storage
from ..run.sweep_context import SweepContext
from ..tracking.in_mlflow.promotion_history import PERSON, PROMOTED, Decision
from .candidates import Candidate, Gate
from .promotion import stage_uid

LIST = "imported.json"
"""What files there are, with their digests; in a folder beside those of the runs."""


@dataclass(frozen=True)
class Imported:
    """Another method's files that may go on."""

    files: ImportedFiles
    chosen: Candidate
    """Their list of digests in the place of a network."""
    metrics: Mapping[str, float]
    """Of the list with masks, as a run has them; empty where there are no masks."""


def import_candidate(
    folder: Path,
    sweep: str,
    config: Config,
    pack: Pack,
    store: Storage,
    *,
    maps: bool,
    halved: bool,
    keep_in: Callable[[str], Path],
    shown: Callable[[], AbstractContextManager[Progress]] = shown_progress,
) -> Imported:
    """Find the files, list and measure them. `keep_in` gives the folder for a key: `store.run`, or another one for a
    dry run. InputError for files that do not fit the data, and for storage in a bucket.
    """
    if store.url is not None:
        raise InputError(f"{folder}: files of another method need storage in a folder, {store.url} is none")
    files = find_imported(folder, config, pack, maps, halved)
    listed = write_list(files, keep_in, LIST)
    of = [pack.fingerprint, config.data.score, config.cam.confirm_share, config.cam.confirm_seed, config.cam.beta]
    measurements = listed.with_name(f"measured-{digest(of)}.json")
    try:
        metrics = read_json(measurements)
    except (FileNotFoundError, DamagedFile):
        with shown() as report:
            metrics = measure(files, config, pack, report)
        write_json(measurements, metrics)
    uid = f"{sweep}.{'maps' if maps else 'labels'}-{file_digest(listed)[:16]}"
    lineage = Lineage(METHOD_VERSION, pack.fingerprint)
    return Imported(files, Candidate(uid, listed, None, config, metrics.get("beta", config.cam.beta), lineage), metrics)


def imported_gates(imported: Imported, pack: Pack) -> list[Gate]:
    """Return the gates of a run, as far as files without one can be asked."""
    files = imported.files.files
    size = f"{len(files.paths)} files, sha256 {file_digest(imported.chosen.model)[:12]} of their list"
    fits = f"each image of list {imported.chosen.config.data.train} has its file, data {pack.fingerprint[:12]}"
    if (extra := extra_supervision(imported.chosen.config.instance_masks)) is not None:
        fits += f"; {extra}"
    return [
        Gate("artifact", True, size),
        Gate("environment", True, f"{fits}; what made them is not known here"),
        Gate("confirm", False, f"one folder of {imported.files.kind} says nothing of other seeds of its method"),
    ]


def imported_champion(
    sweep: SweepContext,
    imported: Imported,
    stages: Mapping[str, StageManifest],
    why: str,
    gates: Mapping[str, str],
    overridden: Sequence[str],
) -> None:
    """Say that the alias moves to the DeepLab network of these files, for there is no CAM network to register."""
    key = stages["deeplab"].key
    model = sweep.store.stage("deeplab", key) / MODEL
    backbone = imported.chosen.config.network.backbone
    decision = Decision(
        kind=PROMOTED, by=PERSON, uid=imported.chosen.uid, gates=dict(gates), overridden=tuple(overridden)
    )
    sweep.records.promoted(
        stage_uid(sweep.spec.name, "deeplab", key),
        file_digest(model),
        gates["confirm"],
        None,
        checkpoint=model,
        backbone=backbone if ":" in backbone else None,
        why=why,
        decision=decision,
    )
