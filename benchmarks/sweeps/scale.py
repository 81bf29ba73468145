"""A sweep at the size of 1,000 machines on one: its driver, study and records, with trials of which nothing is trained.

    python -m benchmarks scale --hours 1 --json            at the pace of 1,000 GPUs
    python -m benchmarks scale --burst 10000 --json        as fast as it goes
    python -m benchmarks scale --quick                     seconds of both

The driver is the product's, with Tune's own loop and one GPU in each of `--nodes` machines, which are numbers alone:
what Ray's actors would report is there when it is due (benchmarks/sweeps/fake_actors.py). The search space is
search_spaces/patch.yaml; a trial has 8 epochs, of everything that one on VOC has: terms, the load of its GPU by the
minute, a manifest with curve and IoU, an image and a network (of a kilobyte each: a network's own bytes are reckoned in
docs/scale.md). The study is in a PostgreSQL of its own on loopback, the records go over HTTP to an MLflow server with a
second database there; report.html is written as trials end.

`--hours`: an epoch takes 44 minutes, and the first trials are of any age, so that as many end in each hour. With a
tenth of both, `--nodes 100 --epoch 4.425`, as many end as well. `--burst`: every report is due at once, and so many
trials are run, at most for `--minutes`; then the records are given as long again.
Printed by the minute, and at the end: trials an hour, CPU seconds of the driver's threads and of both servers as shares
of one core, the driver's memory, the rows of both databases, and how far the records were behind at most, in events and
in seconds. What making the fakes took of the driver's CPU time is taken off.

Not in it: Ray's control plane (actors, placement groups, heartbeats of nodes), Ray Train's processes, checkpoints and
what training writes. `--actors N` starts N real actors that sleep, one after the other, on this machine's Ray: seconds
and memory for each.
"""

import argparse
import io
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import psutil

from cpn.core.errors import InputError

if TYPE_CHECKING:
    from platform.cluster.capacity import Node
    from platform.config.sweep_spec import SweepSpec
    from platform.run.sweep_context import SweepContext
    from platform.search.study import Study
    from platform.tracking.recorder import Recorder

    from benchmarks.services.processes import Service
    from cpn.data.voc import Pack

