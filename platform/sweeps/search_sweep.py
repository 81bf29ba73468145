"""The phases of a search sweep: search, confirm, promote, later stages, summary."""

from dataclasses import asdict
from pathlib import Path

from cpn.core.checked import read_typed
from cpn.core.errors import WorkError
from cpn.core.files import DamagedFile
from cpn.core.run_files import MODEL, PICTURES, RESULT
from cpn.scoring.run_manifest import RunManifest
from cpn.stages.stage_manifest import StageManifest

from ..base.lock import FAILED, FINISHED
from ..base.notify import Ending
from ..base.paths import SweepPaths, shortened
from ..base.remaining_time import CONFIRM
from ..config.sections import Pruning
from ..config.sweep_spec import SweepSpec
from ..plan import budget
from ..plan.worth import Worth
from ..promotion import retention
from ..promotion.alias_requests import handle_alias_request
from ..promotion.candidates import Candidate, SweepStudies
from ..promotion.promotion import become_champion, run_later_stages, stage_uid
from ..reports.html.page import write_report
from ..reports.importances import PLOTS, write_plots
from ..reports.snapshot import SweepSnapshot, older_study
from ..reports.summary import markdown, summarise, write_summary
from ..reports.terminal_tables import print_summary
from ..run.remake import READ, lost_runs, remake
from ..run.run_stages import StageFailed
from ..run.sweep_context import SweepContext
from ..run.trial_loop import RECORDS_S, has_open_trials, reconcile, report_interruption, run_open_trials
from ..search import confirm, study
from ..search.study import Study, TrialRow
from ..search.sweep_summary import SweepSummary, read_summary
from ..tracking.in_mlflow.promotion_history import SWEEP
from ..tracking.in_mlflow.saved_views import address_of
from ..tracking.recorder import Recorder, ui_command
from .live_report import LiveReport
from .panels import compared_panels
from .verdict import reach_verdict


def run_search_sweep(
    sweep: SweepContext, trials: Study, again: Study, recorder: Recorder, command: str, ending: Ending
) -> int:
    """Search, confirm, promote, stages, summary."""
    spec, terminal = sweep.spec, sweep.terminal
    sweep.records.sweep_started(sweep.drawn_after_epochs())
    last = read_last_summary(sweep.paths)
    if older := older_study(sum(row.state.finished for row in trials.rows()), last, trials.url):
        terminal.warn(older)
    sweep.clock.at_least(last.hours if last else 0.0, [*trials.rows(), *again.rows()])
    sweep.remember_pace([*trials.rows(), *again.rows()])
    reconcile(sweep, recorder, trials, again)
    live = LiveReport(sweep, trials, again, command, last, sweep.records.report_written)
    sweep.changed = live.write_if_due
    sweep.when_closed(live.close)
    limits = budget.Limits(
        spec.budget, trials.ended, sweep.clock, spec.resources.workers * spec.resources.gpus_per_worker, terminal.say
    )
    worth = Worth(spec, trials, sweep.clock, terminal.say)
    run_search(sweep, trials, limits, worth)
    if sweep.interruption:
        return report_interruption(sweep.terminal, sweep.interruption, command)
    options = confirm.options_of(spec.confirm, again.rows())
    chosen = confirm.candidates(trials.rows(), options.top_k)
    if not chosen:
        reasons = "; ".join(f"{row.uid}: {row.reason}" for row in trials.rows() if row.reason)
        cure = "raise the budget" if trials.unfinished() else "mend the cause, then --set name=NEW"
        raise WorkError(f"{spec.name}: no trial finished ({reasons or 'none was run to its end'}); {cure}")
    if not confirm_again(sweep, trials, again, chosen, spec.model_copy(update={"confirm": options})):
        return report_interruption(sweep.terminal, sweep.interruption, command)
    url = study.study_url(spec)
    verdict, means, bounds = reach_verdict(sweep, chosen, again)
    terminal.event("verdict", **asdict(verdict))
    winner = trials.row(verdict.winner)
    folder = sweep.folder(winner)
    panels = sweep.paths.panels
    complete: dict[str, Path] = {}
    for uid, picture in compared_panels(trials.rows(), again.rows(), sweep.folder, sweep.pack, panels, sweep.warn_once):
        sweep.records.panel(uid, picture)
        complete[uid] = picture
    manifests: dict[str, StageManifest] = {}
    failed: StageFailed | None = None
    promoted = spec.promote.when == "always" or verdict.better
    if promoted:
        if (lost := lost_runs(sweep, [winner], None)) and not remake(sweep, url, trials, lost):
            return report_interruption(sweep.terminal, sweep.interruption, command)
        best = Candidate(
            winner.uid,
            folder / MODEL,
            folder.name,
            sweep.method(winner),
            winner.beta or 0.0,
            read_typed(folder / RESULT, RunManifest).lineage,
            winner,
        )
        first = become_champion(sweep, best, verdict.sentence, verdict.sentence, SWEEP)
        try:
            manifests = run_later_stages(sweep, best, sweep.pack, sweep.root)
            if not first:
                handle_alias_request(sweep, recorder, SweepStudies(spec, sweep.store, trials, again))
        except StageFailed as error:  # the promotion stands, and all else is told
            failed, manifests = error, manifests or error.manifests
    off = trials.remembered("pruning").get("off", {})
    rows, runs, hours = trials.rows(), again.rows(), sweep.clock.hours
    summary = summarise(spec, sweep.pack, rows, runs, means, verdict, winner, manifests, hours, off, bounds, failed)
    cost = budget.account(spec, sweep.clock.trial_hours, rows, runs)
    summary = summary.model_copy(update={"promoted": promoted, "cost": cost, "stopped": worth.words})
    summary = summary.model_copy(update={"note": f"{markdown(summary)}\n\n{cost.words}"})
    drawn = write_plots(spec, rows, sweep.paths.root / PLOTS)
    files = [*write_summary(sweep.paths, summary), *drawn]
    sweep.clock.save()
    state = FINISHED if failed is None else FAILED
    times = trials.times() | again.times()
    snapshot = SweepSnapshot(
        spec.name,
        sweep.store,
        spec,
        rows,
        runs,
        sweep.pack.fingerprint,
        state,
        command,
        summary,
        off,
        times,
        worth.words,
    )
    live.close()
    report = write_report(snapshot, sweep.paths.root)
    files += report
    sweep.records.sweep_ended(summary, files)
    recorder.reconcile(alive=set(), ended={stage_uid(spec.name, failed.stage, failed.key): "FAILED"} if failed else {})
    stage_folders = [sweep.store.stage(name, manifest.key) for name, manifest in manifests.items()]
    print_summary(
        terminal, summary, [*pictures_in([folder, *stage_folders], complete.get(winner.uid)), *map(shortened, drawn)]
    )
    terminal.say(cost.words)
    delete_unneeded(sweep, trials, again, [verdict.winner, *(row.uid for row in chosen)], recorder.flush(RECORDS_S))
    terminal.say(f"report: {shortened(report[0])}")
    ending.note = summary.note
    terminal.event("summary", **summary.to_json())
    if summary.confirm_failed:
        cure = "mend the cause; a sweep of another name, --set name=NEW, takes over all that is finished"
        terminal.say(f"failed: {summary.confirm_failed}; {cure}")
    if failed is not None:
        terminal.say(failed.next_line(command))
        raise failed
    page = "" if recorder.experiment_id is None else address_of(recorder.experiment_id)
    terminal.say(f"next: {ui_command(spec.tracking.uri, page)}")
    return 0


