"""Handle an alias that was moved in the MLflow UI: validate the version by the gates, then run the later stages, or
revert the alias; the history says why. The next command of the sweep does it, under the sweep's lock.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cpn.core.errors import InputError, WorkError
from cpn.stages.stage_manifest import StageManifest

from ..cluster.inputs import Say
from ..run.sweep_context import SweepContext
from ..tracking.in_mlflow.promotion_history import BY_HAND, PERSON, PUT_BACK, SWEEP, Decision
from ..tracking.read import read_model_state, read_run
from ..tracking.recorder import Recorder
from ..tracking.records import CHAMPION, model_name
from ..tracking.registry import ModelState
from .candidates import UID, Candidate, SweepStudies, of_trial
from .promotion import data_of, gates_of, run_later_stages

FLUSH_S = 20.0
"""Seconds to wait for pending records to reach the store: only after them does a moved alias count as a request."""


@dataclass(frozen=True)
class AliasOutcome:
    """What was done about an alias moved manually."""

    kind: str
    """BY_HAND: the move stands. PUT_BACK: it was reverted."""
    before: str | None
    """The version that the alias was moved from: by hand, or back."""
    to: str | None
    """Where it points now."""
    why: str
    uid: str | None = None
    """Of the run that the version was made of, where the move stands."""
    stages: Mapping[str, StageManifest] | None = None
    """Its later stages."""


def handle_alias_request(sweep: SweepContext, recorder: Recorder, studies: SweepStudies) -> AliasOutcome | None:
    """Handle an alias moved manually; return the outcome, None if there is no request or the store does not answer.

    The history records the alias once the stages are done, so that a stop in between leaves the request.
    """
    model = model_name(sweep.spec.name)
    if recorder.flush(FLUSH_S):
        return None
    state = read_model_state(recorder.uri, model)
    if state is None or not state.by_hand(CHAMPION):
        return None
    before, requested = state.last(CHAMPION), state.aliases.get(CHAMPION)
    if requested is None:
        why = "the alias was taken away by hand"
        recorder.moved(model, CHAMPION, before, None, why, Decision(kind=BY_HAND, by=PERSON))
        sweep.terminal.say(f"{model}: {why}; there is no champion, the history says so")
        return AliasOutcome(BY_HAND, before, None, why)
    sweep.terminal.say(f"{model}: {CHAMPION} was moved by hand from version {before} to {requested}")
    try:
        chosen = requested_run(studies, recorder, state, requested)
        pack, root = data_of(chosen, sweep.store, sweep.terminal, make=True)
        gates = gates_of(studies, chosen, pack, state.versions)
    except InputError as error:
        return put_back(recorder, state, str(error), sweep.terminal.say)
    # A reason that was kept when this version was promoted stands, and so does a sweep's own verdict.
    excused = {
        name
        for entry in state.history
        if entry.to == requested
        for name in (*entry.overridden, *(("confirm",) if entry.by in (SWEEP, None) else ()))
    }
    failed = [gate for gate in gates if not gate.holds and gate.name not in excused]
    if failed:
        words = "; ".join(f"gate {gate.name} does not hold: {gate.words}" for gate in failed)
        return put_back(recorder, state, words, sweep.terminal.say)
    manifests = run_later_stages(sweep, chosen, pack, root)
    why = f"moved by hand to version {requested}"
    decision = Decision(
        kind=BY_HAND,
        by=PERSON,
        uid=chosen.uid,
        gates={gate.name: gate.words for gate in gates},
        overridden=tuple(sorted(excused)),
        **({"run_key": chosen.key} if chosen.key else {}),
    )
    recorder.tags(chosen.uid, {"promoted": "true"})
    recorder.moved(model, CHAMPION, before, requested, why, decision)
    return AliasOutcome(BY_HAND, before, requested, why, chosen.uid, manifests)


def requested_run(studies: SweepStudies, recorder: Recorder, state: ModelState, version: str) -> Candidate:
    """Return the run that a version was made of. Raises InputError where it is none of this sweep's."""
    tags = state.versions[version]
    uid = tags.get("uid")
    if uid is None:
        row = read_run(recorder.uri, tags["run_id"]) if tags["run_id"] else None
        uid = row.uid if row else None
    match = UID.fullmatch(uid or "")
    if uid is None or match is None or match["sweep"] != studies.spec.name:
        what = f"{uid}" if uid else "a run that is not in the store"
        raise InputError(
            f"version {version} was made of {what}, which is no trial of sweep {studies.spec.name}; "
            f"python -m platform.rollback {studies.spec.name} --to {version} moves the alias without the stages"
        )
    return of_trial(studies, uid, ())


def put_back(recorder: Recorder, state: ModelState, why: str, say: Say) -> AliasOutcome:
    """Move the alias back to where the history has it, with the reason."""
    requested, before = state.aliases.get(CHAMPION), state.last(CHAMPION)
    reason = f"moved by hand to version {requested}, but {why}"
    if before is None:
        raise WorkError(f"{state.name}: {reason}; there is no champion to put back, delete the alias")
    recorder.point(state.name, CHAMPION, before, reason, Decision(kind=PUT_BACK))
    say(f"{state.name}: put back to version {before}: {why}")
    return AliasOutcome(PUT_BACK, requested, before, reason)