SPACE = Path(__file__).resolve().parents[2] / "search_spaces" / "patch.yaml"
NODES = 1000
EPOCHS = 8
RUN_HOURS = 5.90
"""GPU-hours of a run with the preset official on VOC: `python -m platform.sweep search_spaces/patch.yaml --dry-run`."""
MINUTE_S = 60.0
MIB = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--hours", type=float, default=0.0, help="at the pace of real trials, for so long")
    parser.add_argument("--burst", type=int, default=0, metavar="TRIALS", help="as fast as it goes, so many trials")
    parser.add_argument("--minutes", type=float, default=10.0, help="longest burst (%(default)s)")
    parser.add_argument("--actors", type=int, default=0, help="real actors that sleep, one by one")
    parser.add_argument("--nodes", type=int, default=NODES, help="machines of one GPU (%(default)s)")
    parser.add_argument("--epoch", type=float, default=RUN_HOURS * 60 / EPOCHS, help="minutes of one (%(default)s)")
    parser.add_argument("--sampler", default="gp", help="of the search (%(default)s)")
    parser.add_argument("--every", type=float, default=MINUTE_S, help="seconds between two lines (%(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The parts that are wanted."""
    from benchmarks.services.postgres import missing

    if options.quick:
        options.nodes, options.burst, options.minutes, options.every = 4, 12, 3.0, 5.0
    if not (options.hours or options.burst or options.actors):
        raise InputError("--hours, --burst or --actors: say what is measured, or --quick")
    if (options.hours or options.burst) and missing() is not None:
        return {"note": f"not measured: {missing()}"}
    result: dict[str, Any] = {"nodes": options.nodes, "sampler": options.sampler}
    if options.hours:
        result["paced"] = sweep(options, Pace(60 * options.epoch, options.nodes), options.hours, None)
    if options.burst:
        result["burst"] = sweep(options, Pace(0.0, 0), options.minutes / 60, options.burst)
    if options.actors:
        result["actors"] = sleeping_actors(options.actors)
    return result


@dataclass
class Pace:
    """When trials report."""

    epoch_s: float
    aged: int
    """So many trials, the first ones, are of any age."""
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    begun: int = 0

    def waits(self) -> list[float]:
        """Seconds before each of a trial's reports that are still to come."""
        self.begun += 1
        left = EPOCHS * (self.rng.random() if self.begun <= self.aged else 1.0)
        first = left - int(left)
        return [self.epoch_s * share for share in ([first] if first else []) + [1.0] * int(left)] or [0.0]


def sweep(options: argparse.Namespace, pace: Pace, hours: float, trials: int | None) -> dict[str, Any]:
    """One sweep beside a PostgreSQL and an MLflow server; what it came to, printed."""
    from benchmarks.services.mlflow import mlflow_server
    from benchmarks.services.postgres import postgres
    from benchmarks.sweeps.fake_actors import fake_actors
    from benchmarks.sweeps.footprint import counted

    with ExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="cpn-scale-")))
        database = resources.enter_context(postgres())
        study_url, records_url = database.database("studies"), database.database("records")
        server = resources.enter_context(mlflow_server(folder / "server", records_url))
        spec = specification(options, folder, study_url, server.url, hours, trials)
        begun = Begun(spec, study_url, folder, options.nodes)
        actors = resources.enter_context(fake_actors(partial(reports, begun.sweep, pace)))
        watch = Watch(begun.recorder, {"mlflow": server, "postgres": database}, options.every, begun.ended)
        before = {url: counted(url) for url in (study_url, records_url)}
        try:
            begun.sweep.cluster()  # Ray's own start is no matter here
            with watch:
                begun.search()
                watch.line("the search has ended")
                took = watch.elapsed
                begun.recorder.flush(max(60.0, 3600 * hours))
                watch.line("the records have followed")
        finally:
            begun.close()
        ended = begun.ended()
        (rows, size), (mlflow_rows, mlflow_size) = (
            tuple(now - then for now, then in zip(counted(url), before[url], strict=True))
            for url in (study_url, records_url)
        )
        result = {
            "trials": ended,
            "seconds": took,
            "trials_per_hour": 3600 * ended / took,
            "fakes_s": actors.own_s,
            "study_rows": rows,
            "study_mb": size / 1e6,
            "mlflow_rows": mlflow_rows,
            "mlflow_mb": mlflow_size / 1e6,
            "refused": begun.recorder.refused,
            **watch.result(took, actors.own_s),
        }
    print("\n".join(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}" for name, value in
                    result.items() if name != "lines"), flush=True)  # fmt: skip
    return result


def specification(
    options: argparse.Namespace, folder: Path, study_url: str, server_url: str, hours: float, trials: int | None
) -> "SweepSpec":
    """The search of patch.yaml with its services here; it ends after `hours`, or so many trials."""
    from platform.config.spec import load_spec

    sets = ["name=scale", f"search_options.sampler={options.sampler}", f"resources.storage={folder / 'sweeps'}"]
    sets += [f"budget.trials={trials or 100_000}", f"budget.wall_hours={hours}"]
    sets += [f"tracking.study={study_url}", f"tracking.uri={server_url}"]
    return load_spec(SPACE, sets)


