"""The one way of a checkpoint to RW and DeepLab: of a sweep's winner, a run named by hand, an alias moved by hand.

It becomes a registered version, alias `champion` moves to it with an entry in the history, and the stages run, each
once: their keys follow from what the network is. Killed at any moment, the same call goes on.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cpn.config import merge
from cpn.core.contents import is_code
from cpn.core.errors import InputError
from cpn.core.files import file_digest, write_bytes
from cpn.core.redact import redacted
from cpn.core.run_files import MODEL
from cpn.data.voc import Pack, open_pack
from cpn.stages.imported_files import ImportedFiles
from cpn.stages.stage_manifest import StageManifest, stage_keys

from ..base.lock import locked
from ..base.paths import Storage, check_apart_from_data
from ..base.provenance import provenance
from ..base.terminal import Terminal
from ..base.yaml_files import dump_yaml, load_kept
from ..cluster.capacity import Node
from ..cluster.inputs import check_weights, data_root, prepare_data, prepare_weights, shared_data
from ..cluster.interruption import Interruption
from ..config.own_code import check_code_of
from ..config.spec import spec_from
from ..config.sweep_spec import SweepSpec
from ..run.run_stages import run_stages, stages_of
from ..run.stage_files import look
from ..run.sweep_context import SweepContext
from ..run.trial_loop import RECORDS_S
from ..tracking.in_mlflow.promotion_history import PROMOTED, Decision
from ..tracking.read import read_model_state
from ..tracking.recorder import Recorder, check_store
from ..tracking.records import Records, model_name
from .candidates import Candidate, Gate, SweepStudies, of_checkpoint, of_trial, origin_of
from .gates import artifact_gate, confirm_gate, environment_gate

OF_THE_SWEEP = ("resources", "tracking")
"""Sections of a sweep that `--set` may change when a run of it is promoted."""


def become_champion(
    sweep: SweepContext,
    chosen: Candidate,
    why: str,
    verdict: str,
    by: str,
    gates: Mapping[str, str] | None = None,
    overridden: Sequence[str] = (),
) -> bool:
    """Say that the alias moves to a version of this checkpoint; the history keeps `by`, and the `gates` in words with
    those that were `overridden` where they were asked.

    False where a sweep has said so before (`Records.promoted`).
    """
    backbone = chosen.config.network.backbone
    decision = Decision(
        kind=PROMOTED,
        by=by,
        uid=chosen.uid,
        **({"run_key": chosen.key} if chosen.key else {}),
        **({} if gates is None else {"gates": gates, "overridden": overridden}),
    )
    return sweep.records.promoted(
        chosen.uid,
        file_digest(chosen.model),
        verdict,
        chosen.key,
        checkpoint=chosen.model,
        backbone=backbone if ":" in backbone else None,
        why=why,
        decision=decision,
    )


def run_later_stages(
    sweep: SweepContext, chosen: Candidate, pack: Pack, root: str, imported: ImportedFiles | None = None
) -> dict[str, StageManifest]:
    """Run the stages from CAM to DeepLab that are not done; returns their manifests by name. Where `imported` files
    take the place of a stage, the candidate's file is the list of their digests.
    """
    records, name = sweep.records, sweep.spec.name

    def cluster() -> list[Node]:
        if chosen.row is None:  # a checkpoint of no sweep starts from weights of its own
            prepare_weights(chosen.config, sweep.store, sweep.terminal.say)
        return sweep.cluster()

    def started(stage: str, key: str, settings: Mapping[str, Any]) -> None:
        records.stage_started(stage_uid(name, stage, key), stage, settings)

    def ended(stage: str, key: str, manifest: StageManifest, out: Path) -> None:
        records.stage_ended(stage_uid(name, stage, key), stage, manifest, out)
        sweep.terminal.remaining.stage(stage, 1.0)
        sweep.save_clock()

    return run_stages(
        store=sweep.store,
        model=chosen.model,
        beta=chosen.beta,
        config=chosen.config,
        pack=pack,
        data_root=root,
        resources=sweep.spec.resources,
        cluster=cluster,
        claims=sweep.claims,
        terminal=sweep.terminal,
        started=started,
        ended=ended,
        imported=imported,
    )


def stage_uid(name: str, stage: str, key: str) -> str:
    """Return the uid of a stage's run in sweep `name`."""
    return f"{name}.{stage}-{key}"


def read_spec(
    store: Storage, name: str, sets: Sequence[str], uri: str | None, method: bool = False
) -> tuple[SweepSpec, list[str]]:
    """Return the sweep as it ran last, or one of that name for a checkpoint of no sweep; and the `--set` values that
    are left: none with `method`, which lets them change the method's values as well.

    Raises InputError where a password was not kept.
    """
    mine = [text for text in sets if method or text.partition(".")[0].strip() in OF_THE_SWEEP]
    rest = [text for text in sets if text not in mine]
    path = store.sweep(name).spec
    raw = load_kept(path) if path.exists() else {"name": name}
    raw = merge(raw, {"resources": {"storage": store.place}})
    if uri is not None:
        raw = merge(raw, {"tracking": {"uri": uri}})
    spec = spec_from(raw, mine, path)
    if "***" in (spec.tracking.uri or ""):
        raise InputError("--uri: the password of tracking.uri was not kept; give the whole URI")
    return spec, rest


