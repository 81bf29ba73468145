"""Owner of an experiment in the store: one sweep writes to it, identified by its id (origin.py), not by its name.

The id is a tag of the experiment, so that one that was given another name in the MLflow UI is still found. Beside it
stands the place of the sweep, and the last record that it has delivered: a copied folder has the same id, but not both.
"""

from collections.abc import Callable
from typing import Any, Protocol

from cpn.core.redact import redact

from .moved_store import Move, files_moved, follow
from .origin import ORIGIN, Origin, lives
from .spool import Unfit

PLACE, REPLAYED = "origin_place", "replayed"
"""Tags of the experiment: the origin's place, and the id of the last record that the store has taken."""


class DeliveredRecords(Protocol):
    """Records that were delivered to the store before."""

    @property
    def begun(self) -> set[tuple[str, int]]:
        """uid and time, in ms, of each start of a run."""

    def has(self, event_id: str) -> bool:
        """Return whether it has the record."""

    def __bool__(self) -> bool:
        """Return whether there is any."""


def own_experiment(
    mlflow: Any,
    client: Any,
    uri: str,
    name: str,
    origin: Origin,
    delivered: DeliveredRecords,
    say: Callable[[str], None],
) -> tuple[Any, bool]:
    """Return the sweep's experiment (`judge`; None if there is none yet), and whether the store was moved or copied.
    It is restored if it was deleted, and made to write its files where the store lies now. Raises Unfit as `judge`.
    """
    experiment, move = judge(mlflow, client, uri, name, origin, delivered)
    if experiment is None:
        return None, False
    if move is not None:
        follow(uri, experiment.artifact_location, move, say)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
        say(f"tracking.uri: {redact(uri)}: experiment {experiment.name!r} had been deleted in MLflow; it is restored")
    for key, value in ((ORIGIN, origin.id), (PLACE, origin.place)):
        if experiment.tags.get(key) != value:
            client.set_experiment_tag(experiment.experiment_id, key, value)
    return client.get_experiment(experiment.experiment_id), move is not None


def judge(
    mlflow: Any, client: Any, uri: str, name: str, origin: Origin, delivered: DeliveredRecords
) -> tuple[Any, Move | None]:
    """Find the experiment of the sweep of `origin` in the store, and how its files have moved. It is its own under any
    name, or one older than ids that holds runs which it began; None where there is none yet. Changes nothing.

    Raises Unfit, in one line, where the name is taken, or a copy of this sweep has the experiment.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.tags.get(ORIGIN) != origin.id:
        everything = mlflow.entities.ViewType.ALL
        renamed = client.search_experiments(everything, filter_string=f"tags.{ORIGIN} = '{origin.id}'")
        experiment = renamed[0] if renamed else experiment
    if experiment is None:
        return None, None
    tags, number = experiment.tags, experiment.experiment_id
    owner = tags.get(ORIGIN)
    where, cure = f"tracking.uri: {uri}: experiment {experiment.name!r}", "take another name: --set name=NEW"
    if owner not in (None, origin.id):
        raise Unfit(f"{where} holds the records of another sweep of this name ({tags.get(PLACE)}); {cure}")
    if owner is None and not (origin.adopts or _began(client, number, delivered)):
        raise Unfit(f"{where} holds the records of another sweep of this name, which ran elsewhere; {cure}")
    move = files_moved(uri, experiment.artifact_location)
    place = tags.get(PLACE, origin.place)
    if move is None and place != origin.place:
        if lives(place, origin):
            raise Unfit(f"{where} is written to by the sweep in {place}, of which this is a copy; {cure}")
        if not origin.shared and delivered and REPLAYED in tags and not delivered.has(tags[REPLAYED]):
            raise Unfit(f"{where} has been written to from {place} since this folder was copied; {cure}")
    return experiment, move


def _began(client: Any, experiment_id: str, delivered: DeliveredRecords) -> bool:
    """Return whether an unsigned experiment is empty, or holds a run that was started from here."""
    token, empty = None, True
    while True:
        page = client.search_runs([experiment_id], max_results=500, page_token=token)
        for run in page:
            if "uid" in run.data.tags:
                empty = False
                if (run.data.tags["uid"], run.info.start_time) in delivered.begun:
                    return True
        token = page.token
        if not token:
            return empty