class Begun:
    """A sweep as `platform.sweep` begins it, with a data set that is a name alone and a cluster that is numbers."""

    def __init__(self, spec: "SweepSpec", study_url: str, folder: Path, nodes: int) -> None:
        from platform.base.paths import storage
        from platform.base.terminal import Terminal
        from platform.cluster.interruption import Interruption
        from platform.plan import budget
        from platform.search import study
        from platform.sweeps.live_report import LiveReport
        from platform.tracking.recorder import Recorder
        from platform.tracking.records import Records

        from rich.console import Console

        from cpn.data.voc import VOC_CLASSES

        manifest = {"fingerprint": "scale", "classes": VOC_CLASSES, "lists": {}}
        pack = cast("Pack", _pack(str(folder), manifest))
        store = storage(spec.resources.storage)
        self.study: Study = study.open_study(spec, study_url, pack.fingerprint)
        self.recorder: Recorder = Recorder(store.sweep(spec.name).records, spec.tracking.uri, spec.name)
        records = Records(self.recorder, spec, pack.fingerprint, {"command": "scale"}, "/data/VOC2012")
        terminal = Terminal(Console(file=io.StringIO(), width=100))
        self.sweep: SweepContext = _context(nodes)(spec, pack, str(folder), store, terminal, records, Interruption())
        self.sweep.records.sweep_started()
        again = study.open_list(f"{spec.name}.confirm", study_url, self.study.identity())
        live = LiveReport(self.sweep, self.study, again, "scale", None, records.report_written)
        self.sweep.changed = live.write_if_due
        self.sweep.when_closed(live.close)
        self.limits = budget.Limits(spec.budget, self.study.ended, self.sweep.clock, 1.0, terminal.say)

    def search(self) -> None:
        """The trials, by the product's own loop."""
        from platform.run.trial_loop import run_open_trials

        spec = self.sweep.spec
        run_open_trials(self.sweep, self.study, "scale: search", spec.trial_limit, spec.pruning, self.limits)

    def ended(self) -> int:
        """Trials that have ended."""
        return sum(number for state, number in self.study.counts().items() if state.finished)

    def close(self) -> None:
        """Let go of everything."""
        self.sweep.close()
        self.recorder.close(5.0)
        self.study.close()


def _pack(root: str, manifest: dict[str, Any]) -> "Pack":
    from cpn.data.voc import Pack

    return Pack(root, root, manifest)


def _context(nodes: int) -> "type[SweepContext]":
    """A SweepContext whose cluster is a small Ray here, said to be so many machines of one GPU."""
    from platform.cluster.ray_driver import ray_cluster
    from platform.config.sections import Resources
    from platform.run.sweep_context import SweepContext

    class Numbers(SweepContext):
        def cluster(self) -> "list[Node]":
            if self._cluster is None:
                here = Resources(gpus_per_worker=0, cpus_per_worker=0.1)
                self._resources.enter_context(ray_cluster(here))
                self.clock.go()
                self._cluster = [{"CPU": 8.0, "GPU": 1.0}] * nodes
            return self._cluster

    return Numbers


def reports(sweep: "SweepContext", pace: Pace, config: Mapping[str, Any]) -> Iterator[tuple[float, dict[str, Any]]]:
    """What the workers of one trial would report, and when; at its end its run is there, in small."""
    from cpn.config import run_key, with_values

    number, waits = int(config["number"]), pace.waits()
    noise = np.random.default_rng([1, number])
    final = 50.0 + 5.0 * float(noise.random())
    minutes, first = round(RUN_HOURS * 60 / EPOCHS), EPOCHS - len(waits) + 1
    for epoch, wait in enumerate(waits, start=first):
        now = time.time() + wait
        entry = {**epoch_means(epoch, final), "time": now, "training_iteration": epoch, "done": False}
        entry["minutes"] = [{"time": now - MINUTE_S * back, **LOAD} for back in reversed(range(minutes))]
        yield wait, entry
    method = with_values(sweep.config, config["values"], "the trial's values")
    key = run_key(method, sweep.pack.fingerprint)
    leave_run(sweep.store.run(key), key, method.model_dump(mode="json"), sweep.pack.classes, final)
    yield 0.0, {
        "epoch": EPOCHS, "training_iteration": EPOCHS + 1, "done": False, "run_key": key, "seconds": 1.0, "miou": final,
        "miou_fixed_beta": final, "miou_confirm": final, "miou_train": final, "beta": 0.5,
    }  # fmt: skip