def candidate(studies: SweepStudies, which: str | Path, sets: Sequence[str], backbone: str | None) -> Candidate:
    """Return the run that `locate` found. Raises InputError for one that cannot go on."""
    if isinstance(which, Path):
        return of_checkpoint(which, studies.spec.name, sets, backbone)
    return of_trial(studies, which, sets)


def data_of(chosen: Candidate, store: Storage, terminal: Terminal, make: bool) -> tuple[Pack, str]:
    """Return the packed data that the stages read, made or packed if `make`, and where they lie. Without `make`, for a
    dry run, the user's own code is not imported.

    Raises InputError when they are not there, have other classes than the network, or its code is refused.
    """
    root = data_root(chosen.config, store)
    check_apart_from_data(store, chosen.config.data.root, "--storage")
    check_code_of(chosen.config)
    if make or not is_code(chosen.config.network.backbone):
        check_weights(chosen.config, store, terminal.say)
    else:
        terminal.say(
            f"runs code: {chosen.config.network.backbone}, which is not imported here, nor its weights checked"
        )
    if make:
        pack = prepare_data(chosen.config, store, terminal.say)
        root = shared_data(chosen.config, store, pack)
    else:
        pack = open_pack(root)
    classes = chosen.lineage.classes
    if classes is not None and classes != pack.classes:
        raise InputError(f"data.root: {root} has other classes than {chosen.model}; give the data it was trained on")
    return pack, root


def gates_of(
    studies: SweepStudies, chosen: Candidate, pack: Pack, versions: Mapping[str, Mapping[str, str]]
) -> list[Gate]:
    """Return all gates; `versions` are the registered ones with their tags, as far as they are known."""
    return [
        artifact_gate(chosen, versions.values()),
        environment_gate(chosen, pack),
        confirm_gate(studies.spec, studies.rows, studies.confirm, studies.folder, chosen.row),
    ]


def in_storage(chosen: Candidate, store: Storage) -> Candidate:
    """Copy the candidate's file into the storage where it is not there: every node reads it by its place in it.

    Raises InputError where the storage is a bucket.
    """
    if chosen.model.is_relative_to(store.root):
        return chosen
    if store.url is not None:
        raise InputError(f"{chosen.model}: a checkpoint of no sweep needs storage in a folder, {store.url} is none")
    copy = store.run(file_digest(chosen.model)[:16]) / MODEL
    if not copy.exists():
        write_bytes(copy, chosen.model.read_bytes())
    return replace(chosen, model=copy)


def stage_plan(store: Storage, chosen: Candidate, pack: Pack, imported: str | None = None) -> dict[str, bool]:
    """Return each stage's folder name, and whether it is done; `imported` names the stage that other files
    stand for.
    """

    keys = stage_keys(file_digest(chosen.model), chosen.config, pack.fingerprint, beta=chosen.beta, imported=imported)
    folders = [store.stage(stage, keys[stage]) for stage in stages_of(chosen.config, imported)]
    return {folder.name: look(folder, everything=False).whole for folder in folders}


def known_versions(uri: str | None, name: str) -> dict[str, dict[str, str]]:
    """Return the registered versions of a sweep's model; none where the store is away or has no such model."""
    if check_store(uri) is not None:
        return {}
    state = read_model_state(uri, model_name(name))
    return state.versions if state else {}


@contextmanager
def sweep_of(
    studies: SweepStudies,
    spec: SweepSpec,
    pack: Pack,
    root: str,
    terminal: Terminal,
    interruption: Interruption,
    command: str,
) -> Iterator[tuple[SweepContext, Recorder]]:
    """Open what the steps of a sweep share, for a command beside its driver; keeps the driver away. Ends what
    it began.
    """

    store = studies.store
    paths = store.sweep(spec.name)
    with locked(paths, spec.name):
        if not paths.spec.exists():
            dump_yaml(paths.spec, redacted(spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)))
        recorder = Recorder(paths.records, spec.tracking.uri, spec.name, terminal.warn, origin_of(studies))
        recorder.check()
        records = Records(recorder, spec, pack.fingerprint, provenance(command), root)
        sweep = SweepContext(spec, pack, root, store, terminal, records, interruption)
        try:
            yield sweep, recorder
        except KeyboardInterrupt:
            interruption.explain()
            raise
        finally:
            with interruption.closing():
                sweep.close()
                waiting = recorder.close(RECORDS_S)
            if waiting:
                terminal.say(
                    f"{waiting} records wait for the tracking store, the alias among them; next, once it answers: "
                    f"{command}"
                )
