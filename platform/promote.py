"""A checkpoint of the user's choice goes on to DeepLab and becomes champion: `python -m platform.promote RUN`."""

import argparse
import contextlib
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cpn.core.errors import InputError, WorkError, run_command
from cpn.core.plain_file import folder_there

from .base.lock import refuse_if_driven
from .base.paths import check_storage, storage
from .base.terminal import Terminal
from .reports.sweep_status import sweep_names, sweep_paths
from .tracking.in_mlflow.promotion_history import PERSON
from .tracking.registry import LONGEST_REASON

if TYPE_CHECKING:  # imported where it is used, so that --help answers at once
    from .base.paths import Storage
    from .base.terminal import Terminal
    from .cluster.interruption import Interruption
    from .promotion.candidates import Candidate, Gate
    from .promotion.printing import PromotionResult, RequestResult

EXAMPLE = "python -m platform.promote quickstart-0003"
LONGEST_PAUSE_S = 86_400
"""Seconds between two looks at the aliases; what is far above it no clock can wait for."""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m platform.promote",
        usage=f'{EXAMPLE} [--because "WHY"] [--dry-run]\n'
        "       python -m platform.promote --watch\n"
        "       python -m platform.promote --history [--json]\n"
        "       python -m platform.promote CPN.safetensors --sweep released --set data.root=/data/VOC --because WHY\n"
        "       python -m platform.promote --maps FOLDER --sweep NAME --root /data/VOC --because WHY",
        description="Carry the checkpoint of a run on to random walk and DeepLab, make it a version of the sweep's "
        "registered model, and move alias champion to it. Without RUN, and with --watch, the alias is what is asked "
        "for: whoever moved it in the MLflow UI has the run carried on, or, if a gate does not hold, the alias is put "
        "back. The same command again continues, and does nothing when all is done.",
        epilog="Gates: artifact (the file is the one that the run wrote), environment (method version and data are the "
        "run's), confirm (its configuration ran again with fresh seeds and is not shown to be worse than the "
        "reference). They give way to --because alone, which the history keeps.",
    )
    command.add_argument(
        "run", nargs="?", metavar="RUN", help="a trial's or confirm run's uid, an MLflow run id, a run key, or a file"
    )
    files = command.add_mutually_exclusive_group()
    files.add_argument(
        "--maps", type=Path, metavar="FOLDER", help="score maps of any method, ID.npz as python -m cpn.judge reads them"
    )
    files.add_argument(
        "--labels", type=Path, metavar="FOLDER", help="pseudo labels of any method, ID.png: DeepLab alone"
    )
    command.add_argument("--halved", action="store_true", help="the score maps lie in [0, 0.5]: double them")
    command.add_argument("--root", metavar="DATA", help="as --set data.root=DATA; with --maps or --labels")
    command.add_argument("--because", metavar="WHY", help="the reason; also overrides gates that do not hold")
    command.add_argument(
        "--sweep", metavar="NAME", help="the sweep whose champion it becomes (default: that of the run)"
    )
    command.add_argument("--watch", action="store_true", help="wait for aliases moved by hand, until stopped")
    command.add_argument("--every", type=float, default=30.0, metavar="SECONDS", help="between two looks (default: 30)")
    command.add_argument("--history", action="store_true", help="who moved the alias, when, from, to, and why")
    command.add_argument(
        "--dry-run", action="store_true", help="say which gates hold and what would run; start nothing"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="sets",
        help="data.root, a later stage's value, resources or tracking; with --maps or --labels any value",
    )
    command.add_argument("--backbone", metavar="NAME", help="your own backbone, for a file that was trained with it")
    command.add_argument("--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)")
    command.add_argument("--uri", metavar="URI", help="tracking.uri (default: that of the sweep)")
    command.add_argument("--json", action="store_true", help="the result as JSON, and nothing else on standard output")
    return command


