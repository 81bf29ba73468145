"""The sections of a sweep's specification, frozen: what may stand in each, its default, and what it is for."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from cpn.config.section import MOST_PROCESSES, MOST_SEEDS, MOST_TRIALS, Section

SEEDS = 3
"""Fresh seeds where nothing else is said: fewer of a configuration say nothing about its spread."""
CONFIRM_STUDY = ".confirm"
"""Behind a sweep's name: the study of its confirm runs."""


Named = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""A name, which may be a number: `--set name=$SLURM_JOB_ID`; quotes do not survive a shell."""


class SweepSection(Section):
    model_config = ConfigDict(strict=True)


class SearchOptions(SweepSection):
    """How the search draws."""

    sampler: Literal["gp", "tpe", "random", "qmc", "grid"] = "gp"
    """gp and tpe learn from what has finished; qmc, random and grid do not. docs/search.md compares them."""
    seed: int = Field(default=0, ge=0)
    """Seed of the search; each trial is seeded from it and from its number."""
    history: int | None = Field(default=500, ge=50, le=MOST_TRIALS)
    """Finished trials that gp and tpe look at: the best tenth and the newest; null: all. gp looks at 300 at most."""
    warm_start: Annotated[tuple[Named, ...], Field(strict=False)] = ()
    """Sweeps of the same study database that gp and tpe learn from as well: same data and base, and trials that
    this search could have drawn. Their best configuration runs again as the first trial after the reference.
    """

    @field_validator("sampler", mode="before")
    @classmethod
    def _still_there(cls, value: Any) -> Any:
        if value == "cmaes":
            raise ValueError(
                "there is no CMA-ES any more; write gp, also in the sweep.yaml of a sweep that ran with it"
            )
        return value

    @field_validator("warm_start", mode="before")
    @classmethod
    def _sweeps(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or not all(name and type(name) in (str, int) for name in value):
            raise ValueError("write a list of the sweeps' names, [] for none")
        for name in map(str, value):
            if name.endswith(CONFIRM_STUDY):
                raise ValueError(f"{name} holds the confirm runs of a sweep; write {name.removesuffix(CONFIRM_STUDY)}")
        if len(set(value)) < len(value):
            raise ValueError("a sweep stands there twice; keep one of them")
        return value


class Budget(SweepSection):
    """When the search ends: whichever limit comes first, null is none. But for `trials` and `min_gain_per_gpu_hour`,
    running trials end at their next report, and go on if the limit is raised. Confirm runs and stages follow all the
    same.
    """

    trials: int | None = Field(default=None, ge=1, le=MOST_TRIALS)
    """Trials, the reference, pruned and failed ones among them."""
    wall_hours: float | None = Field(default=None, gt=0)
    """Wall-clock hours, over all starts of the sweep."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """Hours times GPUs held by trials, over all starts of the sweep."""
    target_miou: float | None = Field(default=None, gt=0, le=100)
    """Stop once a trial's miou (percent) reaches this."""
    plateau_trials: int | None = Field(default=None, ge=1, le=MOST_TRIALS)
    """Stop after this many finished trials in a row without a new best."""
    min_gain_per_gpu_hour: float | None = Field(default=None, gt=0)
    """Draw no trial any more once the next ones are expected to gain fewer mIoU points per GPU-hour than this (on the
    CPU: per hour of a trial); running ones come to their end. Only the sampler gp expects anything: docs/search.md.
    """
    failures: int = Field(default=5, ge=1, le=MOST_TRIALS)
    """Stop after this many failed trials."""
    price_per_gpu_hour: float | None = Field(default=None, gt=0)
    """Price of a GPU-hour in your currency, to have the plan and the account in money; null: no money."""

    @field_validator("target_miou")
    @classmethod
    def _percent(cls, value: float | None) -> float | None:
        if value is not None and value <= 1:
            raise ValueError(f"this is in percent; write {100 * value:g} if you mean {value:g} of 1")
        return value