LOAD = {
    "system/gpu_0_utilization_percentage": 97.0,
    "system/gpu_0_memory_usage_megabytes": 20_000.0,
    "system/gpu_0_memory_usage_percentage": 83.0,
}


def epoch_means(epoch: int, final: float) -> dict[str, Any]:
    """What one epoch of a run on VOC reports."""
    from benchmarks.sweeps.footprint import TERMS

    return {
        "epoch": epoch, **{f"loss_{term}": 1.0 / epoch for term in TERMS}, "lr": 0.01, "images_per_s": 4.0,
        "miou_epoch": final - 10 * (1 - epoch / EPOCHS), "data_wait_share": 0.1, "peak_memory_mib": 9000.0,
        "system/cpu_utilization_percentage": 50.0, "system/system_memory_usage_percentage": 20.0,
        "system/worker_cpu_percentage": 100.0, "system/worker_memory_megabytes": 4000.0,
    }  # fmt: skip


def leave_run(folder: Path, key: str, config: dict[str, Any], classes: tuple[str, ...], final: float) -> None:
    """A finished run's folder, whole by its digests: its network and picture have a kilobyte each."""
    from PIL import Image

    from cpn.core.files import file_digest, write_bytes, write_json
    from cpn.core.run_files import MODEL, PICTURES, RESULT
    from cpn.scoring.metrics import BETAS
    from cpn.scoring.run_manifest import RunManifest

    picture = io.BytesIO()
    Image.new("RGB", (200, 100)).save(picture, "PNG")
    files = {MODEL: bytes(1000), f"{PICTURES}/cam.png": picture.getvalue()}
    for name, content in files.items():
        write_bytes(folder / name, content)
    values = {
        "key": key, "config": config, "fingerprint": "scale", "classes": list(classes), "seconds": 1.0,
        "history": [{**epoch_means(epoch, final), "time": time.time()} for epoch in range(1, EPOCHS + 1)],
        "metrics": {"miou": final, "miou_fixed_beta": final, "miou_confirm": final, "miou_train": final, "beta": 0.5},
        "iou": [final] * (len(classes) + 1), "curve": {"beta": list(BETAS), "miou": [final] * len(BETAS)},
        "digests": {name: file_digest(folder / name) for name in files},
    }  # fmt: skip
    write_json(folder / RESULT, RunManifest.model_validate(values).to_json())


