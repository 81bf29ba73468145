"""Drives Ray Tune over a study: joins or starts Ray, runs trials until the study has none left, stops cleanly."""

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from cpn.core.errors import InputError, WorkError

from ..base.paths import storage
from ..config.own_code import import_folders, looked_at
from ..config.sections import Pruning, Resources
from ..search.study import Study, TrialRow
from .capacity import Node, check_resources
from .interruption import SIGNALS, Interruption, put_back, sigterm_ignored
from .local_ray import check_ray_folder, start_ray
from .placement_groups import free_at_the_end, free_placement_groups
from .ray_environment import LOCAL_ENVIRONMENT, in_environment, runtime_environment, worker_environment
from .raylet_watch import watched
from .worker import TrialSetup, trial


class Listener(Protocol):
    """Hears what happens to trials, in the driver."""

    def started(self, uid: str) -> None:
        """Hear that a trial began, or goes on after a restart."""

    def reported(self, uid: str, result: Mapping[str, Any]) -> None:
        """Hear an epoch's report, or the last one with the metrics."""

    def ended(self, uid: str) -> None:
        """Hear that the study has been told how the trial ended, or keeps it as resumable."""

    def pruning_off(self, line: str) -> None:
        """Pruning has switched itself off, in words; said again after a restart."""


@contextmanager
def ray_cluster(
    resources: Resources, lose: Callable[[str], None] | None = None, backbones: Sequence[str] = ()
) -> Iterator[list[Node]]:
    """Connect to the cluster that RAY_ADDRESS names, or start one on this machine; gives its nodes' resources.

    `lose` is told from a thread, with the reason, when the Ray node of this machine dies meanwhile. The user's own
    `backbones` can be imported there. Raises InputError when the cluster does not answer, or lacks what one trial
    needs.
    """
    address = os.environ.get("RAY_ADDRESS")
    environment = {**worker_environment(import_folders(backbones)), **looked_at(backbones)}
    # What Ray starts on this machine inherits this; as a runtime_env it would keep Ray from the processes that it has
    # started in advance, a second or more for each of a trial's eight.
    ours = environment if address else {**environment, **LOCAL_ENVIRONMENT}
    with in_environment(ours):
        import ray

        where = f"RAY_ADDRESS: {address} does not answer" if address else "Ray does not start on this machine"
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            try:
                if address:
                    with tempfile.TemporaryDirectory(prefix="cpn-code-") as folder:
                        runtime = runtime_environment(environment, resources.ship_code, backbones, Path(folder))
                        ray.init(address=address, runtime_env=runtime, log_to_driver=False, logging_level=logging.ERROR)
                else:
                    check_ray_folder()
                    start_ray()
                put_back(handlers)  # Ray sets its own for SIGTERM: it ends the process on the spot
            except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
                raise InputError(f"{where} ({' '.join(str(error).split())[:200]}); {start_cure(address)}") from error
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            check_resources(resources, nodes)
            if address:
                free_placement_groups()
            with (
                nullcontext(threading.Event())
                if lose is None
                else watched(partial(lose, cluster_gone_message(address))) as lost
            ):
                try:
                    yield nodes
                finally:
                    if address and not lost.is_set():
                        free_at_the_end()
        finally:
            with sigterm_ignored():
                ray.shutdown()  # also when a signal came while Ray was starting
            put_back(handlers)


BUSY = 4
"""Waiting processes a core from which on a Ray that does not start is put down to the machine's load."""


def start_cure(address: str | None) -> str:
    """Return what to do about a Ray that does not start; its processes are given up after 30 s, also where others hold
    the cores.
    """
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if address is None and load > BUSY * cores:
        return f"other programs keep the cores busy (load {load:.0f} on {cores}); give the same command again later"
    return "check the address or free its ports"


