"""Alias `champion` goes back to the champion before: `python -m platform.rollback quickstart --because "WHY"`."""

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cpn.core.errors import InputError, WorkError, run_command, to_stderr

from .base.lock import locked
from .base.paths import Storage, storage
from .reports.sweep_status import stored_uri, sweep_names, sweep_paths
from .tracking.in_mlflow.promotion_history import PERSON, ROLLED_BACK, Decision, HistoryEntry
from .tracking.registry import LONGEST_REASON, champions

if TYPE_CHECKING:
    from .tracking.registry import ModelState

EXAMPLE = 'python -m platform.rollback quickstart --because "its masks lose the heads"'
FLUSH_S = 20.0


@dataclass(frozen=True)
class RollbackResult:
    """What a rollback came to."""

    sweep: str
    model: str
    before: str | None
    """The version that was champion; None where there was none, or the store is away."""
    to: str | None
    """The version that is; None for the one before, where the store is away."""
    because: str
    state: str
    """In words: moved, there already, or why not yet."""

    def to_json(self) -> dict[str, str | None]:
        """Give the object that `--json` prints."""
        return {
            "sweep": self.sweep,
            "model": self.model,
            "from": self.before,
            "to": self.to,
            "because": self.because,
            "state": self.state,
        }


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m platform.rollback",
        usage=f"{EXAMPLE} [--to VERSION] [--dry-run]",
        description="Move alias champion of a sweep's registered model back to the champion before, or to any version. "
        "Nothing is deleted, and the history keeps who, when and why; python -m platform.promote --history shows it.",
        epilog="The same command with the same reason again changes nothing: to go back one more, give another reason "
        "or --to. A tracking server that is down gets the move when it is back.",
    )
    command.add_argument("sweep", nargs="?", metavar="SWEEP", help="the sweep; may be left out where there is only one")
    command.add_argument("--to", metavar="VERSION", help="a version of the model (default: the champion before)")
    command.add_argument("--because", metavar="WHY", help="the reason, which the history keeps; needed")
    command.add_argument("--dry-run", action="store_true", help="say what would move; move nothing")
    command.add_argument("--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)")
    command.add_argument("--uri", metavar="URI", help="tracking.uri (default: that of the sweep)")
    command.add_argument("--json", action="store_true", help="the result as one JSON object")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0; 2 where there is no such sweep, version or earlier champion."""
    options = parser().parse_args(arguments)
    if options.because is None or not options.because.strip():
        raise InputError('--because: say why, it is kept: --because "its masks lose the heads"')
    if len(options.because) > LONGEST_REASON:
        raise InputError(f"--because: has {len(options.because)} characters, {LONGEST_REASON} are kept; say it shorter")
    store = storage(options.storage, "--storage")
    name = sweep_name(store, options.sweep)
    result = roll_back(store, name, options)
    if options.json:
        print(json.dumps(result.to_json(), indent=2))
        return 0
    before = f"version {result.before}" if result.before else "the present one"
    shown = f"champion of {result.model}, {before} to {result.to or 'the one before'}"
    print(f"{shown}: {result.state}")
    where = "" if options.storage == "sweeps" else f" --storage {shlex.quote(options.storage)}"
    print(f"next: python -m platform.promote --history --sweep {name}{where}")
    return 0


def sweep_name(store: Storage, asked: str | None) -> str:
    """Return the sweep that is meant. Raises InputError where that is not clear, or nothing was ever recorded
    for it.
    """

    there = [name for name in sweep_names(store) if store.sweep(name).spec.exists()]
    if asked is None and len(there) != 1:
        raise InputError(f"SWEEP: is missing, and {store.root} has {', '.join(there) or 'none'}; name one")
    name = there[0] if asked is None else asked
    sweep_paths(store, name)
    return name


def roll_back(store: Storage, name: str, options: argparse.Namespace) -> RollbackResult:
    """Move the alias, unless it is there already; returns what was done."""
    from .promotion.champion_history import missing_model_message, recorded_history
    from .search.study_store import shown
    from .tracking.read import read_model_state
    from .tracking.recorder import Recorder, check_store
    from .tracking.records import CHAMPION, model_name

    uri = options.uri if options.uri is not None else stored_uri(store, name)
    model, paths = model_name(name), store.sweep(name)
    away = check_store(uri)
    state = read_model_state(uri, model) if away is None else None
    before = recorded_history(store, name)
    if away is None and state is None and not before:
        raise InputError(f"{name}: nothing was promoted, there is no model {model} in its tracking store")
    if away is None and (state is None or deleted(state) or has_lost(state, before)) and not options.dry_run:
        with locked(paths, name):
            recorder = Recorder(paths.records, uri, name, warn=to_stderr)
            recorder.check()
            left = recorder.close(FLUSH_S)  # the store is told again what it has lost
        if left:
            raise WorkError(
                f"{shown(uri) if uri else 'the tracking store'}: is being told again what it has lost, and {left} "
                "records are still on their way; give the same command again"
            )
        state = read_model_state(uri, model)
    if away is None and state is None:
        raise InputError(f"{name}: {missing_model_message(name)}")
    present = state.aliases.get(CHAMPION) if state else None
    to = target(state, options.to, options.because) if state else options.to
    result = RollbackResult(name, model, present, to, options.because, "it is there already, nothing was moved")
    if to is not None and to == present:
        return result
    if options.dry_run:
        return replace(result, state="nothing was moved; without --dry-run it is")
    run = {"uid": state.versions[to].get("uid")} if state and to else {}
    decision = Decision(kind=ROLLED_BACK, by=PERSON, **run)
    with locked(paths, name):
        recorder = Recorder(paths.records, uri, name, warn=to_stderr)
        if away is None:
            recorder.check()
        recorder.point(model, CHAMPION, to, options.because, decision)
        waiting = recorder.close(FLUSH_S)
    after = read_model_state(uri, model) if away is None and not waiting else None
    if after is not None and to is not None and after.aliases.get(CHAMPION) != to:
        raise WorkError(f"{model}: the tracking store did not move {CHAMPION} to {to}; {paths.records} has the reason")
    return replace(result, state="moved" if not waiting else f"waits for the tracking store ({away or 'slow'})")


def deleted(state: "ModelState") -> bool:
    """Return whether somebody deleted the version that is champion."""
    from .tracking.records import CHAMPION

    last = state.last(CHAMPION)
    return last is not None and last not in state.versions and CHAMPION not in state.aliases


def has_lost(state: "ModelState", before: Sequence[HistoryEntry]) -> bool:
    """Return whether the store lacks moves that it had when it was last written to: it was put back to a backup."""
    return not {entry.id for entry in before} <= {entry.id for entry in state.history}


def target(state: "ModelState", to: str | None, because: str) -> str:
    """Return the version to go to. Raises InputError where there is none."""
    from .tracking.records import CHAMPION

    if to is not None:
        if to not in state.versions:
            there = ", ".join(sorted(state.versions, key=int))
            known = any(entry.to == to for entry in state.history)
            why = "was deleted in MLflow" if known else f"{state.name} has no such version"
            raise InputError(f"--to {to}: {why}; there are {there}")
        return to
    entries = [entry for entry in state.history if entry.alias == CHAMPION]
    last = entries[-1] if entries else None
    if last and last.kind == ROLLED_BACK and last.why == because and last.to == state.aliases.get(CHAMPION):
        return str(last.to)
    stack = champions(state.history, CHAMPION, state.versions)
    if len(stack) < 2:
        others = [version for version in state.versions if version != state.aliases.get(CHAMPION)]
        sweep = state.name.removeprefix("cpn-")
        example = f"python -m platform.promote RUN makes another one; python -m platform.leaderboard {sweep} lists them"
        cure = "--to VERSION names another" if others else example
        raise InputError(f"{state.name}: has no champion before the present one; {cure}")
    return stack[-2]


if __name__ == "__main__":
    run_command(main)
