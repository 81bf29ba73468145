"""What a sweep lets go of by itself, and says so: checkpoints of trials that have ended, networks beyond the best ones.

Never the network of the reference, of what was confirmed or promoted, of MLflow's champion, or of what another sweep of
the storage needs; never anything of a trial that can be resumed; never results, counts and pictures. MLflow keeps its
own copy of every finished network. `python -m platform.gc` lets go of more.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpn.core.errors import InputError, WorkError
from cpn.core.run_files import CHECKPOINTS, MODEL

from ..base import bucket_sync
from ..base.lock import is_driven, read_driver
from ..base.paths import Storage
from ..reports.sweep_status import sweep_names
from .garbage import CHAMPION, RunIndex, index_runs, megabytes, reasons

if TYPE_CHECKING:
    from ..search.study import TrialRow


@dataclass(frozen=True)
class Deleted:
    """What was deleted."""

    networks: int = 0
    checkpoints: int = 0
    bytes: int = 0
    networks_left: int = 0
    """Networks of the search that stay."""
    uids: tuple[str, ...] = ()
    """Runs of which files were deleted."""


def retain(
    store: Storage,
    name: str,
    rows: Iterable[tuple["TrialRow", str]],
    confirm: Iterable[tuple["TrialRow", str]],
    top: int | None,
    needed: Iterable[str],
    champions: Iterable[Mapping[str, str]],
) -> Deleted:
    """Let go of what nothing needs. `rows` and `confirm` have their run keys; `needed` are uids that stay whatever the
    top is. Raises WorkError or InputError, with nothing let go, where it cannot be known what others need.
    """
    own = RunIndex(list(rows), list(confirm))
    for other in sweep_names(store):
        driver = read_driver(store.sweep(other)) if other != name else None
        if driver is None and other != name and is_driven(store.sweep(other)):
            raise WorkError(f"{other} runs, though its driver.json is damaged, and may take up any run")
        if driver is not None and driver.alive:
            raise WorkError(f"{other} runs (process {driver.pid} on {driver.host}) and may take up any run")
    names = [other for other in sweep_names(store) if other != name]
    others = {other: index_runs(store, other) for other in names}
    limit = len(own.rows) if top is None else top
    stay = reasons(own, others, limit, None, champions)
    stay |= {key: "needed" for row, key in own.rows if row.uid in set(needed)}
    stay |= {key: "a confirm run" for _, key in own.confirm}
    networks = checkpoints = size = kept_networks = 0
    uids: list[str] = []
    for key, row in {key: row for row, key in own.rows if row.state.finished}.items():
        folder, done = store.run(key), row.state.name == "COMPLETE"
        if done and key in stay:
            kept_networks += 1
        elif key in stay:
            continue  # pruned here, but another trial or sweep is about to go on with it
        elif freed := bucket_sync.drop(store, folder, MODEL if done else CHECKPOINTS):
            networks, checkpoints, size = networks + done, checkpoints + (not done), size + freed
            uids.append(row.uid)
    return Deleted(networks, checkpoints, size, kept_networks, tuple(uids))


def words(deleted: Deleted) -> str | None:
    """Describe the deleted files in a line; None if there are none."""
    counts = (
        (deleted.networks, "networks beyond the best"),
        (deleted.checkpoints, "trials' checkpoints that nothing resumes"),
    )
    parts = [f"{count} {what}" for count, what in counts if count]
    if not parts:
        return None
    named = f" ({', '.join(deleted.uids)})" if deleted.uids else ""
    what = f"{' and of '.join(parts)}{named}"
    return f"let go of {what}, {megabytes(deleted.bytes)}; {deleted.networks_left} networks of the search are kept"


def delete_at_the_end(
    store: Storage,
    name: str,
    rows: Iterable[tuple["TrialRow", str]],
    confirm: Iterable[tuple["TrialRow", str]],
    top: int | None,
    needed: Iterable[str],
    uri: str | None,
    waiting: int,
    say: Callable[[str], None],
) -> None:
    """`retain`, and say what was let go of, or why nothing was. `waiting` records have not reached MLflow yet."""
    from ..tracking.recorder import read_aliases

    try:
        if waiting:
            raise WorkError(f"{waiting} records are still on their way to MLflow")
        deleted = retain(store, name, rows, confirm, top, needed, read_aliases(uri, CHAMPION).values())
    except (InputError, WorkError) as error:
        say(f"nothing was let go of: {error}")
        return
    line = words(deleted)
    if line is not None:
        say(line)