def check_given(options: argparse.Namespace) -> None:
    """Raise InputError for options that do not go together."""
    if options.run and (options.watch or options.history):
        raise InputError(
            f"{options.run}: --watch and --history take no run; leave it out, or name a sweep with --sweep"
        )
    if options.because is not None and not options.because.strip():
        raise InputError("--because: is empty; say why, it is kept")
    if options.because is not None and len(options.because) > LONGEST_REASON:
        raise InputError(f"--because: has {len(options.because)} characters, {LONGEST_REASON} are kept; say it shorter")
    folder = options.maps or options.labels
    if folder is not None and (options.run or options.watch or options.history):
        raise InputError(f"{folder}: is promoted alone; leave out RUN, --watch and --history")
    if folder is not None and options.sweep is None:
        raise InputError(f"{folder}: say --sweep NAME, whose champion it is to become (a new name, too)")
    if options.halved and options.maps is None:
        raise InputError("--halved: says how score maps are kept; name them with --maps, or leave it out")
    if options.root is not None and folder is None:
        raise InputError("--root: goes with --maps or --labels; for a run say --set data.root=DATA")
    if options.backbone and folder is not None:
        raise InputError("--backbone: is for a file that was trained with it; say --set network.backbone=NAME")
    asked = options.run or folder
    if options.because is not None and not asked:
        raise InputError("--because: needs a run; an alias moved in the MLflow UI passes its gates, or is put back")
    if options.dry_run and not asked:
        raise InputError("--dry-run: needs a run: " + EXAMPLE)
    if options.sets and not asked:
        raise InputError("--set: needs a run: " + EXAMPLE)
    if not 0 < options.every <= LONGEST_PAUSE_S:
        raise InputError(f"--every {options.every:g}: give seconds above 0, and {LONGEST_PAUSE_S} (a day) at most")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0; 1 when a stage failed, 2 for a run that cannot go on, 130 and 143 when stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(words)
    check_given(options)

    store = storage(options.storage, "--storage")
    files = options.maps or options.labels
    if not (folder_there(store.root, "--storage") or files or (options.run or "").endswith(".safetensors")):
        raise InputError(f"--storage: {store.root} is no folder; run a sweep first, or name its resources.storage")
    if options.history:
        return show_history(options, store)
    check_storage(store, "--storage")
    command = shlex.join(["python", "-m", "platform.promote", *words])

    from .cluster.interruption import Interruption
    from .run.trial_loop import report_interruption

    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        terminal, interruption = Terminal(), Interruption()
        with interruption.watch(terminal.say):
            try:
                if options.run or files:
                    do = promoted if options.run else promoted_files
                    printed: object = do(options, store, terminal, interruption, command).to_json()
                else:
                    handled = watched(options, store, terminal, interruption, command)
                    printed = [result.to_json() for result in handled]
            except KeyboardInterrupt:
                return report_interruption(terminal, interruption, command)
    if options.json:
        print(json.dumps(printed, indent=2))
    return 0


def promoted(
    options: argparse.Namespace, store: "Storage", terminal: "Terminal", interruption: "Interruption", command: str
) -> "PromotionResult":
    """Promote the run that the command line names; returns what came of it."""
    from .promotion.candidates import locate, open_studies

    name, which = locate(store, options.run, options.sweep, options.uri)
    if not options.dry_run:  # before gates, data and the tracking store, which take their time on a busy machine
        refuse_if_driven(store.sweep(name), name)

    from .promotion.printing import results, show_gates, show_result
    from .promotion.promotion import (
        become_champion,
        candidate,
        data_of,
        gates_of,
        in_storage,
        known_versions,
        read_spec,
        run_later_stages,
        stage_plan,
        sweep_of,
    )
    from .run.run_stages import StageFailed

    spec, rest = read_spec(store, name, options.sets, options.uri)
    studies = open_studies(store, spec)
    chosen = candidate(studies, which, rest, options.backbone)
    if studies.trials is None:
        spec = spec.model_copy(update={"base": chosen.config.model_dump(mode="json")})
    pack, root = data_of(chosen, store, terminal, make=not options.dry_run)
    gates = gates_of(studies, chosen, pack, known_versions(spec.tracking.uri, name))
    show_gates(terminal, chosen.uid, gates)
    failed = [gate.name for gate in gates if not gate.holds]
    plan = stage_plan(store, chosen, pack)
    result = replace(planned(options, terminal, name, chosen, gates, plan), model=str(chosen.model))
    if options.dry_run:
        return result
    why = options.because or "promoted by hand, all gates hold"
    words = {gate.name: gate.words for gate in gates}
    with sweep_of(studies, spec, pack, root, terminal, interruption, command) as (sweep, recorder):
        chosen = in_storage(chosen, store)
        if chosen.row is None:
            sweep.records.checkpoint_started(chosen.uid, chosen.model, chosen.config, chosen.lineage)
        become_champion(sweep, chosen, why, words["confirm"], PERSON, gates=words, overridden=failed)
        try:
            manifests = run_later_stages(sweep, chosen, pack, root)
        except StageFailed as error:
            terminal.say(f"{chosen.uid} is promoted, and that stands; the stages before {error.stage} are done")
            terminal.say(error.next_line(command))
            raise
        waiting = recorder.flush(20)
    show_result(terminal, store, chosen.uid, manifests, waiting, chosen.config.network.backbone)
    return replace(result, stages=results(store, manifests), records_waiting=waiting)


