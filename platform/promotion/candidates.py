"""Which run somebody means, by uid, run key, MLflow id or path; what is known of it; what may not go on is refused."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cpn.config import Config, config_from, run_key, with_values
from cpn.core.checked import OF_RUN, SWEEP_WRITES, read_typed
from cpn.core.errors import InputError
from cpn.core.files import DamagedFile, file_digest
from cpn.core.plain_file import file_there, is_there
from cpn.core.run_files import MODEL, RESULT
from cpn.scoring.run_manifest import Lineage, RunManifest

from ..base import bucket_sync
from ..base.paths import Storage
from ..config.sections import CONFIRM_STUDY
from ..config.spec import apply_sets
from ..config.sweep_spec import SweepSpec
from ..reports.snapshot import older_study
from ..reports.sweep_status import stored_uri, study_of, sweep_names
from ..search.study import State, Study, TrialRow, read_study
from ..search.study_store import study_names
from ..search.sweep_summary import read_summary
from ..tracking.origin import Origin, folder_origin, sweep_origin
from ..tracking.read import read_run
from .garbage import index_runs

UID = re.compile(rf"(?P<study>(?P<sweep>.+?)({re.escape(CONFIRM_STUDY)})?)-\d{{4,}}")
RUN_KEY, RUN_ID = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{32}")
LATER = ("crf", "irn", "affinity", "random_walk", "instance_masks", "deeplab")
"""Sections of the stages to come: these may be changed for a network that is trained."""
OF_A_CHECKPOINT = ("data", "cam")
"""What a checkpoint that comes alone does not know, besides."""


@dataclass(frozen=True)
class Gate:
    """One gate and whether it holds, in words."""

    name: str
    holds: bool
    words: str


@dataclass(frozen=True)
class Candidate:
    """A trained network that may go on."""

    uid: str
    """Its run in MLflow."""
    model: Path
    key: str | None
    """The run key; None for a checkpoint that no run of ours wrote."""
    config: Config
    """The run's, with the sections of the later stages as they are to be."""
    beta: float
    lineage: Lineage = Lineage()
    """As the run's result.json has it; what the checkpoint itself says where there is none."""
    row: TrialRow | None = None
    """As its study knows it; None for a run of no sweep."""


def locate(store: Storage, run: str, sweep: str | None, uri: str | None) -> tuple[str, str | Path]:
    """Return the sweep whose champion RUN is to become, and its uid there; or its model.safetensors, for a run of no
    sweep.

    Raises InputError in words for what is no run, or is one of several sweeps.
    """
    there = sweep_names(store)
    path = Path(run)
    if path.suffix == ".safetensors" or (len(path.parts) > 1 and is_there(path)):
        return _alone(path / MODEL if path.is_dir() else path, sweep)
    if run in there:
        raise InputError(f"{run}: is a sweep; name one of its runs, for example {run}-0000")
    if RUN_ID.fullmatch(run):
        uris = dict.fromkeys([uri] if uri else [stored_uri(store, name) for name in there])
        rows = [entry for each in uris if (entry := read_run(each, run)) is not None]
        if not rows:
            raise InputError(f"{run}: no run of that id in the tracking store; name its uid, or --uri of its store")
        if rows[0].tags.get("kind") not in ("trial", "confirm", "checkpoint"):
            raise InputError(f"{run}: is {rows[0].name!r}, which has no CAM network; name a trial's run")
        run = rows[0].uid
    match = UID.fullmatch(run)
    if match and match["sweep"] in there:
        if sweep not in (None, match["sweep"]):
            raise InputError(f"--sweep {sweep}: {run} is a run of {match['sweep']}; leave --sweep out")
        spec = store.sweep(match["sweep"]).spec
        if store.url is None and not spec.exists():
            raise DamagedFile(spec, SWEEP_WRITES, missing=True)
        return match["sweep"], run
    if RUN_KEY.fullmatch(run):
        holders: dict[str, str] = {}
        for name in [sweep] if sweep in there else there:
            if store.sweep(name).spec.exists():
                index = index_runs(store, name)
                for row, key in [*index.confirm, *index.rows]:
                    if key == run:
                        holders[name] = row.uid
        if len(holders) > 1:
            raise InputError(f"{run}: is a run of {' and '.join(holders)}; say --sweep, whose champion it is to become")
        if holders:
            return next(iter(holders.items()))
        if store.run(run).is_dir():
            return _alone(store.run(run) / MODEL, sweep)
    names = ", ".join(there) or "none"
    raise InputError(
        f"{run}: no such run in {store.root} (sweeps: {names}); give a trial's uid, its run key, its MLflow run id or "
        "a model.safetensors; --storage names the folder"
    )


def _alone(path: Path, sweep: str | None) -> tuple[str, Path]:
    if not file_there(path):
        raise InputError(f"{path}: no such file; give a run's model.safetensors")
    if sweep is None:
        raise InputError(
            f"{path}: no sweep made it; say --sweep NAME, whose champion it is to become (a new name, too)"
        )
    return sweep, path


