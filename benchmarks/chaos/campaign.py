"""The campaign itself: one sweep after the other under its faults, mended and started again until it ends with 0."""

import time
import traceback
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.books import Books, Ran, compare, what_ran
from benchmarks.chaos.faults import Absent, World
from benchmarks.chaos.plan import Fault, Planned, arranged
from benchmarks.chaos.sweep import Sweep
from benchmarks.services.mlflow import mlflow_server
from benchmarks.services.postgres import postgres
from benchmarks.services.processes import Mark, marked
from benchmarks.services.ray_nodes import ray_nodes

POLL_S = 0.2
STILL_S = 900.0
"""A sweep that has reported nothing for so long stands still; a busy machine takes minutes for what takes seconds."""
STARTS_AGAIN = 5
"""How often a command that ends badly without a reason is run again, until it is given up."""
CAN_END = ("postgres", "no_space", "head")
"""Kinds after which the command may end, when the sweep comes upon what is broken."""
WAITING = "records wait for the tracking store"
"""Says a command at its end whose records are not all in MLflow; and that it should be run again."""
HEALTH = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "3000"}
"""So that the cluster counts a node as dead after 15 seconds and not after a minute."""


@dataclass
class Hit:
    """A fault that was brought about."""

    fault: Fault
    sweep: str
    at: str
    """What ran at the time."""
    resume_s: float = 0.0
    starts: int = 0
    """How often the command had to be started again."""


@dataclass
class Campaign:
    """Results of all sweeps."""

    hits: list[Hit] = field(default_factory=list)
    books: dict[str, Books] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    tracebacks: dict[str, list[str]] = field(default_factory=dict)
    """Sweep -> those in what its commands printed, each with the lines around it."""

    def count(self, name: str) -> int:
        """Count all sweeps' sentences of one kind."""
        return sum(books.counts()[name] for books in self.books.values())


def run_campaign(campaign: Campaign, planned: list[Planned], folder: Path) -> None:
    """Start the services, run the undisturbed sweep and then the others, until all faults have been brought about."""
    with ExitStack() as stack:
        say("starting two Ray nodes, MLflow" + (", PostgreSQL" if any(p.postgres for p in planned) else ""))
        cluster = stack.enter_context(ray_nodes(2, cpus_each=1, environment=HEALTH))
        server = stack.enter_context(mlflow_server(folder / "mlflow"))
        database = stack.enter_context(postgres()) if any(p.postgres for p in planned) else None
        mark = stack.enter_context(marked("chaos"))
        world = World(cluster, server, database)
        say("the undisturbed sweep")
        sweep, url = new_sweep(world, mark, folder, "chaos-00", Planned((), False))
        under_faults(world, sweep, [], campaign)
        undisturbed = what_ran(sweep, url)
        campaign.books[sweep.name] = compare(sweep, url, server.url, cluster, undisturbed)
        campaign.starts[sweep.name] = sweep.starts
        waiting, number = list(planned), 0
        while waiting:
            number += 1
            this = waiting.pop(0)
            name = f"chaos-{number:02d}"
            say(f"{name}: {', '.join(fault.kind for fault in this.faults)}")
            sweep, url = new_sweep(world, mark, folder, name, this)
            if this.away:
                server.kill()
            left = under_faults(world, sweep, list(this.faults), campaign)
            campaign.books[name] = judged(world, sweep, url, undisturbed, campaign)
            campaign.starts[name] = sweep.starts
            campaign.tracebacks[name] = tracebacks_in(sweep.log.read_text(errors="replace"))
            for text in campaign.tracebacks[name]:
                say(f"  a traceback:\n{text}")
            for line in campaign.books[name].sentences():
                say(f"  {line}")
            if left and len(left) == len(this.faults):
                raise RuntimeError(f"{name} ended before any of its faults came")
            if left:
                waiting.append(arranged(left, this.postgres))


def tracebacks_in(log: str) -> list[str]:
    """Find each traceback in a log: the line before it, its own, and those up to two behind its end."""
    lines = log.splitlines()
    starts = [number for number, line in enumerate(lines) if "Traceback" in line]
    texts = []
    for start in starts:
        inside = start + 1
        while inside < len(lines) and (not lines[inside] or lines[inside][0] in " ^|("):
            inside += 1
        texts.append("\n".join(lines[max(0, start - 1) : inside + 3]))
    return texts


def new_sweep(world: World, mark: Mark, folder: Path, name: str, planned: Planned) -> tuple[Sweep, str]:
    """Prepare a new sweep; return it and the URL of its study."""
    settings = [f"tracking.uri={world.mlflow.url}"]
    environment = {**mark.environment, **world.cluster.environment}
    if planned.postgres and world.postgres is not None:
        url = world.postgres.database(name)
        environment["CPN_STUDY_URL"] = url  # with its password, so not on the command line
    else:
        url = f"sqlite:///{folder / name / 'sweeps' / 'study.db'}"
    return Sweep(folder / name, name, settings, environment), url


