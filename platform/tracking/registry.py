"""The model registry: the versions of a sweep's model, its alias, and the append-only history of where that pointed.

The history is in the registered model's tags, one `promotion.<id>` an entry, where the MLflow UI shows it. An entry is
written once, before the alias moves, and never again; its id is the record's, so that a record that comes twice leaves
one. An alias that points elsewhere than the last entry says was moved by hand: `ModelState.by_hand`.
"""

import json
import tempfile
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cpn.core.errors import WorkError

from .in_mlflow.promotion_history import PUT_BACK, ROLLED_BACK, SWEEP, HistoryEntry
from .spool import Event, Refused

PREFIX = "promotion."
HISTORY = "history.jsonl"
"""A copy of the history beside the spool, for when the store is away."""
LONGEST_REASON = 1000
"""Characters of a reason: an entry of the history has 5000 in all."""


@dataclass(frozen=True)
class ModelState:
    """A registered model as the store has it."""

    name: str
    aliases: dict[str, str]
    versions: dict[str, dict[str, str]]
    """The tags of each version, and the MLflow id of its run as `run_id`."""
    history: list[HistoryEntry]
    """Oldest first."""

    def last(self, alias: str) -> str | None:
        """Return the version that the history's last entry moved the alias to."""
        entries = [entry for entry in self.history if entry.alias == alias]
        return entries[-1].to if entries else None

    def by_hand(self, alias: str) -> bool:
        """Return whether the alias has been moved, or taken away, by hand since. One that we never set is no
        request.
        """
        known = any(entry.alias == alias for entry in self.history)
        return known and self.aliases.get(alias) != self.last(alias)


def read_model(client: Any, name: str) -> ModelState:
    """Return a registered model with its versions and history. Raises what MLflow raises, also when there is none, and
    WorkError where a tag is no entry of a history.
    """
    model = client.get_registered_model(name)
    versions = {
        str(version.version): {**version.tags, "run_id": version.run_id or ""}
        for version in client.search_model_versions(f"name = '{name}'")
    }
    keys = [key for key in sorted(model.tags) if key.startswith(PREFIX)]
    entries = [read_entry(name, key, model.tags[key]) for key in keys]
    return ModelState(name, {alias: str(v) for alias, v in model.aliases.items()}, versions, entries)