@dataclass(frozen=True)
class SweepStudies:
    """A sweep's studies, to be read, and where the runs lie."""

    spec: SweepSpec
    store: Storage
    trials: Study | None
    again: Study | None

    @property
    def rows(self) -> list[TrialRow]:
        """The trials."""
        return self.trials.rows() if self.trials else []

    @property
    def confirm(self) -> list[TrialRow]:
        """The confirm runs."""
        return self.again.rows() if self.again else []

    def key(self, row: TrialRow) -> str:
        """Return the run key of a trial; of one that has ended the key that it ended with."""
        if row.run_key:
            return row.run_key
        fingerprint = self.trials.identity().data if self.trials else ""
        return run_key(with_values(self.spec.base_config, row.values, f"trial {row.uid}"), fingerprint)

    def folder(self, row: TrialRow) -> Path:
        """Return where a trial's run lies, fetched where it is kept elsewhere."""
        folder = self.store.run(self.key(row))
        bucket_sync.download_run(self.store, folder, logging.getLogger(__name__).warning)
        return folder


def open_studies(store: Storage, spec: SweepSpec) -> SweepStudies:
    """Return the studies of a sweep, if it has any. Raises InputError where the database cannot be reached."""
    url = study_of(store, {"tracking": spec.tracking.model_dump()})
    there = study_names(url) if url != f"sqlite:///{store.study}" or store.study.exists() else []
    studies = [read_study(name, url) if name in there else None for name in (spec.name, spec.name + CONFIRM_STUDY)]
    return SweepStudies(spec, store, *studies)


def origin_of(studies: SweepStudies) -> Origin:
    """Whose the records of a sweep are: its study's, or of a sweep without one those of its folder."""
    folder = studies.store.sweep(studies.spec.name).records
    return sweep_origin(studies.trials, folder) if studies.trials else folder_origin(folder)


def of_trial(studies: SweepStudies, uid: str, sets: Sequence[str]) -> Candidate:
    """Return a trial or confirm run. Raises InputError in words for one that is unfinished, pruned, failed or gone."""
    rows = studies.confirm if f"{CONFIRM_STUDY}-" in uid else studies.rows
    row = next((row for row in rows if row.uid == uid), None)
    if row is None:
        url = study_of(studies.store, {"tracking": studies.spec.tracking.model_dump()})
        summary = read_summary(studies.store.sweep(studies.spec.name).summary)
        if lost := older_study(sum(trial.state.finished for trial in studies.rows), summary, url):
            raise InputError(f"{uid}: {lost}")
        last = f", the last is {rows[-1].uid}" if rows else ""
        raise InputError(
            f"{uid}: the study has {len(rows)} such runs{last}; python -m platform.status shows the sweeps"
        )
    if row.state is State.PRUNED:
        raise InputError(f"{uid}: was pruned after epoch {row.epochs}, it has no whole network; promote a complete run")
    if row.state is State.FAIL:
        raise InputError(f"{uid}: failed ({row.reason}), it has no whole network; promote a complete run")
    if not row.state.finished:
        raise InputError(f"{uid}: is not finished; the sweep's own command finishes it")
    folder = studies.folder(row)
    manifest = _manifest(folder)
    if manifest is None or not (folder / MODEL).is_file():
        raise InputError(
            f"{uid}: its folder {folder} is gone or not whole; promote another run, put the folder back, or make it "
            f"again: python -m platform.export {uid} > run.yaml, then python -m platform.train run.yaml"
        )
    config = changed(with_values(studies.spec.base_config, row.values, f"trial {uid}"), sets, LATER)
    beta = studies.spec.base_config.cam.beta if row.beta is None else row.beta
    return Candidate(uid, folder / MODEL, folder.name, config, beta, manifest.lineage, row)


def of_checkpoint(path: Path, sweep: str, sets: Sequence[str], backbone: str | None) -> Candidate:
    """Return a CAM network's model.safetensors that no trial stands for: a single run's, or a released one, converted.

    Raises InputError for another file, or one that names other code than `backbone` as its backbone.
    """
    from cpn.models.checkpoint import network_metadata, read_metadata  # torch, which trials of a sweep do without

    config, classes = network_metadata(path, "cam", "CAM network", backbone)
    metadata, manifest = read_metadata(path), _manifest(path.parent)
    lineage = Lineage(metadata.get("version"), metadata.get("fingerprint"), classes=classes)
    if manifest is not None:
        lineage = manifest.lineage
    config = changed(config, sets, (*LATER, *OF_A_CHECKPOINT, "network.weights"))
    beta = config.cam.beta if metadata.get("beta") is None else float(metadata["beta"])
    uid = f"{sweep}.checkpoint-{file_digest(path)[:16]}"
    return Candidate(uid, path.absolute(), metadata.get("key"), config, beta, lineage)


def changed(config: Config, sets: Sequence[str], allowed: Sequence[str]) -> Config:
    """Return the configuration with `--set` values. Raises InputError for one that a trained network cannot change."""
    for text in sets:
        name = text.partition("=")[0].strip()
        if name != "data.root" and not any(name == part or name.startswith(f"{part}.") for part in allowed):
            raise InputError(
                f"--set {name}: the network is trained already; what can change are data.root, {', '.join(allowed)}, "
                "resources and tracking"
            )
    return config_from(apply_sets(config.model_dump(mode="json"), sets, "--set"), "--set")


def _manifest(folder: Path) -> RunManifest | None:
    """Return the manifest of a finished run; None where there is none. Raises DamagedFile."""
    try:
        return read_typed(folder / RESULT, RunManifest, OF_RUN)
    except FileNotFoundError:
        return None
