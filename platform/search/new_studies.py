"""What a start makes and does not keep: one that is refused leaves studies and records as it found them."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..base.tracking_uri import sqlite_path
from .study import Study, read_study, study_names
from .study_store import connect, reachable


def existing_studies(url: str) -> set[str]:
    """The names of the studies in a database; none where its file is not there yet, which is not made."""
    path = sqlite_path(url)
    if path is not None and not (path.exists() and path.stat().st_size):
        return set()
    return set(study_names(url))


def existing_study(name: str, url: str) -> Study | None:
    """A study to look at, None where there is none."""
    return read_study(name, url) if name in existing_studies(url) else None


@contextmanager
def withdrawn_if_refused(names: Sequence[str], url: str, records: Path) -> Iterator[None]:
    """Delete the studies of these names, and the folder of records, which are made in the block, if it ends with an
    error: a study without a trial would be listed as a sweep, and its records would be taken for those of another one.

    Who gets here holds the locks of the sweep, so that nobody else makes them meanwhile.
    """
    before, known = existing_studies(url), records.exists()
    try:
        yield
    except Exception:
        with reachable(url):
            made = (existing_studies(url) - before).intersection(names)
            database = connect(url, create=True)
            for name in made:
                database.delete_study(database.get_study_id_from_name(name))
            database.remove_session()
        if not known:
            shutil.rmtree(records, ignore_errors=True)
        raise
