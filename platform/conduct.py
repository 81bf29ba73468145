"""One sweep from its first trial to its report: search, confirm, promote, stages. A step that is done is skipped."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cpn.config import Config, run_key, with_values
from cpn.errors import InputError, WorkError
from cpn.files import DamagedFile, read_json
from cpn.run import MODEL, PICTURES, RESULT, whole_run
from cpn.voc import Pack

from . import budget, confirm, mirror, retention, study
from .candidates import Book, Candidate
from .capacity import Node, concurrency
from .claims import Claims
from .curve import narrowed, searched_range
from .driver import Interruption, ray_cluster, run_trials
from .earlier_keys import take_over_run
from .files import dump_yaml
from .identity import identity_of
from .inputs import check_objective, check_weights, prepare_data, prepare_weights, shared_data
from .judging import judged
from .local_ray import check_ray_folder
from .lock import FAILED, FINISHED, SIGNAL_EXIT, driving, stands_by
from .notify import Ending, notifying
from .origin import sweep_origin
from .own_code import check_named, named_contents, own_backbones
from .panels import compared_panels
from .paths import Storage, SweepPaths, check_storage, storage
from .promotion import become_champion, carry_on, stage_uid
from .provenance import keep_start, provenance
from .reading import Reading, older_study
from .records import Records
from .remake import READ, lost_runs, remake
from .report import write_report
from .sections import Pruning
from .spec import SweepSpec
from .stages import StageFailed
from .study import State, Study, TrialRow
from .study_lock import only_driver, overtaken
from .summary import print_summary, shortened, summarise, write_summary
from .terminal import Terminal
from .tracking import Recorder, check_store, ui_command
from .tracking_registry import SWEEP
from .tracking_uri import mask, masked
from .trial_listener import TrialListener
from .what_mattered import PLOTS, write_plots
from .wishes import pick_up
from .worker import TrialSetup

RECORDS_S, HURRIED_S = 30.0, 1.0
"""Seconds that a slow tracking store is given at the end; the rest waits for the next start."""


class Sweep:
    """What the steps of one sweep share."""

    def __init__(
        self,
        spec: SweepSpec,
        pack: Pack,
        root: str,
        store: Storage,
        terminal: Terminal,
        records: Records,
        interruption: Interruption,
    ) -> None:
        self.spec, self.pack, self.root, self.store = spec, pack, root, store
        self.terminal, self.records, self.interruption = terminal, records, interruption
        self.config: Config = spec.base_config
        self.paths: SweepPaths = store.sweep(spec.name)
        self.claims = Claims(store)
        self.clock = budget.Clock(self.paths.clock, terminal.warn)
        self.works: Callable[[], None] = lambda: None
        """Told when there is something to do: a sweep that was finished is not any more."""
        self.contents = named_contents(spec)
        """Of weights files and own code, as the sweep began with them."""
        self._resources = ExitStack()
        self._cluster: list[Node] | None = None
        self._said: set[str] = set()

    def cluster(self) -> list[Node]:
        """Resources of Ray's nodes; Ray is started, pretrained weights are made, when something first needs them."""
        if self._cluster is None:
            self.works()
            self.clock.go()
            prepare_weights(self.config, self.store, self.terminal.say)
            self.terminal.say("starting Ray")
            self._cluster = self._resources.enter_context(
                ray_cluster(self.spec.resources, self.interruption.lose, own_backbones(self.spec))
            )
        return self._cluster

    def close(self) -> None:
        """Leave the cluster, or stop the one that was started here."""
        self._resources.close()
        self.claims.close()

    def method(self, row: TrialRow) -> Config:
        """The whole configuration of a trial."""
        return with_values(self.config, row.values, f"trial {row.uid}")

    def key(self, row: TrialRow) -> str:
        """The run key of a trial; of one that has ended the key that it ended with."""
        return str(row.attrs.get("run_key") or run_key(self.method(row), self.pack.fingerprint))

    def folder(self, row: TrialRow) -> Path:
        """Where a trial's run lies."""
        return self.store.run(self.key(row))

    def finished(self, row: TrialRow) -> dict[str, Any] | None:
        """The manifest of a trial's finished run, fetched where it is kept elsewhere; None while there is none."""
        mirror.have_run(self.store, self.folder(row), self.warn_once)
        return whole_run(self.folder(row), self.pack, self.warn_once)

    def warn_once(self, line: str) -> None:
        """Warn, unless the same was said before."""
        if line not in self._said:
            self._said.add(line)
            self.terminal.warn(line)

    def let_go(self, row: TrialRow) -> None:
        """Delete the checkpoints of a trial that nothing resumes; what comes a moment later goes at the end."""
        try:
            mirror.drop(self.store, self.folder(row), mirror.CHECKPOINTS)
        except OSError as error:
            self.terminal.warn(f"{row.uid}: its checkpoints could not be deleted ({error})")

    def setup(self, threads: int) -> TrialSetup:
        """What the workers need."""
        resources = self.spec.resources
        return TrialSetup(
            base=self.config.model_dump(mode="json"),
            data_root=self.root,
            storage=self.store.place,
            sweep=self.spec.name,
            workers=resources.workers,
            min_workers=resources.min_workers,
            accelerator=resources.accelerator,
            gpus_per_worker=resources.gpus_per_worker,
            cpus_per_worker=resources.cpus_per_worker,
            threads=threads,
            objective=self.spec.objective,
            betas=searched_range(self.spec.search),
            contents=self.contents,
        )