class Watch:
    """CPU time and memory of the driver and the servers, and how far the records are behind, by the minute."""

    def __init__(
        self, recorder: "Recorder", servers: "Mapping[str, Service]", every_s: float, ended: Callable[[], int]
    ) -> None:
        self._recorder, self._servers, self._every, self._ended = recorder, servers, every_s, ended
        self._own, self._main = psutil.Process(), threading.get_native_id()
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._watch, daemon=True)
        self.lines: list[dict[str, float]] = []

    def __enter__(self) -> "Watch":
        self._began, self._spent = time.monotonic(), self.spent()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def elapsed(self) -> float:
        """Seconds since the block began."""
        return time.monotonic() - self._began

    def spent(self) -> dict[str, float]:
        """CPU seconds so far: the driver's main thread, that of its records, its others, each server."""
        by_thread = {thread.id: thread.user_time + thread.system_time for thread in self._own.threads()}
        named = {thread.native_id: thread.name for thread in threading.enumerate()}
        main = by_thread.get(self._main, 0.0)
        records = sum(used for number, used in by_thread.items() if named.get(number) == "records")
        seconds = {"driver": main, "records": records, "driver_rest": sum(by_thread.values()) - main - records}
        for name, service in self._servers.items():
            seconds[name] = sum(cpu_of(process) for process in service.processes())
        return seconds

    def line(self, words: str = "") -> dict[str, float]:
        """Look, keep and print."""
        pending, lag = behind(self._recorder)
        spent = {name: used - self._spent[name] for name, used in self.spent().items()}
        memory = self._own.memory_info().rss / MIB
        servers = {f"{name}_mib": memory_of(service) for name, service in self._servers.items()}
        state = {"seconds": self.elapsed, "pending": pending, "lag_s": lag, "mib": memory, **servers, **spent}
        self.lines.append(state)
        shares = ", ".join(f"{name} {used:.1f} s" for name, used in spent.items())
        print(f"{self.elapsed:6.0f} s: {memory:.0f} MiB; records behind: {pending} events, {lag:.1f} s; CPU {shares}"
              f"{'; ' + words if words else ''}", flush=True)  # fmt: skip
        return state

    def result(self, took: float, fakes_s: float) -> dict[str, Any]:
        """Shares of a core until the search ended, the most that the records were behind, memory over time."""
        during = [line for line in self.lines if line["seconds"] <= took + 1]
        last = during[-1]
        shares = {f"{name}_core": last[name] / last["seconds"] for name in self._spent}
        shares["driver_core"] -= fakes_s / last["seconds"]
        tenth = during[max(0, len(during) // 10)]
        return {
            **shares,
            "most_behind": max(line["pending"] for line in self.lines),
            "most_behind_s": max(line["lag_s"] for line in self.lines),
            "followed_after_s": self.lines[-1]["seconds"] - took,
            "mib_after_a_tenth": tenth["mib"],
            "mib_end": last["mib"],
            **{f"{name}_mib": last[f"{name}_mib"] for name in self._servers},
            "lines": self.lines,
        }

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self.line()


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process and of its children that have ended."""
    try:
        used = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(used.user + used.system + used.children_user + used.children_system)


def memory_of(service: "Service") -> float:
    """MiB that the processes of a server hold, what they share counted once for each."""
    held = 0.0
    for process in service.processes():
        try:
            held += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return held / MIB


def behind(recorder: "Recorder") -> tuple[int, float]:
    """Events that the store has not got, and for how many seconds the oldest of them has waited."""
    spool = recorder._spool
    if not spool.pending:
        return 0, 0.0
    event = next((event for event, _ in spool.read(spool.offset)), None)
    written = int(str(event["id"])[:-4], 16) / 1e9 if event else time.time()
    return spool.pending, max(0.0, time.time() - written)


def sleeping_actors(number: int) -> dict[str, Any]:
    """Real actors that do nothing, as many as there is memory for, started one after the other: seconds and memory."""
    from platform.cluster.ray_driver import ray_cluster
    from platform.config.sections import Resources

    with ray_cluster(Resources(gpus_per_worker=0, cpus_per_worker=0.1)):
        import ray

        @ray.remote(num_cpus=0)
        class Sleeper:
            def answer(self) -> int:
                return os.getpid()

        actors, took, used = [], [], psutil.virtual_memory().available
        spent = gcs_seconds()
        for at in range(number):
            began = time.monotonic()
            actors.append(Sleeper.remote())
            ray.get(actors[-1].answer.remote())
            took.append(time.monotonic() - began)
            if psutil.virtual_memory().available < 2 * 2**30:
                print(f"{at + 1} actors: the memory is used up", flush=True)
                break
        tenth = max(1, len(took) // 10)
        result = {
            "actors": len(actors),
            "first_tenth_s": sum(took[:tenth]) / tenth,
            "last_tenth_s": sum(took[-tenth:]) / tenth,
            "mib_each": (used - psutil.virtual_memory().available) / MIB / len(actors),
            "gcs_ms_each": 1000 * (gcs_seconds() - spent) / len(actors),
        }
    print(result, flush=True)
    return result


def gcs_seconds() -> float:
    """CPU seconds of Ray's control plane on this machine, of processes that this one started."""
    seconds = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # ended meanwhile
            seconds += cpu_of(process) if process.name() == "gcs_server" else 0.0
    return seconds