def planned(
    options: argparse.Namespace,
    terminal: "Terminal",
    name: str,
    chosen: "Candidate",
    gates: Sequence["Gate"],
    plan: Mapping[str, bool],
) -> "PromotionResult":
    """Return what is known before anything starts; for a dry run it is printed. InputError where a gate does not hold
    and no reason overrides it.
    """
    from .promotion.printing import PromotionResult

    failed = [gate for gate in gates if not gate.holds]
    if options.dry_run:
        terminal.table("stages", ["stage", "what happens"], [[k, "done" if v else "runs"] for k, v in plan.items()])
        gives = ' add --because "WHY", which overrides and is kept' if failed and not options.because else ""
        terminal.say(f"nothing was started;{gives or ' without --dry-run it goes on'}")
    elif failed and not options.because:
        closed_gates = "; ".join(f"gate {gate.name} does not hold: {gate.words}" for gate in failed)
        raise InputError(f'{chosen.uid}: {closed_gates}; --because "WHY" overrides, and the reason is kept')
    return PromotionResult(name, chosen.uid, chosen.beta, gates, options.because, plan)


def promoted_files(
    options: argparse.Namespace, store: "Storage", terminal: "Terminal", interruption: "Interruption", command: str
) -> "PromotionResult":
    """Carry another method's files on to DeepLab, and promote that network; returns what came of it."""
    if not options.dry_run:
        refuse_if_driven(store.sweep(options.sweep), options.sweep)
    import tempfile

    from .promotion.candidates import Candidate, open_studies
    from .promotion.imported import import_candidate, imported_champion, imported_gates
    from .promotion.printing import results, show_gates, show_result
    from .promotion.promotion import data_of, read_spec, run_later_stages, stage_plan, sweep_of
    from .run.run_stages import StageFailed

    folder, maps = options.maps or options.labels, options.maps is not None
    sets = [*options.sets, *([] if options.root is None else [f"data.root={options.root}"])]
    spec, _ = read_spec(store, options.sweep, sets, options.uri, method=True)
    studies, config = open_studies(store, spec), spec.base_config
    asked = Candidate(options.sweep, folder, None, config, config.cam.beta)
    pack, root = data_of(asked, store, terminal, make=not options.dry_run)
    with tempfile.TemporaryDirectory() as temporary:  # a dry run leaves nothing
        keep_in = (lambda key: Path(temporary) / key) if options.dry_run else store.run
        of = {"maps": maps, "halved": options.halved, "keep_in": keep_in, "shown": terminal.progress}
        imported = import_candidate(folder, options.sweep, config, pack, store, **of)
        chosen, gates = imported.chosen, imported_gates(imported, pack)
        show_gates(terminal, chosen.uid, gates)
        plan = stage_plan(store, chosen, pack, imported.files.stage)
        result = planned(options, terminal, options.sweep, chosen, gates, plan)
        result = replace(result, measured=dict(imported.metrics))
    if options.dry_run:
        return result
    words = {gate.name: gate.words for gate in gates}
    with sweep_of(studies, spec, pack, root, terminal, interruption, command) as (sweep, recorder):
        what = f"{imported.files.kind} of {folder.name}"
        sweep.records.imported_started(chosen.uid, chosen.model, config, chosen.lineage, what, imported.metrics)
        try:
            manifests = run_later_stages(sweep, chosen, pack, root, imported.files)
        except StageFailed as error:
            terminal.say(error.next_line(command))
            raise
        imported_champion(sweep, imported, manifests, options.because, words, ["confirm"])
        waiting = recorder.flush(20)
    show_result(terminal, store, chosen.uid, manifests, waiting, config.network.backbone)
    return replace(result, stages=results(store, manifests), records_waiting=waiting)