def conduct(spec: SweepSpec, command: str, terminal: Terminal | None = None) -> int:
    """Run or continue the sweep; returns the exit code."""
    terminal, interruption = terminal or Terminal(), Interruption()
    with interruption.watch(terminal.say):
        code, reason = 1, None
        interruption.last_words.append(
            lambda code, why: terminal.event("ended", state=stands_by(code), code=code, reason=why)
        )
        try:
            code = conducted(spec, command, terminal, interruption)
        except KeyboardInterrupt:
            code = interrupted(terminal, interruption, command)
        except Exception as error:
            code, reason = 2 if isinstance(error, InputError) else 1, mask(str(error)) or type(error).__name__
            raise
        finally:
            terminal.event("ended", state=stands_by(code), code=code, reason=reason)
        return code


def conducted(spec: SweepSpec, command: str, terminal: Terminal, interruption: Interruption) -> int:
    """The same, while signals are watched."""
    store, url = storage(spec.resources.storage), study.study_url(spec)
    check_storage(store, "resources.storage")
    check_ray_folder()
    warning = check_store(spec.tracking.uri)
    if warning:
        terminal.warn(warning)
    check_weights(spec.base_config, store, terminal.say)
    check_named(spec)
    study.check_study(url)
    pack = prepare_data(spec.base_config, store, terminal.say)
    check_objective(spec.base_config, pack, spec.objective, terminal.say)
    paths = store.sweep(spec.name)
    from .table_run import table_steps  # which imports this file

    with (
        only_driver(spec.name, url, store.study, partial(overtaken, terminal.say)),
        mirror.known_to_all(store, paths, terminal.warn) as tell_all,
        driving(paths, spec.name, command) as held,
    ):
        interruption.last_words.append(held.last_words)
        root = shared_data(spec.base_config, store, pack)
        if spec.table is not None:
            listed = study.open_list(spec.name, url, identity_of(spec, pack.fingerprint))
            work, trials = partial(table_steps, trials=listed), listed
        else:
            trials = study.open_study(spec, url, pack.fingerprint)
            if trials.warm_trials:
                names = ", ".join(spec.search_options.warm_start)
                terminal.say(f"{spec.name}: the search learns from {trials.warm_trials} trials of {names}")
            again = study.open_list(f"{spec.name}.confirm", url, trials.identity())
            work = partial(steps, trials=trials, again=again)
        kept = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"notify"})
        dump_yaml(paths.spec, masked(kept))
        tell_all()
        origin = sweep_origin(trials, paths.records)
        recorder = Recorder(paths.records, spec.tracking.uri, spec.name, warn=terminal.warn, origin=origin)
        told = provenance(command)
        keep_start(paths.starts, told)
        records = Records(recorder, spec, pack.fingerprint, told, root)
        sweep = Sweep(spec, pack, root, store, terminal, records, interruption)
        sweep.works = held.works
        if warning is None:
            recorder.check()
        with notifying(spec.notify.command, spec.name, paths, command, terminal.warn) as ending:
            try:
                held.code = ending.code = work(sweep, recorder=recorder, command=command, ending=ending)
                return held.code
            except KeyboardInterrupt:
                interruption.explain()
                raise
            except Exception as error:
                if interruption.lost is not None and interruption and not isinstance(error, InputError):
                    raise KeyboardInterrupt from error  # a signal for all processes has ended Ray before us
                raise
            finally:
                ending.silent = interruption.hurried
                with interruption.closing():
                    sweep.clock.save()
                    sweep.close()
                    waiting = recorder.close(HURRIED_S if interruption.hurried else RECORDS_S)
                if waiting:
                    terminal.say(f"{waiting} records wait for the tracking store; next, once it answers: {command}")


