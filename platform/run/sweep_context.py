"""What all phases of one sweep share: specification, data, storage, records, cluster."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from cpn.config import Config, run_key, with_values
from cpn.core.run_files import CHECKPOINTS
from cpn.data.voc import Pack
from cpn.plots.epoch_pictures import drawn_names
from cpn.plots.run_pictures import whole_run
from cpn.scoring.run_manifest import RunManifest

from ..base import bucket_sync
from ..base.claims import Claims
from ..base.paths import Storage, SweepPaths
from ..base.remaining_time import RunPrice
from ..base.terminal import Terminal
from ..cluster.capacity import Node
from ..cluster.inputs import prepare_weights
from ..cluster.interruption import Interruption
from ..cluster.ray_driver import ray_cluster
from ..cluster.worker import TrialSetup
from ..config.own_code import named_contents, own_backbones, trains_own_code
from ..config.space.beta_range import searched_range
from ..config.sweep_spec import SweepSpec
from ..plan import budget
from ..plan.priced_work import priced_work, run_price
from ..search.study import State, TrialRow
from ..tracking.records import Records

NEWEST = 20
"""Runs of earlier starts that the pace is taken from."""


class SweepContext:
    """What the steps of one sweep share."""

    def __init__(
        self,
        spec: SweepSpec,
        pack: Pack,
        root: str,
        store: Storage,
        terminal: Terminal,
        records: Records,
        interruption: Interruption,
    ) -> None:
        self.spec, self.pack, self.root, self.store = spec, pack, root, store
        self.terminal, self.records, self.interruption = terminal, records, interruption
        self.config: Config = spec.base_config
        self.paths: SweepPaths = store.sweep(spec.name)
        self.claims = Claims(store)
        self.clock = budget.Clock(self.paths.clock, terminal.warn)
        self.works: Callable[[], None] = lambda: None
        """Told when there is something to do: a sweep that was finished is not any more."""
        self.changed: Callable[[bool], None] = lambda news: None
        """Told True when a trial has begun or ended, False after an epoch."""
        self.contents = named_contents(spec)
        """Of weights files and own code, as the sweep began with them."""
        self._resources = ExitStack()
        self._cluster: list[Node] | None = None
        self._said: set[str] = set()
        self._priced = False
        self._earlier: list[TrialRow] = []

    def cluster(self) -> list[Node]:
        """Resources of Ray's nodes; Ray is started, pretrained weights are made, when something first needs them."""
        if self._cluster is None:
            self.works()
            self.clock.go()
            prepare_weights(self.config, self.store, self.terminal.say)
            self.terminal.say("starting Ray")
            self._cluster = self._resources.enter_context(
                ray_cluster(self.spec.resources, self.interruption.lose, own_backbones(self.spec))
            )
        return self._cluster

    def price_what_is_left(self, at_once: int) -> None:
        """Give the terminal the price of the sweep's runs and stages, `at_once` at a time, to tell the remaining time
        from; said again, that of the first time goes on.
        """
        if not self._priced:
            self._priced = True
            self.terminal.remaining = priced_work(self.spec, at_once)
            self.terminal.remaining.pace = self.earlier_pace()
        gpus = self.spec.resources.workers * self.spec.resources.gpus_per_worker
        hours = budget.hours_left(self.spec.budget, self.clock, gpus, at_once)
        self.terminal.remaining.most = None if hours is None else 3600 * hours

    def remember_pace(self, rows: Sequence[TrialRow]) -> None:
        """Keep the newest runs of earlier starts, which say how long runs take here; without any, the price says it."""
        hours = self.clock.trial_hours
        self._earlier = [row for row in rows if row.state is State.COMPLETE and hours.get(row.uid)][-NEWEST:]

    def earlier_pace(self) -> float:
        """Return the seconds that a priced second of a run took in earlier starts; the price takes torch."""
        if not self._earlier or trains_own_code(self.spec):  # which has no price
            return 1.0
        priced = sum(run_price(self.spec, self.method(row)).seconds for row in self._earlier)
        return 3600 * sum(self.clock.trial_hours[row.uid] for row in self._earlier) / priced

    def run_price(self, config: Config) -> RunPrice | None:
        """Return what a run of this configuration is priced at; None where that is not known."""
        return run_price(self.spec, config) if self.terminal.remaining.known else None

    def save_clock(self) -> None:
        """Keep the hours that have passed, and how far the sweep is, for `platform.status`."""
        self.clock.save(self.terminal.remaining.snapshot())

    def when_closed(self, action: Callable[[], None]) -> None:
        """Have something done at the end, however it comes."""
        self._resources.callback(action)

    def close(self) -> None:
        """Leave the cluster, or stop the one that was started here."""
        self._resources.close()
        self.claims.close()

    def method(self, row: TrialRow) -> Config:
        """Return the whole configuration of a trial."""
        return with_values(self.config, row.values, f"trial {row.uid}")

    def key(self, row: TrialRow) -> str:
        """Return the run key of a trial; of one that has ended the key that it ended with."""
        return str(row.run_key or run_key(self.method(row), self.pack.fingerprint))

    def folder(self, row: TrialRow) -> Path:
        """Return where a trial's run lies."""
        return self.store.run(self.key(row))

    def drawn_after_epochs(self) -> list[str]:
        """Return the names of the pictures that runs of this sweep draw after each epoch; none where it is not asked
        for.
        """
        return (
            drawn_names(self.pack.split(self.config.data.score), self.config.cam) if self.spec.tracking.images else []
        )

    def epoch_pictures(self, run: Path, epoch: int) -> list[Path]:
        """Return the pictures that a run has drawn after an epoch."""
        if not self.spec.tracking.images:
            return []
        return bucket_sync.download_epoch(self.store, run, epoch, self.warn_once)

    def finished(self, row: TrialRow) -> RunManifest | None:
        """Return the manifest of a trial's finished run, fetched where it is kept elsewhere; None while there
        is none.
        """
        bucket_sync.download_run(self.store, self.folder(row), self.warn_once)
        return whole_run(self.folder(row), self.pack, self.warn_once)

    def warn_once(self, line: str) -> None:
        """Warn, unless the same was said before."""
        if line not in self._said:
            self._said.add(line)
            self.terminal.warn(line)

    def let_go(self, row: TrialRow) -> None:
        """Delete the checkpoints of a trial that nothing resumes; what comes a moment later goes at the end."""
        try:
            bucket_sync.drop(self.store, self.folder(row), CHECKPOINTS)
        except OSError as error:
            self.terminal.warn(f"{row.uid}: its checkpoints could not be deleted ({error})")

    def setup(self, threads: int) -> TrialSetup:
        """Return what the workers need."""
        resources = self.spec.resources
        return TrialSetup(
            base=self.config.model_dump(mode="json"),
            data_root=self.root,
            storage=self.store.place,
            sweep=self.spec.name,
            workers=resources.workers,
            min_workers=resources.min_workers,
            accelerator=resources.accelerator,
            gpus_per_worker=resources.gpus_per_worker,
            cpus_per_worker=resources.cpus_per_worker,
            threads=threads,
            objective=self.spec.objective,
            betas=searched_range(self.spec.search),
            images=self.spec.tracking.images,
            contents=self.contents,
        )