def watched(
    options: argparse.Namespace, store: "Storage", terminal: "Terminal", interruption: "Interruption", command: str
) -> "list[RequestResult]":
    """Handle aliases moved manually; once, or with --watch until a signal comes."""
    if options.sweep is not None:
        sweep_paths(store, options.sweep)
    handled: list[RequestResult] = []
    warned: set[str] = set()
    if options.watch:
        terminal.say(
            f"watching alias champion of the sweeps in {store.root}, every {options.every:g} s; Ctrl-C ends it"
        )
    while True:
        for name in [options.sweep] if options.sweep else sweep_names(store):
            if not store.sweep(name).spec.exists():
                continue
            try:
                result = look_at(name, options, store, terminal, interruption, command)
            except (InputError, WorkError) as error:
                if not options.watch:
                    raise
                if str(error) not in warned:  # a store that is away is away for long
                    terminal.say(f"warning: {name}: {error}")
                warned.add(str(error))
                continue
            if result is not None:
                handled.append(result)
        if not options.watch:
            if not handled:
                terminal.say("no alias was moved by hand")
            return handled
        time.sleep(options.every)


def look_at(
    name: str,
    options: argparse.Namespace,
    store: "Storage",
    terminal: "Terminal",
    interruption: "Interruption",
    command: str,
) -> "RequestResult | None":
    """Handle an alias moved manually in one sweep's model, if there is one."""
    from cpn.data.voc import open_pack

    from .cluster.inputs import data_root
    from .promotion.alias_requests import handle_alias_request
    from .promotion.candidates import open_studies
    from .promotion.champion_history import recorded_history
    from .promotion.printing import RequestResult, results, show_result
    from .promotion.promotion import read_spec, sweep_of
    from .tracking.read import read_model_state
    from .tracking.records import CHAMPION, model_name

    spec, _ = read_spec(store, name, [], options.uri)
    state = read_model_state(spec.tracking.uri, model_name(name))
    if state is None and not recorded_history(store, name):
        return None
    if state is not None and not state.by_hand(CHAMPION):
        return None
    studies = open_studies(store, spec)
    root = data_root(spec.base_config, store)

    with sweep_of(studies, spec, open_pack(root), root, terminal, interruption, command) as (sweep, recorder):
        outcome = handle_alias_request(sweep, recorder, studies)
    if outcome is None:
        return None
    if outcome.uid is None or outcome.stages is None:
        return RequestResult(name, outcome)
    show_result(terminal, store, outcome.uid, outcome.stages, 0, spec.base_config.network.backbone)
    return RequestResult(name, outcome, results(store, outcome.stages))


def show_history(options: argparse.Namespace, store: "Storage") -> int:
    """Print the history of one sweep's champion, or of all."""
    from .promotion.champion_history import history, in_words

    if options.sweep is not None:
        sweep_paths(store, options.sweep)
    names = [options.sweep] if options.sweep else [n for n in sweep_names(store) if store.sweep(n).spec.exists()]
    terminal, entries = Terminal(), []
    for name in names:
        entries_of_sweep, warning = history(store, name, options.uri)
        entries += entries_of_sweep
        if warning:
            print(f"warning: {name}: {warning}", file=sys.stderr)
    if options.json:
        print(json.dumps([entry.to_json() for entry in entries], indent=2))
        return 0
    for entry in entries:
        terminal.say(in_words(entry))
    if not entries:
        terminal.say(f"nothing was promoted in {store.root}; next: {EXAMPLE}")
    return 0


if __name__ == "__main__":
    run_command(main)
