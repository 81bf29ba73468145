"""The Optuna study: the one truth about which trials exist and how they ended. All reading and writing of it is here.

A study holds two kinds of trials. *Drawn* trials get their values from the sampler. *Fixed* trials carry theirs in the
attribute `values`: the reference (number 0 of a sweep, enqueued once, ever) and everything in a list study
(configurations to run again with other seeds). Both are asked for, reported, told and resumed in the same way, under
the uid `<study name>-<number>`.
"""

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from cpn.core.errors import InputError
from cpn.core.files import DamagedFile, digest
from cpn.core.redact import redact

from ..config.identity import StudyIdentity, as_begun, difference, identity_of, known_by_content
from ..config.space import domains
from ..config.sweep_spec import SweepSpec
from . import distributions
from .history import StudyView
from .study_store import check_apart as check_apart
from .study_store import check_direction, connect, cure_of, existing_studies, reachable, shown, study_names, understood
from .study_store import check_study as check_study
from .study_store import study_url as study_url
from .trial_row import REFERENCE as REFERENCE
from .trial_row import SEARCH as SEARCH
from .trial_row import State as State
from .trial_row import TrialRow as TrialRow
from .warm_start import Earlier, thinned, usable

SEAL = "seal"
"""Name among a finished trial's results of the digest of all that the study says of it."""
FROM = "warm_start_from"
"""Attribute of the first trial after the reference where it is the best of earlier sweeps: its uid there."""


