"""Whose records these are, beyond the name of a sweep: names come twice, in two folders or after a fresh start.

A sweep's study, which is the truth about its trials, has a random id; the folder of its records has a copy of it, for
commands that open no study. An experiment in the MLflow store belongs to the id that made it (owner.py). Where
a folder is copied its id is copied too: `place` tells the copy from the one that was moved.
"""

import os
import secrets
import socket
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cpn.core.errors import InputError
from cpn.core.files import digest, read_json, write_json
from cpn.core.redact import redact

from ..base.tracking_uri import sqlite_path
from ..config.identity import StudyIdentity
from ..search.study import Study

ORIGIN = "origin"
"""Attribute of the study, and tag of experiment and registered model: the id."""
FILE = "origin.json"
CURE = "move that folder away, or take another name: --set name=NEW"


@dataclass(frozen=True)
class Origin:
    """Who may write the records of a sweep."""

    id: str
    """Random, made once."""
    place: str
    """HOST:/FILE that keeps the id, the study's database or origin.json; or a database's URL without its password."""
    adopts: bool = False
    """Whether the sweep adopts unsigned runs that its spool does not list: it is older than ids."""

    @property
    def shared(self) -> bool:
        """Whether the study is in a database server, which two folders may share: the study's lock keeps them apart."""
        return "://" in self.place


def folder_origin(folder: Path) -> Origin:
    """Return the id that a folder of records keeps, made where there is none."""
    file = folder / FILE
    record = _read(folder)
    if "id" not in record:
        record = {**record, "id": secrets.token_hex(16)}
        write_json(file, record)
    return Origin(record["id"], _place(folder, record))


def sweep_origin(study: Study, folder: Path) -> Origin:
    """Return the id of a sweep, from its study; a study that has none yet takes that of the folder of its records, or a
    new one. The folder keeps it too.

    Raises InputError where the folder holds the records of another study, or of another search whose study is gone.
    """
    record, search = _read(folder), digest(study.identity().to_json())
    own = study.remembered(ORIGIN).get("id")
    if own is not None and record.get("id", own) != own:
        raise InputError(_of_another_study(folder))
    if own is None and record.get("search", search) != search:
        raise InputError(f"{folder}: holds the records of another search, whose study is gone; {CURE}")
    adopts = own is None and "id" not in record and any(row.state.finished for row in study.rows())
    sweep_id = str(own or record.get("id") or secrets.token_hex(16))
    if own is None:
        study.remember(ORIGIN, {"id": sweep_id})
    path = sqlite_path(study.url)
    at = redact(study.url) if path is None else _from(folder, path)
    if record != (updated := {**record, "id": sweep_id, "search": search, "study": at}):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, updated)
    return Origin(sweep_id, at if path is None else _here(path), adopts=adopts)


def expected_origin(study: "Study | None", url: str, folder: Path) -> Origin:
    """Return the origin that the next start of a sweep will have, from its study, None where there is none yet, and the
    folder of its records. Makes nothing.

    Raises InputError where the folder holds the records of another study.
    """
    record = _read(folder)
    own = None if study is None else study.remembered(ORIGIN).get("id")
    if own is not None and record.get("id", own) != own:
        raise InputError(_of_another_study(folder))
    sweep_id = str(own or record.get("id") or secrets.token_hex(16))
    adopts = (
        own is None and "id" not in record and study is not None and any(row.state.finished for row in study.rows())
    )
    if "id" in record and "study" not in record:
        return Origin(sweep_id, _place(folder, record))
    path = sqlite_path(url)
    return Origin(sweep_id, redact(url) if path is None else _here(path), adopts=adopts)


def of_this_search(folder: Path, identity: StudyIdentity) -> bool:
    """Return whether a folder holds the records of a search with this identity."""
    return _read(folder).get("search") == digest(identity.to_json())


def lives(place: str, origin: Origin) -> bool:
    """Return whether another place than the origin's own, on this machine, still has its id: then one is a copy of the
    other. What is on another machine, or a URL, cannot be looked at: False.
    """
    host, _, path = place.partition(":")
    if place == origin.place or "://" in place or host != socket.gethostname():
        return False
    other = Path(path)
    try:
        if not origin.shared and other.samefile(Path(origin.place.partition(":")[2])):
            return False
        if other.name == FILE:
            record = _read(other.parent)
            return record.get("id") == origin.id and _place(other.parent, record) != origin.place
        with closing(sqlite3.connect(f"{other.as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            query = "select count(*) from study_user_attributes where key = ? and value_json like ?"
            return bool(database.execute(query, (ORIGIN, f'%"{origin.id}"%')).fetchone()[0])
    except (OSError, ValueError, sqlite3.Error):
        return False


def _of_another_study(folder: Path) -> str:
    return f"{folder}: holds the records of another study of this name; {CURE}"


def _read(folder: Path) -> dict[str, str]:
    """Return what a folder of records keeps; nothing where nothing is. InputError where that is damaged."""
    file = folder / FILE
    if not file.exists():
        return {}
    try:
        record = read_json(file)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise InputError(f"{file}: is damaged; delete it: the sweep's study has the id too")
    return {str(name): str(value) for name, value in record.items()}


def _place(folder: Path, record: Mapping[str, str]) -> str:
    """Return what goes on with the records of a folder: its study, or the folder itself."""
    study = record.get("study", FILE)
    return study if "://" in study else _here(folder / study)


def _from(folder: Path, path: Path) -> str:
    """Return how a folder of records keeps the path of a study: from itself where both lie in one storage, which may
    move.
    """
    path, storage = path.absolute(), folder.absolute().parent.parent
    return os.path.relpath(path, folder.absolute()) if path.is_relative_to(storage) else str(path)


def _here(path: Path) -> str:
    return f"{socket.gethostname()}:{path.resolve()}"