def steps(sweep: Sweep, trials: Study, again: Study, recorder: Recorder, command: str, ending: Ending) -> int:
    """Search, confirm, promote, stages, summary."""
    spec, terminal = sweep.spec, sweep.terminal
    sweep.records.sweep_started()
    last = last_end(sweep.paths)
    if older := older_study(trials.rows(), last, trials.url):
        terminal.warn(older)
    sweep.clock.at_least(float(last.get("hours") or 0.0), [*trials.rows(), *again.rows()])
    reconcile(sweep, recorder, trials, again)
    limits = budget.Limits(
        spec.budget, trials.rows, sweep.clock, spec.resources.workers * spec.resources.gpus_per_worker, terminal.say
    )
    if open_trials(trials, spec.trial_limit) and not limits.over():
        search(sweep, trials, f"{spec.name}: search", spec.trial_limit, spec.pruning, limits)
    if sweep.interruption:
        return interrupted(sweep.terminal, sweep.interruption, command)
    chosen = confirm.candidates(trials.rows(), spec.confirm.top_k)
    if not chosen:
        reasons = "; ".join(f"{row.uid}: {row.reason}" for row in trials.rows() if row.reason)
        cure = "raise the budget" if trials.unfinished() else "mend the cause, then --set name=NEW"
        raise WorkError(f"{spec.name}: no trial finished ({reasons or 'none was run to its end'}); {cure}")
    again.enqueue(confirm.entries(chosen, spec))
    if open_trials(again, None):
        search(
            sweep,
            again,
            f"{spec.name}: confirming with fresh seeds",
            len(again.rows()),
            Pruning(kind="none"),
            None,
        )
    if sweep.interruption:
        return interrupted(sweep.terminal, sweep.interruption, command)
    url = study.study_url(spec)
    if (lost := lost_runs(sweep, again.rows(), READ)) and not remake(sweep, url, trials, lost):
        return interrupted(sweep.terminal, sweep.interruption, command)
    verdict, means, bounds = judged(sweep, chosen, again)
    terminal.event("verdict", **asdict(verdict))
    winner = trials.row(verdict.winner)
    folder = sweep.folder(winner)
    panels = sweep.paths.panels
    for uid, picture in compared_panels(trials.rows(), again.rows(), sweep.folder, sweep.pack, panels, sweep.warn_once):
        sweep.records.panel(uid, picture)
    manifests: dict[str, dict[str, Any]] = {}
    failed: StageFailed | None = None
    promoted = spec.promote.when == "always" or verdict.better
    if promoted:
        if (lost := lost_runs(sweep, [winner], None)) and not remake(sweep, url, trials, lost):
            return interrupted(sweep.terminal, sweep.interruption, command)
        best = Candidate(
            winner.uid,
            folder / MODEL,
            folder.name,
            sweep.method(winner),
            winner.beta or 0.0,
            read_json(folder / RESULT),
            winner,
        )
        first = become_champion(sweep, best, verdict.sentence, verdict.sentence, SWEEP)
        try:
            manifests = carry_on(sweep, best, sweep.pack, sweep.root)
            if not first:
                pick_up(sweep, recorder, Book(spec, sweep.store, trials, again))
        except StageFailed as error:  # the promotion stands, and all else is told
            failed, manifests = error, manifests or error.manifests
    off = trials.remembered("pruning").get("off", {})
    rows, runs, hours = trials.rows(), again.rows(), sweep.clock.hours
    summary = summarise(spec, sweep.pack, rows, runs, means, verdict, winner, manifests, hours, off, bounds, failed)
    cost = budget.account(spec, sweep.clock.trial_hours, rows, runs)
    summary |= {"cost": cost, "note": f"{summary['note']}\n\n{cost['words']}"}
    drawn = write_plots(spec, rows, sweep.paths.root / PLOTS)
    files = [*write_summary(sweep.paths, summary), *drawn]
    sweep.clock.save()
    state = FINISHED if failed is None else FAILED
    found = Reading(spec.name, sweep.store, spec, rows, runs, sweep.pack.fingerprint, state, command, summary, off)
    report = write_report(found, sweep.paths.root)
    files += report
    sweep.records.sweep_ended(summary, files)
    recorder.reconcile(alive=set(), ended={stage_uid(spec.name, failed.stage, failed.key): "FAILED"} if failed else {})
    stage_folders = [sweep.store.stage(name, manifest["key"]) for name, manifest in manifests.items()]
    print_summary(terminal, summary, [*pictures_in([folder, *stage_folders]), *map(shortened, drawn)])
    terminal.say(cost["words"])
    let_go(sweep, trials, again, [verdict.winner, *(row.uid for row in chosen)], recorder.flush(RECORDS_S))
    terminal.say(f"report: {shortened(report[0])}")
    ending.note = summary["note"]
    terminal.event("summary", **summary)
    if summary["confirm_failed"]:
        cure = "mend the cause; a sweep of another name, --set name=NEW, takes over all that is finished"
        terminal.say(f"failed: {summary['confirm_failed']}; {cure}")
    if failed is not None:
        terminal.say(failed.next_line(command))
        raise failed
    terminal.say(f"next: {ui_command(spec.tracking.uri)}")
    return 0