class Resources(SweepSection):
    """What a trial runs on, and where the sweep keeps its files."""

    workers: int = Field(default=1, ge=1, le=MOST_PROCESSES)
    """Ray Train workers per trial."""
    min_workers: int | None = Field(default=None, ge=1, le=MOST_PROCESSES)
    """Fewer workers are enough when machines go, and more join when they come back (Ray Train's elastic training);
    null: exactly `workers`. Every number between has to divide train.batch_size.
    """
    gpus_per_worker: float = Field(default=1.0, ge=0)
    """Share of a GPU per worker, for several small trials on a card; 0 trains on the CPU."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    """CPU cores per worker."""
    accelerator: Named | None = None
    """Cards that trials train on, where there are unlike ones, by Ray's name for them, such as A100; null: any."""
    concurrent: int | Literal["auto"] = "auto"
    """Trials at a time, or auto: as many as fit."""
    autoscaled: bool = False
    """The cluster brings machines when trials wait for them: what is there at the start says nothing, and `concurrent`
    has to be a number.
    """
    ship_code: bool = False
    """Send this code to the machines of the cluster with the sweep, in the place of what they have installed; the
    packages that it needs have to be there.
    """
    storage: Named = Field(default="sweeps", min_length=1)
    """Folder (on a cluster: shared) for runs, stages and, unless `tracking.study` says otherwise, the study; or
    s3://BUCKET/PREFIX, which needs `tracking.study`.
    """

    keep_top: int | None = Field(default=20, ge=0, le=MOST_TRIALS)
    """Networks of the search that stay in the storage at the sweep's end: the best so many; always those of the
    reference, of what was confirmed or promoted, of MLflow's champion, and of what another sweep needs. MLflow keeps
    its own copies. null: all.
    """

    @field_validator("storage")
    @classmethod
    def _folder_or_bucket(cls, value: str) -> str:
        if ("://" in value or re.match(r"[A-Za-z]\w+:", value)) and not value.startswith("s3://"):  # s3:/BUCKET, file:X
            raise ValueError("write a folder, or s3://BUCKET/PREFIX (other object stores have an S3 endpoint, too)")
        if not value.isprintable():
            raise ValueError(
                "the name of this folder holds a line break or another sign that cannot be seen; correct it"
            )
        return value

    @field_validator("concurrent", mode="before")
    @classmethod
    def _some(cls, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value != "auto" and (not whole or value < 1):
            raise ValueError("write a whole number of at least 1, or auto")
        if value != "auto" and value > MOST_PROCESSES:
            raise ValueError(f"write a whole number of at most {MOST_PROCESSES}, or auto")
        return value

    @field_validator("gpus_per_worker")
    @classmethod
    def _one_card(cls, value: float) -> float:
        if value > 1:
            raise ValueError(f"a worker trains on one card; write workers: {math.ceil(value)}, gpus_per_worker: 1")
        return value

    @model_validator(mode="after")
    def _go_together(self) -> "Resources":
        if self.autoscaled and self.concurrent == "auto":
            raise ValueError("autoscaled: give concurrent, the trials at a time that the cluster may grow to")
        if self.accelerator is not None and not self.gpus_per_worker:
            raise ValueError("accelerator: trials train on the CPU; drop it, or raise gpus_per_worker")
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers: {self.min_workers} is more than workers, {self.workers}; lower it")
        return self


class Pruning(SweepSection):
    """Which trials are stopped early."""

    kind: Literal["asha", "none"] = "asha"
    """asha: at each rung the better part runs on; none: every trial runs to its end."""
    grace: float = Field(default=0.5, ge=0.5, lt=1)
    """First rung as a share of the schedule; before half of it the learning rate is too high for a verdict."""
    audit: float = Field(default=0.1, ge=0, le=1)
    """Share of the would-be-pruned trials that run on all the same, to see what pruning costs; 0: no check."""
    min_audited: int = Field(default=4, ge=0, le=MOST_TRIALS)
    """The first so many would-be-pruned trials all run on: pruning has to prove itself before it stops anybody."""
    min_rank_correlation: float | None = Field(default=0.3, ge=-1, le=1)
    """Pruning switches itself off when Spearman's correlation between the values at the rung and at the end is lower,
    measured once `min_audited` audited trials have finished; null: never.
    """
    reduction: float = Field(default=2.0, gt=1)
    """One in `reduction` of the trials at a rung runs on; the next rung is that many times later, if still before the
    end.
    """


class Confirm(SweepSection):
    """Running the best again: a race (platform/search/race.py), or with `seeds` a fixed number of runs each."""

    top_k: int = Field(default=5, ge=0, le=MOST_SEEDS)
    """Best trials that run again beside the reference; 0 confirms nothing."""
    runs: int | None = Field(default=None, ge=5, le=MOST_SEEDS)
    """Most runs of the race with fresh seeds, cam_baseline's 3 left out; null: 3 for the reference and for each of up
    to three candidates, 12.
    """
    seeds: int | None = Field(default=None, ge=1, le=MOST_SEEDS)
    """No race: fresh seeds for each, cam_baseline too; fewer than 3 give no verdict. null: a race."""
    reference_seeds: int | None = Field(default=None, ge=1, le=MOST_SEEDS)
    """No race: fresh seeds for the reference, which every other one is compared with; null: as many as `seeds`. About
    sqrt(`top_k`) times `seeds` narrows the interval the most for its cost.
    """

    @property
    def raced(self) -> bool:
        """Whether results decide what runs next."""
        return self.seeds is None and self.reference_seeds is None

    @property
    def seeds_each(self) -> int:
        """How often a candidate runs again where nothing is raced, and cam_baseline."""
        return self.seeds or SEEDS

    @property
    def seeds_of_reference(self) -> int:
        """How often the reference runs again where nothing is raced."""
        return self.reference_seeds or self.seeds_each

    def race_runs(self, compared: int) -> int:
        """Most runs of a race of so many candidates."""
        return self.runs or SEEDS * (1 + min(compared, 3))


class Promote(SweepSection):
    """What is promoted to the later stages."""

    when: Literal["always", "better"] = "always"
    """always: the best-supported run; better: only one that is shown to beat the reference."""


class Tracking(SweepSection):
    """Where the records go."""

    uri: str | None = None
    """MLflow tracking URI; null is the environment's MLFLOW_TRACKING_URI, or sqlite in the working folder."""
    study: str | None = None
    """URL of the Optuna database; null is the environment's CPN_STUDY_URL, or sqlite in `resources.storage`."""
    images: bool = True
    """Whether MLflow gets the CAM over a few selection images after each epoch: over steps, and across trials."""


class Notify(SweepSection):
    """Who hears of the end."""

    command: str | None = None
    """Command that is run when the sweep ends, fails or is stopped: how, and the summary, on its standard input. It is
    run without a shell; where one is wanted: sh -c '...'.
    """