def cluster_gone_message(address: str | None) -> str:
    """Return what is said when the cluster that was joined, or started here, does not run any more."""
    if address:
        return f"RAY_ADDRESS: this machine's Ray node at {address} has died; start Ray again, then run the same command"
    return "Ray's processes on this machine have died (for want of memory?); the same command continues"


def run_trials(
    study: Study,
    setup: TrialSetup,
    *,
    limit: int | None,
    concurrent: int,
    pruning: Pruning,
    search_seed: int,
    epochs: int,
    listener: Listener,
    interruption: Interruption,
    over: Callable[[], bool],
    reuse: Callable[[TrialRow], dict[str, Any] | None],
    claim: Callable[[TrialRow], bool],
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Run the study's unfinished trials and then new ones until it has none left, or something says stop.

    `over` is asked before each new trial and while trials run, and ends them where they are; `enough` is asked before
    one is drawn, and lets those that run come to their end.
    A trial for which `reuse` has a result is told at once and never started; one that `claim` refuses waits.
    """
    from ray import tune

    from .tune_searcher import StopWhen, StudyPruner, StudySearcher, TrialEvents

    def reused(row: TrialRow) -> dict[str, Any] | None:
        result = reuse(row)
        if result is not None:
            listener.started(row.uid)
        return result

    logging.getLogger("ray").setLevel(logging.ERROR)
    # Tune prints a traceback for each attempt at a trial that died; the reason is kept with the trial if it has failed.
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    # And one when a file of its own snapshot vanishes while it is copied. Nobody reads that copy: the study counts.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    while True:
        searcher = StudySearcher(study, limit, over, reused, listener.ended, claim, enough)
        interruption.listeners.append(partial(setattr, searcher, "interrupted", True))
        scheduler = StudyPruner(study, searcher, pruning, search_seed, epochs, listener.pruning_off)
        tuner = tune.Tuner(
            # Tune wants a trial to hold something. A share of a CPU, however small, would keep the workers from filling
            # the last one; a byte of memory keeps nobody from anything.
            tune.with_resources(tune.with_parameters(trial, setup=setup, report=tune.report), {"memory": 1}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=concurrent,
                reuse_actors=False,
                trial_name_creator=lambda tune_trial: str(tune_trial.config["uid"]),
                trial_dirname_creator=lambda tune_trial: str(tune_trial.config["uid"]),
            ),
            run_config=tune.RunConfig(
                name=study.name,
                storage_path=str(storage(setup.storage).train(setup.sweep)),
                callbacks=[TrialEvents(listener.started, listener.reported, listener.ended)],
                stop=StopWhen(ends_now(searcher, interruption, over)),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=1),
            ),
        )
        try:
            try:
                tuner.fit()
            except tune.TuneError as error:
                raise cause(error) from None
        except OSError as error:  # of Tune's own snapshot, which names no file
            error.filename = error.filename or str(storage(setup.storage).train(setup.sweep))
            raise
        if searcher.halted:
            raise WorkError(f"{study.name}: {searcher.halted}; mend the disk and go on with the same command")
        if not searcher.left:
            return


def cause(error: BaseException) -> BaseException:
    """Return what a callback of ours raised in words, as when the study is down: Tune makes the text of a traceback of
    it.
    """
    from ray.tune import TuneError

    inner: BaseException | None = error
    while isinstance(inner, TuneError):
        inner = inner.__context__
    return inner if isinstance(inner, (InputError, WorkError, OSError)) else error


class Interruptible(Protocol):
    """What has to know that trials end without a result because of us."""

    interrupted: bool


def ends_now(searcher: Interruptible, interruption: object, over: Callable[[], bool]) -> Callable[[], bool]:
    """Return whether all running trials end: on a signal, or when the budget is used up. They stay resumable in the
    study.
    """

    def asked() -> bool:
        if not searcher.interrupted and over():
            searcher.interrupted = True  # before Tune stops anything, or the study is told that trials failed
        return bool(interruption) or searcher.interrupted

    return asked