def under_faults(world: World, sweep: Sweep, faults: list[Fault], campaign: Campaign) -> list[Fault]:
    """Run a sweep to its end, with these faults one after the other; returns those that it ended before."""
    hits = [fault for fault in faults if fault.kind == "mlflow_away"]
    campaign.hits += [Hit(fault, sweep.name, "the start") for fault in hits]
    waiting = [fault for fault in faults if fault.kind != "mlflow_away"]
    sweep.start()
    while waiting:
        fault = waiting[0]
        repair, began, since, before = None, 0.0, 0, set[str]()
        base = sweep.steps()
        while sweep.code() is None and repair is None:
            time.sleep(POLL_S)
            if sweep.steps() < base + fault.after:
                continue
            time.sleep(fault.delay_s)
            since, before, began = len(sweep.events()), sweep.running(), time.monotonic()
            try:
                repair = world.inject(fault, sweep)
            except (Absent, ProcessLookupError):
                continue
        if repair is None:
            if sweep.code() == 0:
                break
            again(campaign, sweep)
            continue
        waiting.pop(0)
        hit = Hit(fault, sweep.name, ", ".join(sorted(uid.removeprefix(sweep.name) for uid in before)) or "between")
        campaign.hits.append(hit)
        time.sleep(fault.outage_s)
        repair()
        starts = sweep.starts
        if fault.kind == "stop":
            since = stopped(sweep, campaign)
        recovered(sweep, since, before, campaign)
        hit.resume_s, hit.starts = time.monotonic() - began, sweep.starts - starts
        say(f"  {fault.number:2d} {fault.kind:18} {hit.at}: {hit.resume_s:.0f} s, {hit.starts} starts")
    ended(sweep, campaign)
    return waiting


def stopped(sweep: Sweep, campaign: Campaign) -> int:
    """Wait for the end of a sweep that was asked to stop; returns how many records there are then, the last reports
    among them. Its exit code has to be that of the signal.
    """
    end = time.monotonic() + STILL_S
    while sweep.code() is None and time.monotonic() < end:
        time.sleep(POLL_S)
    if sweep.code() is None:
        stood_still(campaign, sweep)
    elif sweep.code() not in (0, 130, 143):
        lost(campaign, sweep, f"a stop ended it with {sweep.code()}")
    return len(sweep.events())


def recovered(sweep: Sweep, since: int, before: set[str], campaign: Campaign) -> None:
    """Wait until all that ran has moved again, starting the command again when it ends; or until it ends with 0."""
    last, moved, began = time.monotonic(), 0, sweep.starts
    while True:
        now = sweep.moved(since)
        if before <= now if before else now:
            return
        if len(now) > moved:
            last, moved = time.monotonic(), len(now)
        code = sweep.code()
        if code == 0:
            return
        if code is not None:
            if sweep.starts - began >= STARTS_AGAIN:
                raise RuntimeError(f"{sweep.name} does not go on:\n{sweep.log.read_text()[-3000:]}")
            if sweep.starts > began:
                unexplained(campaign, sweep)
            sweep.start()
            last = time.monotonic()
        elif time.monotonic() - last > STILL_S:
            stood_still(campaign, sweep)
            last = time.monotonic()
        time.sleep(POLL_S)


def ended(sweep: Sweep, campaign: Campaign) -> None:
    """Run the command until it ends with 0."""
    last, seen, tries = time.monotonic(), len(sweep.events()), 0
    while (code := sweep.code()) != 0:
        if len(sweep.events()) > seen:
            last, seen = time.monotonic(), len(sweep.events())
        if code is not None:
            tries += 1
            if tries > STARTS_AGAIN:
                raise RuntimeError(f"{sweep.name} does not end with 0:\n{sweep.log.read_text()[-3000:]}")
            again(campaign, sweep)
        elif time.monotonic() - last > STILL_S:
            stood_still(campaign, sweep)
            last = time.monotonic()
        time.sleep(POLL_S)


def judged(world: World, sweep: Sweep, url: str, undisturbed: Ran, campaign: Campaign) -> Books:
    """The books of a sweep that has ended. A server that was away comes back first, and where records wait for it the
    command is run again, as its last line says.
    """
    if not world.mlflow.processes():
        world.mlflow.start()
    if WAITING in sweep.output():
        sweep.start()
        ended(sweep, campaign)
    books = campaign.books.pop(sweep.name, Books())
    try:
        compared = compare(sweep, url, world.mlflow.url, world.cluster, undisturbed)
    except Exception:
        compared = Books(lost=[f"the books cannot be read: {traceback.format_exc()[-500:]}"])
    for name, sentences in vars(compared).items():
        getattr(books, name).extend(sentences)
    return books


def again(campaign: Campaign, sweep: Sweep) -> None:
    """Start the command again after it ended badly: when it came late upon the last fault, or without a reason."""
    last = campaign.hits[-1] if campaign.hits else None
    if last and last.sweep == sweep.name and last.fault.kind in CAN_END and last.starts == 0:
        last.starts = 1
    else:
        unexplained(campaign, sweep)
    sweep.start()


def unexplained(campaign: Campaign, sweep: Sweep) -> None:
    """Record an end of the command that no fault explains."""
    last_line = sweep.log.read_text(errors="replace").strip().splitlines()[-1][:300]
    lost(campaign, sweep, f"the command ended with {sweep.code()} by itself: {last_line}")


def stood_still(campaign: Campaign, sweep: Sweep) -> None:
    """So is a sweep that does not go on: it is killed and started again."""
    lost(campaign, sweep, f"nothing was reported for {STILL_S:.0f} s, and the driver was killed")
    sweep.kill()
    sweep.start()


def lost(campaign: Campaign, sweep: Sweep, sentence: str) -> None:
    say(f"  {sweep.name}: {sentence}")
    campaign.books.setdefault(sweep.name, Books()).lost.append(sentence)


def say(line: str) -> None:
    print(line, flush=True)