class Study:
    """A sweep's trials (with `search`) or a list of fixed ones (without). One process writes, any number read.

    The writing process keeps its trials in memory and writes through, so that a trial costs the same whatever the
    number before it; a reading one sees each time what has been written.
    Every method raises InputError when the database cannot be reached.
    """

    def __init__(
        self,
        study: optuna.Study,
        url: str,
        search: domains.Search,
        seed: int,
        writes: bool = True,
        warm_trials: int = 0,
        sampler: Callable[[], BaseSampler] | None = None,
    ) -> None:
        self.name = study.study_name
        self.url = url
        self._study = study
        self._search = search
        self._seed = seed
        self._writes = writes
        self._sampler = sampler
        self.warm_trials = warm_trials
        """Trials of earlier sweeps that the sampler learns from."""
        self._finished: dict[int, TrialRow] = {}
        self._open: dict[int, FrozenTrial] = {}
        self._ended: dict[int, FrozenTrial] = {}
        self._loaded = False

    def close(self) -> None:
        """Give the connections back."""
        storage = self._study._storage
        storage.remove_session()

    def uid(self, number: int) -> str:
        return f"{self.name}-{number:04d}"

    def number(self, uid: str) -> int:
        """Return the number in a uid. ValueError when it is not one of this study."""
        name, _, number = uid.rpartition("-")
        if name != self.name or not number.isdigit():
            raise ValueError(f"{uid} is no trial of the study {self.name}")
        return int(number)

    def ask(self) -> TrialRow | None:
        """Start the next trial: a waiting fixed one, else a newly drawn one; None when a list study has none left."""
        with reachable(self.url):
            self._load()
            study = self._with_sampler()
            if any(trial.state == TrialState.WAITING for trial in self._open.values()):
                return self._resumed(study.ask())
            if not self._search:
                return None
            # Not Study.ask: looking for waiting trials, it reads all that are open, each time.
            return self._resumed(self._seeing(self._storage.create_new_trial(study._study_id)))

    def expected_gain(self, draws: int) -> float | None:
        """By how much the next trials are expected to raise the best score; None where the sampler expects nothing."""
        from .samplers import Gp  # and SciPy, of which a command that draws nothing has no use

        with reachable(self.url):
            sampler = self._with_sampler().sampler
            self._load()
            return sampler.expected_gain(self._view(), draws) if isinstance(sampler, Gp) else None

    def unfinished(self) -> list[TrialRow]:
        """Return the trials that were started and never told, in order; draws what a kill left undrawn."""
        with reachable(self.url):
            self._load()
            running = sorted(n for n, trial in self._open.items() if trial.state == TrialState.RUNNING)
            return [self._resumed(self._seeing(self._open[n]._trial_id)) for n in running]

    def report(self, uid: str, epoch: int, value: float) -> None:
        """Record `miou_epoch` of an epoch; a repeated epoch, a finished trial or a value that is not finite changes
        nothing.
        """
        with reachable(self.url):
            trial = self._running(uid)
            if trial is None or not math.isfinite(value) or epoch in trial.intermediate_values:
                return
            self._storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
            trial.intermediate_values[epoch] = value

    def mark(self, uid: str, **attrs: Any) -> None:
        """Record attributes of a running trial; on a finished one nothing changes."""
        with reachable(self.url):
            trial = self._running(uid)
            if trial is not None and attrs:
                result = {**trial.user_attrs.get("result", {}), **_plain(attrs)}
                self._storage.set_trial_user_attr(trial._trial_id, "result", result)
                trial.user_attrs["result"] = result

    def tell(
        self,
        uid: str,
        state: State,
        value: float | None = None,
        reason: str | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> State:
        """Finish a trial; returns the state it has then. A finished trial stays as it is, however often it is told.

        COMPLETE needs a finite value, else it becomes FAIL with the reason. A PRUNED trial keeps its last report as
        value.
        """
        if state is State.COMPLETE and (value is None or not math.isfinite(value)):
            state, reason = State.FAIL, f"{self.identity().metric} is {value}"
        with reachable(self.url):
            trial = self._running(uid)
            if trial is None:
                return self.row(uid).state
            self.mark(
                uid, **{**(attrs or {}), **({} if reason is None else {"reason": " ".join(redact(reason).split())})}
            )
            reports = trial.intermediate_values
            last = reports[max(reports)] if state is State.PRUNED and reports else None
            final = value if state is State.COMPLETE else last
            values = None if final is None else [float(final)]
            self._seal(trial, TrialState[state.name], values)
            self._storage.set_trial_state_values(trial._trial_id, TrialState[state.name], values)
            trial.values, trial.state = values, TrialState[state.name]
            self._ended[trial.number] = self._open.pop(trial.number)
            self._finished[trial.number] = self._row(trial)
            return state

    def _seal(self, trial: FrozenTrial, state: TrialState, values: list[float] | None) -> None:
        """Store a digest of the row of a trial that is about to end."""
        ended = copy.copy(trial)
        ended.state, ended.values = state, values
        result = {**trial.user_attrs.get("result", {})}
        result.pop(SEAL, None)
        result[SEAL] = _row_digest(self._row(ended, checked=False), trial)
        self._storage.set_trial_user_attr(trial._trial_id, "result", result)
        trial.user_attrs["result"] = result

    def row(self, uid: str) -> TrialRow:
        """Return one trial."""
        with reachable(self.url):
            self._load()
            number = self.number(uid)
            return self._finished[number] if number in self._finished else self._row(self._open[number])

    def rows(self) -> list[TrialRow]:
        """Return all trials by number."""
        with reachable(self.url):
            self._load()
            opened = {number: self._row(trial) for number, trial in self._open.items()}
            return [opened.get(number) or self._finished[number] for number in range(len(opened) + len(self._finished))]

    def ended(self) -> list[TrialRow]:
        """Return the trials that have ended, in the order in which they did or were read, however many are open."""
        with reachable(self.url):
            self._load()
            return list(self._finished.values())

    def times(self) -> dict[str, tuple[float, float | None]]:
        """Unix seconds at which each started trial was asked for first, and was told; None while it is open."""
        with reachable(self.url):
            return {
                self.uid(trial.number): (
                    trial.datetime_start.timestamp(),
                    trial.datetime_complete.timestamp() if trial.datetime_complete else None,
                )
                for trial in self._study.get_trials(deepcopy=False)
                if trial.datetime_start is not None
            }

    def counts(self) -> dict[State, int]:
        """Count the trials by state."""
        states = [row.state for row in self.rows()]
        return {state: states.count(state) for state in State}

    def identity(self) -> StudyIdentity:
        """Return the identity of the sweep that the study was made for."""
        with reachable(self.url):
            return _identity(self._study, self.url) or StudyIdentity()

    def remember(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep plain values about the whole study under `name`; they survive a restart."""
        with reachable(self.url):
            self._study.set_user_attr(name, dict(value))

    def remembered(self, name: str) -> dict[str, Any]:
        """Return what was stored under `name`; empty if nothing was."""
        with reachable(self.url), understood(self.url):
            values: dict[str, Any] = self._study.user_attrs.get(name, {})
            return values

    def enqueue(self, entries: Sequence[Mapping[str, Any]]) -> int:
        """Add fixed trials `{values, seed, role, ...}` that are not there yet; returns how many were new.

        An entry is known by the digest of its content, so enqueueing a list again, or a longer one, adds no double.
        """
        with reachable(self.url):
            known = {trial.user_attrs.get("key") for trial in self._study.get_trials(deepcopy=False)}
            added = 0
            for entry in entries:
                key = digest(dict(entry))
                if key not in known:
                    self._study.add_trial(distributions.waiting_trial({**entry, "key": key}, {}))
                    known.add(key)
                    added += 1
            self._loaded = False
            return added

    @property
    def _storage(self) -> BaseStorage:
        return self._study._storage

    def _with_sampler(self) -> optuna.Study:
        """Return the study, with its sampler from the first trial on that is asked for or goes on."""
        if self._sampler is not None:
            self._study.sampler, self._sampler = self._sampler(), None
        return self._study

    def _seeing(self, trial_id: int) -> optuna.Trial:
        """Return a trial whose sampler sees the study as it is kept here: from the database, each draw would read all
        open trials again.
        """
        self._with_sampler()
        return optuna.Trial(self._view(self._storage.get_trial(trial_id)), trial_id)

    def _view(self, *more: FrozenTrial) -> optuna.Study:
        trials = {**self._ended, **self._open, **{trial.number: trial for trial in more}}
        return cast(optuna.Study, StudyView(self._study, [trials[number] for number in sorted(trials)]))

    def _load(self) -> None:
        """Read what is not known yet: everything at first; later, for a reader, what is open or new."""
        if self._writes and self._loaded:
            return
        with understood(self.url):
            for trial in self._study.get_trials(deepcopy=False):
                if not trial.state.is_finished():
                    self._open[trial.number] = copy.deepcopy(trial)
                elif trial.number not in self._finished:
                    self._finished[trial.number] = self._row(trial)
                    self._ended[trial.number] = trial
                    self._open.pop(trial.number, None)
        numbers = self._open.keys() | self._finished.keys()
        if lost := set(range(len(numbers))) - numbers:
            raise DamagedFile(shown(self.url), cure_of(self.url), f"{self.uid(min(lost))} is not there any more")
        self._loaded = True

    def _running(self, uid: str) -> FrozenTrial | None:
        """Return the trial as this process knows it, or None when it is finished."""
        self._load()
        number = self.number(uid)
        trial = self._open.get(number)
        if trial is None and number not in self._finished:
            raise KeyError(uid)
        return trial if trial is not None and trial.state == TrialState.RUNNING else None

    def _resumed(self, live: optuna.Trial) -> TrialRow:
        if "values" not in live.user_attrs:
            distributions.draw(live, self._search)  # what was drawn before a kill is stored and comes back as it was
        self._open[live.number] = copy.deepcopy(live._cached_frozen_trial)
        return self._row(self._open[live.number])

    def _row(self, trial: FrozenTrial, checked: bool = True) -> TrialRow:
        """Return a trial as the study has it. Raises DamagedFile where one that has ended is not what it ended as."""
        own = dict(trial.user_attrs)
        result = {**own.pop("result", {})}
        seal = result.pop(SEAL, None)
        values = own.pop("values", None)
        state = State(trial.state.name)
        row = TrialRow(
            number=trial.number,
            uid=self.uid(trial.number),
            state=state,
            values=distributions.decode_params(trial.params, self._search) if values is None else values,
            seed=own.pop("seed", self._seed),
            role=own.pop("role", SEARCH),
            miou=trial.value if state is State.COMPLETE else None,
            beta=result.pop("beta", None),
            reports=dict(sorted(trial.intermediate_values.items())),
            reason=result.pop("reason", None),
            attrs={**own, **result},
        )
        if checked and seal is not None and state.finished and seal != _row_digest(row, trial):
            raise DamagedFile(shown(self.url), cure_of(self.url), f"{row.uid} is not what it ended as")
        return row


def _row_digest(row: TrialRow, trial: FrozenTrial) -> str:
    """Digest what the study stores of a trial, without the seed of a drawn one: that is the sweep's."""
    content = {**asdict(row), "state": row.state.name, "seed": trial.user_attrs.get("seed")}
    return digest(_plain(content))


def open_study(spec: SweepSpec, url: str, fingerprint: str, recalled: Sequence[Mapping[str, Any]] = ()) -> Study:
    """Open or make the study of a sweep; its first trial is the reference. `recalled` are the values of its trials by
    number, as far as they are known from elsewhere: those that the study lacks get them, and are not drawn again.

    Raises InputError when the database is down or not writable, when the study maximises nothing, or when it was made
    with another base, space, data or method version: the line names the fields that differ and how to go on.
    """
    seed, options = spec.base_config.train.seed, spec.search_options
    with reachable(url):
        identity = identity_of(spec, fingerprint)
        study = _open(spec.name, url, identity)
        search = domains.drawn(spec.search)
        earlier = _earlier(study, url, options.warm_start, identity, search)
        trials = study.get_trials(deepcopy=False)
        first: list[dict[str, Any]] = [] if trials else [{"values": spec.reference, "seed": seed, "role": REFERENCE}]
        if earlier and earlier[0].values != spec.reference and all(FROM not in trial.user_attrs for trial in trials):
            first.append({"values": earlier[0].values, "seed": seed, "role": SEARCH, FROM: earlier[0].uid})
        missing = recalled[len(trials) + len(first) : spec.trial_limit]
        first += [{"values": dict(values), "seed": seed, "role": SEARCH} for values in missing]
        for entry in first:
            study.add_trial(distributions.waiting_trial(entry, distributions.told_params(search, entry["values"])))
        history = [distributions.told_trial(search, trial.values, trial.miou) for trial in earlier[1:]]

    def sampler() -> BaseSampler:
        from .samplers import build_sampler  # and SciPy, of which a command that draws nothing has no use

        return build_sampler(options, search, spec.reference, history)

    return Study(study, url, search, seed, warm_trials=len(earlier), sampler=sampler)


def open_list(name: str, url: str, identity: StudyIdentity) -> Study:
    """Open or make a list study: fixed configurations (see `Study.enqueue`) that run through the same ask and tell."""
    with reachable(url):
        return Study(_open(name, url, identity), url, {}, 0)


def read_study(name: str, url: str) -> Study:
    """Open an existing study to look at it: rows and counts."""
    with reachable(url):
        storage, names = connect(url, create=False), study_names(url)
        if name not in names:
            raise InputError(f"{name}: no such sweep in {url}; there are: {', '.join(names) or 'none'}")
        with understood(url):
            study = optuna.load_study(study_name=name, storage=storage)
            check_direction(study.directions, study.user_attrs, name, url)
    search = (_identity(study, url) or StudyIdentity()).search
    return Study(study, url, domains.drawn(domains.parse_search(search)), 0, writes=False)


def existing_study(name: str, url: str) -> Study | None:
    """Return a study to look at, None where there is none."""
    return read_study(name, url) if name in existing_studies(url) else None


def continued(spec: SweepSpec, url: str) -> SweepSpec:
    """`spec` as its study was begun (`identity.as_begun`), where there is one."""
    study = existing_study(spec.name, url)
    if study is None:
        return spec
    spec = as_begun(spec, study.identity())
    study.close()
    return spec


def _open(name: str, url: str, identity: StudyIdentity) -> optuna.Study:
    """Make or load a study and hold its identity and direction against what is wanted."""
    storage, where = connect(url, create=True), f"{url}: study {name!r}"
    with understood(url):
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
        check_direction(study.directions, study.user_attrs, name, url)
    if study.metric_names is None:  # what other viewers of the database, optuna-dashboard say, call the value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([identity.metric])
    kept = _identity(study, url)
    known = None if kept is None else known_by_content(kept, identity)
    differs = "" if known is None else difference(known.to_json(), identity.to_json())
    if differs is not None and not study.get_trials(deepcopy=False):  # new, or its first start was refused
        study.set_user_attr("warm_start", None)
        study.set_user_attr("identity", identity.to_json())
        return study
    if known is None:
        raise InputError(f"{where} was made by another program; take another name: --set name=NEW")
    if differs is not None:
        raise InputError(
            f"{where} was made with other settings: {differs}; undo the change, or start a new sweep: --set name=NEW"
        )
    if known != kept:  # it named files and code by their names
        study.set_user_attr("identity", identity.to_json())
    return study


def _identity(study: optuna.Study, url: str) -> StudyIdentity | None:
    """Return the identity that a study keeps; None where it has none: not yet, or it is another program's."""
    with understood(url):
        content = study.user_attrs.get("identity")
    return None if content is None else StudyIdentity.read(content, f"{url}: study {study.study_name!r}")


def _earlier(
    study: optuna.Study, url: str, names: Sequence[str], identity: StudyIdentity, search: domains.Search
) -> list[Earlier]:
    """Return the trials of other sweeps that this one learns from, best first: taken once, then read from the study."""
    stored = study.user_attrs.get("warm_start")
    if stored is None and names:
        candidates: list[Earlier] = []
        for name in names:
            try:
                other = read_study(name, url)
            except InputError as error:
                raise InputError(f"search_options.warm_start: {error}") from None
            done = [Earlier(row.uid, row.values, row.miou) for row in other.rows() if row.miou is not None]
            other_identity = other.identity()
            other.close()
            candidates += usable(name, other_identity, done, identity, search)
        stored = [asdict(trial) for trial in thinned(candidates)]
        study.set_user_attr("warm_start", stored)
    return [Earlier(**trial) for trial in stored or []]


def _plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON can hold them: numbers that are not finite become their names."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in attrs.items()
    }
