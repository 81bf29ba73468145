"""An sqlite store keeps absolute paths to the files of its runs: in a project that was moved or copied they still lead
to the old folder. Here they are made to follow the store.
"""

import shlex
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ..base.tracking_uri import sqlite_path
from .spool import Unfit

FILES = "mlartifacts"
"""Beside the store: a folder for the files of each experiment."""
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)  # fmt: skip
"""Where MLflow's tables keep addresses of files."""


class Move(NamedTuple):
    """Where the files of an experiment were, and where they are since the store was moved or copied with them."""

    old: Path
    new: Path
    copied: bool


def files_moved(uri: str, location: str) -> Move | None:
    """Return how the folder of an experiment's files, `location`, has moved with the store; None where it has not: one
    that was moved alone keeps its files where they are. Changes nothing.

    Only of an sqlite store that names its files' place as we do. Raises Unfit, with the cure, for a copy without
    its files: two stores would write into one folder.
    """
    path = sqlite_path(uri)
    old = Path(unquote(urlsplit(location).path))
    if path is None or not location.startswith("file://") or old.parent.name != FILES:
        return None
    new, before = path.parent / FILES / old.name, old.parent.parent / path.name
    if old == new or (old.exists() and new.exists() and old.samefile(new)):
        return None
    copied = before.exists() and not before.samefile(path)
    if old.exists() and not new.exists():
        if not copied:
            return None
        cure = f"cp -a {shlex.quote(str(old))} {shlex.quote(str(new))}"
        raise Unfit(f"tracking.uri: {uri} is a copy of {before} without its files; copy them too: {cure}")
    return Move(old, new, copied)


def follow(uri: str, location: str, move: Move, say: Callable[[str], None]) -> None:
    """Let the addresses below `location`, an experiment's, lead to the folder beside the store."""
    path = sqlite_path(uri)
    assert path is not None
    _rewrite(path, location.rstrip("/"), move.new.as_uri())
    how = "copied" if move.copied else "moved"
    say(f"tracking.uri: {uri} was {how}: files go to {move.new}, no longer to {move.old}")


def _rewrite(path: Path, old: str, new: str) -> None:
    """Change the addresses that are `old` or below it, all or none."""
    try:
        with closing(sqlite3.connect(path, timeout=60)) as database, database:
            for table, column in _COLUMNS:
                there = [row[1] for row in database.execute(f"pragma table_info({table})")]
                if column in there:
                    database.execute(
                        f"update {table} set {column} = ? || substr({column}, ?) "  # noqa: S608
                        f"where {column} = ? or substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
    except sqlite3.Error as error:
        raise Unfit(f"tracking.uri: {path} cannot be written ({error})") from error