def last_end(paths: SweepPaths) -> dict[str, Any]:
    """What the sweep's last end wrote; nothing before the first, or where it is damaged: this end writes it again."""
    try:
        found: dict[str, Any] = read_json(paths.summary)
    except (FileNotFoundError, DamagedFile):
        return {}
    return found


def search(
    sweep: Sweep, trials: Study, heading: str, limit: int | None, pruning: Pruning, limits: budget.Limits | None
) -> None:
    """Run a study's open trials on Ray Tune, with the live table; without `limits` all of them."""
    concurrent = concurrency(sweep.spec.resources, sweep.cluster())
    epochs = sweep.config.train.epochs
    done = [row for row in trials.rows() if row.state.finished]
    counted = [row for row in done if row.role != confirm.CAM_BASELINE]
    best = max(((row.miou, row.uid) for row in counted if row.miou is not None), default=None)
    objective = sweep.spec.objective
    with sweep.terminal.trials(heading, limit, epochs, objective) as table, sweep.interruption.patiently():
        table.already(len(done), best)
        run_trials(
            trials,
            sweep.setup(threads=1),
            limit=limit,
            concurrent=concurrent,
            pruning=pruning,
            search_seed=sweep.spec.search_options.seed,
            epochs=epochs,
            listener=TrialListener(sweep, trials, table),
            interruption=sweep.interruption,
            over=limits.over if limits else lambda: False,
            reuse=partial(reusable, sweep),
            claim=lambda row: sweep.claims.take(row.uid, sweep.key(row)),
        )


def reusable(sweep: Sweep, row: TrialRow) -> dict[str, Any] | None:
    """The metrics of a finished run with the same configuration, seed and data, made by whatever sweep."""
    result = sweep.finished(row)
    if result is None and take_over_run(sweep.store, sweep.method(row), sweep.pack.fingerprint, sweep.terminal.say):
        result = sweep.finished(row)
    if result is None:
        return None
    if sweep.spec.objective not in result["metrics"]:
        raise InputError(
            f"{sweep.folder(row)}: an earlier version left {sweep.spec.objective} out of this run; delete the folder"
        )
    key = sweep.key(row)
    return {
        "epoch": result["history"][-1]["epoch"],
        "run_key": key,
        "reused_from": key,
        "seconds": 0.0,
        **narrowed(result["metrics"], sweep.folder(row), sweep.config.cam, searched_range(sweep.spec.search)),
    }


def open_trials(trials: Study, limit: int | None) -> bool:
    """Whether the study has trials that are waiting, unfinished, or still to be drawn."""
    counts = trials.counts()
    return bool(counts[State.WAITING] or counts[State.RUNNING] or (limit is not None and sum(counts.values()) < limit))


def reconcile(sweep: Sweep, recorder: Recorder, *studies: Study) -> None:
    """Make MLflow agree with the studies: tell it the ends that a kill swallowed, and end what nobody runs any more."""
    alive: set[str] = {sweep.records.parent}
    for trials in studies:
        for row in trials.rows():
            if row.state is State.RUNNING:
                alive.add(row.uid)
            elif row.state.finished and not recorder.ended(row.uid):
                sweep.records.trial_started(row, sweep.method(row), sweep.key(row))
                sweep.records.trial_ended(row, sweep.finished(row), sweep.folder(row))
    recorder.reconcile(alive=alive)


def pictures_in(folders: list[Path]) -> list[Path]:
    """Every picture of a run and its stages, relative to the working folder where they lie below it."""
    found = [path for folder in folders for path in sorted((folder / PICTURES).glob("*.png"))]
    return [shortened(path) for path in found]


def interrupted(terminal: Terminal, interruption: Interruption, command: str) -> int:
    """What is said when a signal ended the sweep early."""
    terminal.say(f"stopped; every trial can go on: {command}")
    return SIGNAL_EXIT + (interruption.signal or 2)


def let_go(sweep: Sweep, trials: Study, again: Study, needed: list[str], waiting: int) -> None:
    """Delete what nothing needs any more, and say so; `waiting` records have not reached MLflow yet."""
    rows, confirm_runs = ([(row, sweep.key(row)) for row in study.rows()] for study in (trials, again))
    spec = sweep.spec
    retention.at_the_end(
        sweep.store,
        spec.name,
        rows,
        confirm_runs,
        spec.resources.keep_top,
        needed,
        spec.tracking.uri,
        waiting,
        sweep.terminal.say,
    )
