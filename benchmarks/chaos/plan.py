"""Which faults a campaign has, and when each comes: a pure function of the number of faults and the seed."""

import random
from dataclasses import dataclass, replace

KINDS = {
    "worker": "kill -9 of a process that trains, or works on a stage",
    "trial": "kill -9 of a trial's own actor, or of Ray Train's controller",
    "node": "kill -9 of a node's raylet; another node joins later",
    "head": "kill -9 of everything on the head node: the cluster is gone, and started anew later",
    "driver": "kill -9 of the sweep's own process",
    "stop": "SIGTERM once, or twice at once, or SIGINT once",
    "mlflow": "kill -9 of the MLflow server; it is back later",
    "mlflow_away": "the MLflow server is down from before the sweep until after it",
    "postgres": "kill -9 of PostgreSQL, which holds the study; it is back later",
    "no_space": "the driver and all that train can write no file beyond 4 KiB (RLIMIT_FSIZE) for a while",
    "no_space_artifacts": "the MLflow server can write no file beyond 4 KiB (RLIMIT_FSIZE) for a while",
    "checkpoint": "the newest checkpoint loses its end, or has other bytes in it, and what trains is killed",
    "cut_off": "a node's raylet stands still (SIGSTOP) until the cluster counts it as dead; its workers run on alone",
}
"""Kind of fault -> what it does."""

PER_SWEEP = 17
"""Faults planned for one sweep; those that it ends before are left to a further one."""


@dataclass(frozen=True)
class Fault:
    """One fault."""

    number: int
    kind: str
    after: int
    """How many epochs, starts and ends there are after it has recovered from the fault before, until this one comes."""
    delay_s: float
    """And how long after the last of them."""
    outage_s: float
    """How long what was broken stays broken."""
    choice: float
    """Decides between the ways of a kind, and between several victims: 0 to 1."""


@dataclass(frozen=True)
class Planned:
    """One sweep and its faults."""

    faults: tuple[Fault, ...]
    postgres: bool
    """The study is in PostgreSQL, else in sqlite."""

    @property
    def away(self) -> bool:
        """The MLflow server is down all the time."""
        return any(fault.kind == "mlflow_away" for fault in self.faults)


def plan(faults: int, seed: int) -> list[Planned]:
    """The sweeps of a campaign, in turn with PostgreSQL and the MLflow server, and with sqlite and no MLflow server.

    Kinds come in shuffled rounds, so that each comes before any comes twice.
    """
    rng = random.Random(seed)
    kinds: list[str] = []
    while len(kinds) < faults:
        kinds += rng.sample(sorted(KINDS), len(KINDS))
    drawn = [
        Fault(number, kind, rng.randint(1, 7), rng.uniform(0, 2), rng.uniform(2, 12), rng.random())
        for number, kind in enumerate(kinds[:faults], 1)
    ]
    return [arranged(drawn[at : at + PER_SWEEP], at // PER_SWEEP % 2 == 0) for at in range(0, faults, PER_SWEEP)]


def arranged(faults: list[Fault], services: bool) -> Planned:
    """One sweep with these faults, in their order, with the services or without them.

    What cannot be broken there is the driver's kill in place of the server's. Without services the first fault is that
    the MLflow server is away; it lasts all the time.
    """
    if services:
        others = [replace(fault, kind="driver") if fault.kind == "mlflow_away" else fault for fault in faults]
        return Planned(tuple(others), True)
    servers = ("mlflow", "mlflow_away", "no_space_artifacts", "postgres")
    others = [replace(fault, kind="driver") if fault.kind in servers else fault for fault in faults[1:]]
    return Planned((replace(faults[0], kind="mlflow_away"), *others), False)
