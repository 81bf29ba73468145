"""Undo a refused start: studies and records are left as they were before it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..search.study_store import connect, existing_studies, reachable


@contextmanager
def withdrawn_if_refused(names: Sequence[str], url: str, records: Path) -> Iterator[None]:
    """Delete the studies of these names, and the folder of records, which are made in the block, if it ends with an
    error: a study without a trial would be listed as a sweep, and its records would be taken for those of another one.

    The caller holds the locks of the sweep, so no other process makes them meanwhile.
    """
    before, known = existing_studies(url), records.exists()
    try:
        yield
    except Exception:
        with reachable(url):
            new_studies = (existing_studies(url) - before).intersection(names)
            database = connect(url, create=True)
            for name in new_studies:
                database.delete_study(database.get_study_id_from_name(name))
            database.remove_session()
        if not known:
            shutil.rmtree(records, ignore_errors=True)
        raise