def run_search(sweep: SweepContext, trials: Study, limits: budget.Limits, worth: Worth) -> None:
    """Run what is left of the search: its open trials and, unless more is not worth it, those still to be drawn."""
    spec, limit = sweep.spec, worth.limit(sweep.spec.trial_limit)
    if worth.words and has_open_trials(trials, spec.trial_limit):
        sweep.terminal.say(f"the search has ended: {worth.words}; another budget.min_gain_per_gpu_hour lets it go on")
    if (has_open_trials(trials, limit) or worth.lifted) and not limits.over():
        run_open_trials(sweep, trials, f"{spec.name}: search", limit, spec.pruning, limits, enough=worth.enough)


def confirm_again(sweep: SweepContext, trials: Study, again: Study, chosen: list[TrialRow], spec: SweepSpec) -> bool:
    """Run what was chosen with fresh seeds, all at once or in a race; False where a signal came first.

    A race is gone through from its first round: what has run is there already, and decides the same again.
    """
    url, race = study.study_url(spec), confirm.race_of(chosen, spec.confirm)
    heading, objective, number = f"{spec.name}: confirming with fresh seeds", spec.objective, 0
    wanted = confirm.entries(chosen, spec) if race is None else []
    if race is not None and (lost := lost_runs(sweep, [chosen[0]], READ)) and not remake(sweep, url, trials, lost):
        return False
    while True:
        if race is not None:
            own = [row for row in again.rows() if row.race == race and (row.race_round or 0) < number]
            runs = confirm.counted(chosen, own, race)
            folders = {run.uid: sweep.folder(run) for run in runs}
            confirmed = confirm.confirmed(chosen, runs, folders, sweep.config.cam, objective)
            wanted = confirm.race_entries(number, chosen, own, confirmed, spec)
        again.enqueue(wanted)
        if has_open_trials(again, None):
            run_open_trials(sweep, again, heading, len(again.rows()), Pruning(kind="none"), None, CONFIRM)
        if sweep.interruption:
            return False
        if (lost := lost_runs(sweep, again.rows(), READ)) and not remake(sweep, url, trials, lost):
            return False
        if race is None or not wanted:
            return True
        number += 1


def read_last_summary(paths: SweepPaths) -> SweepSummary | None:
    """Read what the sweep's last end wrote; None before the first, or if it is damaged: this end writes it again."""
    try:
        return read_summary(paths.summary)
    except DamagedFile:
        return None


def pictures_in(folders: list[Path], panel: Path | None = None) -> list[Path]:
    """Return every picture of a run and its stages, relative to the working folder where they lie below it; `panel` in
    place of the run's of that name, which was drawn before cam_baseline had run.
    """
    paths = [path for folder in folders for path in sorted((folder / PICTURES).glob("*.png"))]
    return [shortened(panel if panel is not None and path.name == panel.name else path) for path in paths]


def delete_unneeded(sweep: SweepContext, trials: Study, again: Study, needed: list[str], waiting: int) -> None:
    """Delete what nothing needs any more, and say so; `waiting` records have not reached MLflow yet."""
    rows, confirm_runs = ([(row, sweep.key(row)) for row in study.rows()] for study in (trials, again))
    spec = sweep.spec
    retention.delete_at_the_end(
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
