"""Run one sweep of any kind, from the checks before it to its exit code; a phase that is done is skipped."""

from functools import partial

from cpn.core.errors import InputError, in_one_line
from cpn.core.redact import redacted

from ..base import bucket_sync
from ..base.lock import driving, state_of_exit
from ..base.notify import notifying
from ..base.paths import check_apart_from_data, check_storage, storage
from ..base.provenance import keep_start, provenance
from ..base.terminal import Terminal
from ..base.yaml_files import dump_yaml
from ..cluster.inputs import check_objective, check_weights, prepare_data, shared_data
from ..cluster.interruption import Interruption
from ..cluster.local_ray import check_ray_folder
from ..config.effects import effect_warnings
from ..config.identity import identity_of
from ..config.own_code import check_named
from ..config.spec_checks import check_gain
from ..config.sweep_spec import SweepSpec
from ..plan.owner_check import check_owner
from ..run.recalled_trials import recalled_trials
from ..run.sweep_context import SweepContext
from ..run.trial_loop import HURRIED_S, RECORDS_S, report_interruption
from ..search import study
from ..search.study_lock import only_driver, overtaken
from ..tracking.origin import of_this_search, sweep_origin
from ..tracking.recorder import Recorder, check_store
from ..tracking.records import Records
from .refused_start import withdrawn_if_refused
from .search_sweep import run_search_sweep


def run_sweep(spec: SweepSpec, command: str, terminal: Terminal | None = None) -> int:
    """Run or continue the sweep; returns the exit code."""
    terminal, interruption = terminal or Terminal(), Interruption()
    with interruption.watch(terminal.say):
        code, reason = 1, None
        interruption.last_words.append(
            lambda code, why: terminal.event("ended", state=state_of_exit(code), code=code, reason=why)
        )
        try:
            code = run_locked(spec, command, terminal, interruption)
        except KeyboardInterrupt:
            code = report_interruption(terminal, interruption, command)
        except Exception as error:
            code, reason = 2 if isinstance(error, InputError) else 1, in_one_line(error)
            raise
        finally:
            terminal.event("ended", state=state_of_exit(code), code=code, reason=reason)
        return code


def run_locked(spec: SweepSpec, command: str, terminal: Terminal, interruption: Interruption) -> int:
    """Run or continue the sweep as its one driver; returns the exit code. What a signal does is the caller's matter:
    a KeyboardInterrupt leaves every trial resumable.
    """
    store, url, watched = storage(spec.resources.storage), study.study_url(spec), interruption.watched
    check_storage(store, "resources.storage")
    check_apart_from_data(store, spec.base_config.data.root, "resources.storage", spec.name)
    check_ray_folder()
    study.check_apart(url, spec.tracking.uri)
    warning = check_store(spec.tracking.uri)
    if warning:
        terminal.warn(warning)
    for line in effect_warnings(spec):
        terminal.warn(line)
    check_weights(spec.base_config, store, terminal.say)
    check_named(spec)
    study.check_study(url)
    if warning is None:
        check_owner(spec)  # the records ask again, and say so, where the store could not be asked
    pack = prepare_data(spec.base_config, store, terminal.say, terminal.progress)
    check_objective(spec.base_config, pack, spec.objective, terminal.say)
    paths = store.sweep(spec.name)

    with (
        only_driver(spec.name, url, store.study, partial(overtaken, terminal.say) if watched else interruption.lose),
        bucket_sync.publish_state(store, paths, terminal.warn) as tell_all,
        driving(paths, spec.name, command) as held,
    ):
        interruption.last_words.append(held.last_words)
        root = shared_data(spec.base_config, store, pack)
        with withdrawn_if_refused((spec.name, f"{spec.name}.confirm"), url, paths.records):
            spec = study.continued(spec, url)
            check_gain(spec, spec._source, "the sweep was begun with it: drop the key, or --set name=NEW")
            identity = identity_of(spec, pack.fingerprint)
            if spec.table is not None:
                from .table_sweep import run_table_sweep

                listed = study.open_list(spec.name, url, identity)
                work, trials = partial(run_table_sweep, trials=listed), listed
            else:
                known = of_this_search(paths.records, identity)
                recalled = recalled_trials(paths.records, spec.name, spec.search) if known else []
                trials = study.open_study(spec, url, pack.fingerprint, recalled)
                again = study.open_list(f"{spec.name}.confirm", url, trials.identity())
                work = partial(run_search_sweep, trials=trials, again=again)
            origin = sweep_origin(trials, paths.records)
            recorder = Recorder(paths.records, spec.tracking.uri, spec.name, warn=terminal.warn, origin=origin)
            if warning is None:
                recorder.check()
        if trials.warm_trials:
            names = ", ".join(spec.search_options.warm_start)
            terminal.say(f"{spec.name}: the search learns from {trials.warm_trials} trials of {names}")
        content = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"notify"})
        dump_yaml(paths.spec, redacted(content))
        tell_all()
        start = provenance(command)
        keep_start(paths.starts, start)
        records = Records(recorder, spec, pack.fingerprint, start, root)
        sweep = SweepContext(spec, pack, root, store, terminal, records, interruption)
        sweep.works = held.works
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
                    try:
                        sweep.clock.save()
                    finally:  # a full disk, on which Ray and the records have to end as well
                        sweep.close()
                        waiting = recorder.close(HURRIED_S if interruption.hurried else RECORDS_S)
                if waiting:
                    terminal.say(f"{waiting} records wait for the tracking store; next, once it answers: {command}")