def read_entry(model: str, key: str, text: str) -> HistoryEntry:
    """Return the entry that a tag of a registered model holds. Raises WorkError where it holds none."""
    try:
        return HistoryEntry.model_validate({"id": key.removeprefix(PREFIX), **json.loads(text)})
    except (ValueError, TypeError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else "no JSON object"
        raise WorkError(
            f"{model}: tag {key} is no entry of the promotion history ({what}); delete it in MLflow"
        ) from None


def champions(history: Sequence[HistoryEntry], alias: str, versions: Container[str] | None = None) -> list[str]:
    """Return the champions that stand on each other, the present one last: what a rollback goes back along.

    A promotion puts one on top, a way back takes off all above the one it goes to. Of those before the present one only
    `versions` count, where given: others were deleted.
    """
    stack: list[str] = []
    for entry in history:
        to = entry.to
        if entry.alias != alias or to is None or stack[-1:] == [to]:
            continue
        if entry.kind in (ROLLED_BACK, PUT_BACK) and to in stack:
            del stack[stack.index(to) + 1 :]
        else:
            stack.append(to)
    if versions is None:
        return stack
    left: list[str] = []
    for version in [*(version for version in stack[:-1] if version in versions), *stack[-1:]]:
        left += [version] if left[-1:] != [version] else []
    return left


def register(client: Any, event: Event, run_id: str, write_model: Callable[[Path], None] | None) -> str:
    """Make a version of the run's artifacts, unless its tags uid and digest are known; returns the version.

    `write_model` fills a folder that becomes the version, beside the artifacts in the event's folder.
    """
    name, tags = event["model"], event["tags"]
    mine = [version for version in client.search_model_versions(f"name = '{name}'")
            if (version.tags.get("uid"), version.tags.get("digest")) == (tags["uid"], tags["digest"])]  # fmt: skip
    if mine:
        for key, value in tags.items():
            client.set_model_version_tag(name, mine[0].version, key, str(value))
        return str(mine[0].version)
    folder = event["folder"]
    if write_model is not None:
        folder = f"{folder}_pyfunc".lstrip("_")
        with tempfile.TemporaryDirectory() as temporary:
            write_model(Path(temporary) / "model")
            client.log_artifacts(run_id, str(Path(temporary) / "model"), folder)
    source = f"{client.get_run(run_id).info.artifact_uri}/{folder}".rstrip("/")
    return str(client.create_model_version(name, source, run_id, tags=tags).version)


def move(client: Any, event: Event, version: str | None) -> list[HistoryEntry]:
    """Move the alias to `version`, None: to the champion before the present one; returns the history.

    An alias that is there already is left, without an entry. So is one that has been moved since the entry was written,
    and where a sweep says again what its last word was (its spool is lost). Raises Refused where there is no earlier
    champion.
    """
    name, alias = event["model"], event["alias"]
    state = read_model(client, name)
    entries = [entry for entry in state.history if entry.alias == alias]
    recorded = next((entry for entry in entries if entry.id == event["id"]), None)
    before = state.aliases.get(alias)
    if recorded is not None:
        if recorded is entries[-1] and before == recorded.before and recorded.to in state.versions:
            client.set_registered_model_alias(name, alias, recorded.to)  # a kill came between entry and alias
        return state.history
    if version is None:
        stack = champions(state.history, alias, state.versions)
        if len(stack) < 2:
            raise Refused(f"{name} has no champion before the present one")
        version = stack[-2]
    client.get_model_version(name, version)  # a wrong version is refused before the history has it
    if event.get("first") and event.get("entry", {}).get("by") == SWEEP:
        own = [entry for entry in entries if entry.by == SWEEP]
        if own and own[-1].to == version:
            return state.history
    if before != version:
        write_entry(client, entry_of(event, before, version, remark_of(state, alias)))
    client.set_registered_model_alias(name, alias, version)
    return read_model(client, name).history


def note(client: Any, event: Event, again: bool = False) -> list[HistoryEntry]:
    """Write down a move that somebody else made, once; returns the history. Where it is told `again`, to a store that
    has forgotten it, the alias is moved too.
    """
    state, alias = read_model(client, event["model"]), event["alias"]
    if any(entry.id == event["id"] for entry in state.history):
        return state.history
    write_entry(client, entry_of(event, event["from"], event["to"]))
    if again and state.aliases.get(alias) == event["from"]:
        if event["to"] in state.versions:
            client.set_registered_model_alias(state.name, alias, event["to"])
        elif event["to"] is None and event["from"] is not None:
            client.delete_registered_model_alias(state.name, alias)
    return read_model(client, event["model"]).history


def entry_of(event: Event, before: str | None, after: str | None, remark: str | None = None) -> HistoryEntry:
    """Return what the history keeps of a record."""
    return HistoryEntry.model_validate(
        {
            "id": event["id"],
            "who": event["who"],
            "when": event["time"] / 1000,
            "model": event["model"],
            "alias": event["alias"],
            "from": before,
            "to": after,
            "why": event["reason"],
            **event.get("entry", {}),
            **({} if remark is None else {"remark": remark}),
        }
    )


def remark_of(state: ModelState, alias: str) -> str | None:
    """Return a remark where the alias has been moved by hand since the last entry, and is moved away from there now."""
    if not state.by_hand(alias):
        return None
    return f"moved by hand before, from {state.last(alias)} to {state.aliases.get(alias)}"


def write_entry(client: Any, entry: HistoryEntry) -> None:
    """Append to the history."""
    client.set_registered_model_tag(entry.model, PREFIX + entry.id, json.dumps(entry.to_json()))
