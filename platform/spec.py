"""The sweep's specification: one YAML file and `--set` values, read strictly into frozen sections.

spec = load_spec(Path("search_spaces/patch.yaml"), ["data.root=/data/VOC2012", "budget.trials=40"])
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from cpn.config import (
    Config,
    brief,
    config_from,
    known_names,
    merge,
    nearest,
    preset_names,
    to_dotted,
    with_values,
)
from cpn.errors import InputError
from cpn.presets import PRESETS
from cpn.section import Section

from . import grid
from .domains import Domain, drawn, values_of_base, with_curve
from .files import load_yaml, opening_question, parse_scalar
from .paths import SHARED
from .spec_checks import check_search, value_names
from .table_spec import Table, check_table, shown_rows
from .tracking_uri import mask

CONFIRM_STUDY = ".confirm"
"""Behind a sweep's name: the study of its confirm runs."""


class _SweepSection(Section):
    model_config = ConfigDict(strict=True)


class SearchOptions(_SweepSection):
    """How the search draws."""

    sampler: Literal["tpe", "random", "qmc", "cmaes", "gp", "grid"] = "tpe"
    """tpe, gp and cmaes learn from what has finished; qmc, random and grid do not. docs/search.md compares them."""
    seed: int = Field(default=0, ge=0)
    """Seed of the search; each trial is seeded from it and from its number."""
    history: int | None = Field(default=500, ge=50)
    """Finished trials that tpe and gp look at: the best tenth and the newest; null: all, and slower with each."""
    warm_start: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Sweeps of the same study database that tpe, gp and cmaes learn from as well: same data and base, and trials that
    this search could have drawn. Their best configuration runs again as the first trial after the reference.
    """

    @field_validator("warm_start", mode="before")
    @classmethod
    def _sweeps(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) and name for name in value):
            raise ValueError("write a list of the sweeps' names, [] for none")
        for name in value:
            if name.endswith(CONFIRM_STUDY):
                raise ValueError(f"{name} holds the confirm runs of a sweep; write {name.removesuffix(CONFIRM_STUDY)}")
        if len(set(value)) < len(value):
            raise ValueError("a sweep stands there twice; keep one of them")
        return value


class Budget(_SweepSection):
    """When the search ends: whichever limit comes first, null is none. But for `trials`, running trials end at their
    next report, and go on if the limit is raised. Confirm runs and stages follow all the same.
    """

    trials: int | None = Field(default=None, ge=1)
    """Trials, the reference, pruned and failed ones among them."""
    wall_hours: float | None = Field(default=None, gt=0)
    """Hours by the clock, over all starts of the sweep."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """Hours times GPUs held by trials, over all starts of the sweep."""
    target_miou: float | None = Field(default=None, gt=0, le=100)
    """Stop once a trial's miou (percent) reaches this."""
    plateau_trials: int | None = Field(default=None, ge=1)
    """Stop after this many finished trials in a row without a new best."""
    failures: int = Field(default=5, ge=1)
    """Stop after this many failed trials."""
    price_per_gpu_hour: float | None = Field(default=None, gt=0)
    """Price of a GPU-hour in your currency, to have the plan and the account in money; null: no money."""

    @field_validator("target_miou")
    @classmethod
    def _percent(cls, value: float | None) -> float | None:
        if value is not None and value <= 1:
            raise ValueError(f"this is in percent; write {100 * value:g} if you mean {value:g} of 1")
        return value


class Resources(_SweepSection):
    """What a trial runs on, and where the sweep keeps its files."""

    workers: int = Field(default=1, ge=1)
    """Ray Train workers per trial."""
    min_workers: int | None = Field(default=None, ge=1)
    """Fewer workers are enough when machines go, and more join when they come back (Ray Train's elastic training);
    null: exactly `workers`. Every number between has to divide train.batch_size.
    """
    gpus_per_worker: float = Field(default=1.0, ge=0)
    """Share of a GPU per worker, for several small trials on a card; 0 trains on the CPU."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    """CPU cores per worker."""
    accelerator: str | None = None
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
    storage: str = Field(default="sweeps", min_length=1)
    """Folder (on a cluster: shared) for runs, stages and, unless `tracking.study` says otherwise, the study; or
    s3://BUCKET/PREFIX, which needs `tracking.study`.
    """

    keep_top: int | None = Field(default=20, ge=0)
    """Networks of the search that stay in the storage at the sweep's end: the best so many; always those of the
    reference, of what was confirmed or promoted, of MLflow's champion, and of what another sweep needs. MLflow keeps
    its own copies. null: all.
    """

    @field_validator("storage")
    @classmethod
    def _folder_or_bucket(cls, value: str) -> str:
        if "://" in value and not value.startswith("s3://"):
            raise ValueError("write a folder, or s3://BUCKET/PREFIX (other object stores have an S3 endpoint, too)")
        return value

    @field_validator("concurrent", mode="before")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError("write a whole number of at least 1, or auto")
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


class Pruning(_SweepSection):
    """Which trials are stopped early."""

    kind: Literal["asha", "none"] = "asha"
    """asha: at each rung the better part runs on; none: every trial runs to its end."""
    grace: float = Field(default=0.5, ge=0.5, lt=1)
    """First rung as a share of the schedule; before half of it the learning rate is too high for a verdict."""
    audit: float = Field(default=0.1, ge=0, le=1)
    """Share of the would-be-pruned trials that run on all the same, to see what pruning costs; 0: no check."""
    min_audited: int = Field(default=4, ge=0)
    """The first so many would-be-pruned trials all run on: pruning has to prove itself before it stops anybody."""
    min_rank_correlation: float | None = Field(default=0.3, ge=-1, le=1)
    """Pruning switches itself off when Spearman's correlation between the values at the rung and at the end is lower,
    measured once `min_audited` audited trials have finished; null: never.
    """
    reduction: float = Field(default=2.0, gt=1)
    """One in `reduction` of the trials at a rung runs on; the next rung is that many times later, if still before the
    end.
    """


class Confirm(_SweepSection):
    """Running the best again."""

    top_k: int = Field(default=3, ge=0)
    """Best trials that run again beside the reference; 0 confirms nothing."""
    seeds: int = Field(default=3, ge=1)
    """Fresh seeds for each of them, and for cam_baseline; fewer than 3 give no verdict."""
    reference_seeds: int | None = Field(default=None, ge=1)
    """Fresh seeds for the reference, which every other one is compared with; null: as many as `seeds`. About
    sqrt(`top_k`) times `seeds` narrows the interval the most for its cost.
    """

    @property
    def seeds_of_reference(self) -> int:
        """How often the reference runs again."""
        return self.reference_seeds or self.seeds


class Promote(_SweepSection):
    """What moves on to the later stages."""

    when: Literal["always", "better"] = "always"
    """always: the best-supported run; better: only one that is shown to beat the reference."""


class Tracking(_SweepSection):
    """Where the records go."""

    uri: str | None = None
    """MLflow tracking URI; null is sqlite in the working folder."""
    study: str | None = None
    """URL of the Optuna database; null is the environment's CPN_STUDY_URL, or sqlite in `resources.storage`."""


class Notify(_SweepSection):
    """Who hears of the end."""

    command: str | None = None
    """Command that is run when the sweep ends, fails or is stopped: how, and the summary, on its standard input. It is
    run without a shell; where one is wanted: sh -c '...'.
    """


class SweepSpec(_SweepSection):
    """Everything about one sweep."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of sweep, study and experiment: letters, digits, dot, dash, underscore; it names files."""
    question: str | None = None
    """What the sweep asks, for its records and report; null: what the file's opening comment says."""
    base: dict[str, Any] = {}
    """The method's configuration: `preset` and the sections of cpn.config; the reference runs exactly this."""
    search: dict[str, Domain] = {}
    """Dotted names of the method and their domains, in drawing order. Empty: only the reference runs."""
    table: Table | None = None
    """Named configurations put side by side, as the tables of the paper do: nothing is searched then."""
    objective: Literal["miou", "mask_free"] = "miou"
    """What trials are ranked, pruned, confirmed and promoted by: miou, of the masks of `data.score`; or mask_free, of
    image-level labels alone, for a data set without masks: see cpn/mask_free.py.
    """
    search_options: SearchOptions = SearchOptions()
    budget: Budget = Budget()
    resources: Resources = Resources()
    pruning: Pruning = Pruning()
    confirm: Confirm = Confirm()
    promote: Promote = Promote()
    tracking: Tracking = Tracking()
    notify: Notify = Notify()

    _source: str = PrivateAttr(default="spec")

    @field_validator("search")
    @classmethod
    def _read_off(cls, value: dict[str, Any]) -> dict[str, Any]:
        return with_curve(value)

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value in SHARED or value.endswith(CONFIRM_STUDY):
            raise ValueError("the storage folder or the study keeps other things under this name; take another")
        return value

    @cached_property
    def base_config(self) -> Config:
        """The reference's configuration."""
        return config_from(self.base, f"{self._source}: base")

    @property
    def trial_limit(self) -> int | None:
        """Trials in all: a table's runs; else `budget.trials`, 1 when nothing is searched, a grid's size if it ends
        earlier, or None.
        """
        if self.table is not None:
            return self.table.seeds * len(shown_rows(self.table, self.base_config))
        if not drawn(self.search):
            return 1
        if self.search_options.sampler != "grid":
            return self.budget.trials
        whole = 1 + len(grid.points(self.search, self.reference, self.search_options.seed))
        return min(whole, self.budget.trials or whole)

    @property
    def reference(self) -> dict[str, Any]:
        """The searched names' values in the base configuration: what trial 0 runs with."""
        return values_of_base(self.search, to_dotted(self.base_config))


def load_spec(path: Path, sets: Sequence[str] = ()) -> SweepSpec:
    """Read and check a specification.

    `sets` are `name=value` texts: `data.root=...` (base names without the prefix), `budget.trials=40`, `name=NEW`,
    `search.patches.K=null` (drops a domain), `preset=scenes` (adds a preset).
    Raises InputError: one line with the file or --set, the key and the cure.
    """
    raw = load_yaml(path)
    if raw.get("question") is None:
        raw["question"] = opening_question(path)
    return spec_from(raw, sets, path)


def spec_from(raw: dict[str, Any], sets: Sequence[str], path: Path) -> SweepSpec:
    """The same from values that `path` stands for in errors."""
    if not isinstance(raw.get("base", {}), dict) or not isinstance(raw.get("search", {}), dict):
        key = "base" if not isinstance(raw.get("base", {}), dict) else "search"
        raise InputError(f"{path}: {key}: has to hold `key: value` lines, or leave the key out")
    base_sets: dict[str, Any] = {}
    for text in sets:
        name, value = _split(text)
        first = name.partition(".")[0]
        if name == "preset":
            raw = {**raw, "base": add_presets(raw.get("base", {}), value, f"{path}: base")}
        elif first == "base":
            raise InputError(f"--set {name}: write it without `base.`: --set {name[5:] or 'data.root'}=...")
        elif first in SweepSpec.model_fields:
            raw = _set_sweep(raw, name, value)
        elif first in Config.model_fields:
            base_sets[name] = value
        else:
            known = [*known_names(), *sweep_names(), "preset"]
            raise InputError(f"--set {name}: unknown key{nearest(name, known)}")
    _check_base(raw, base_sets, path)
    for name, value in base_sets.items():
        raw = merge(raw, {"base": _nested(name.split("."), value)})
    try:
        spec = SweepSpec.model_validate(raw)
    except ValidationError as error:
        raise InputError(_explain(error, str(path), [_split(text)[0] for text in sets])) from None
    spec._source = str(path)
    if spec.table is not None:
        if spec.search:
            raise InputError(f"{path}: search: a table runs its rows and searches nothing; drop search, or table")
        check_table(spec.table, spec.base, str(path))
    check_search(spec, str(path))
    return spec


def apply_sets(base: dict[str, Any], sets: Sequence[str], source: str) -> dict[str, Any]:
    """The method's nested values `base` with `--set` texts applied: dotted names, and `preset`. For a single run.

    Raises InputError for a name that is not the method's.
    """
    changed: dict[str, Any] = {}
    for text in sets:
        name, value = _split(text)
        if name == "preset":
            base = add_presets(base, value, source)
        elif name.partition(".")[0] in Config.model_fields:
            changed[name] = value
        else:
            raise InputError(f"--set {name}: unknown key{nearest(name, [*known_names(), 'preset'])}")
    with_values(config_from(base, source), changed, "--set")
    for name, value in changed.items():
        base = merge(base, _nested(name.split("."), value))
    return base


def add_presets(base: dict[str, Any], added: Any, source: str) -> dict[str, Any]:
    """`base` with presets from `--set preset=...`: they go last in its list, and over what the file itself says."""
    old, new = preset_names(base.get("preset"), source), preset_names(added, "--set preset")
    for name in new:
        base = merge(base, PRESETS[name])
    return {**base, "preset": old + new}


def _split(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    name = name.strip()
    if not sign or not name:
        raise InputError(f"--set {text}: write name=value, as in --set budget.trials=40")
    return name, parse_scalar(value, f"--set {name}")


def _nested(parts: Sequence[str], value: Any) -> dict[str, Any]:
    for part in reversed(parts[1:]):
        value = {part: value}
    return {parts[0]: value}


def _set_sweep(raw: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """`raw` with a sweep section's value changed; a searched name keeps its dots as one key."""
    first, _, rest = name.partition(".")
    if first != "search":
        return merge(raw, _nested(name.split("."), value))
    search = dict(raw.get("search", {}))
    names = value_names()
    fits = [known for known in (*search, *names) if rest == known or rest.startswith(known + ".")]
    if not fits:
        raise InputError(f"--set {name}: {rest or 'nothing'} is not a name of the method{nearest(rest, names)}")
    searched = max(fits, key=len)
    if rest != searched:
        old = search.get(searched)
        value = merge(old if isinstance(old, dict) else {}, _nested(rest[len(searched) + 1 :].split("."), value))
    search[searched] = value
    if value is None:
        del search[searched]
    return {**raw, "search": search}


def _check_base(raw: dict[str, Any], base_sets: dict[str, Any], path: Path) -> None:
    """Name the file for what stands in it, and --set for what was set."""
    config = config_from(raw.get("base", {}), f"{path}: base")
    if base_sets:
        with_values(config, base_sets, "--set")


def sweep_names() -> list[str]:
    """Sections of a specification and the dotted names of their values."""
    names = []
    for name, field in SweepSpec.model_fields.items():
        names.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            names += [f"{name}.{inner}" for inner in field.annotation.model_fields]
    return names


def _explain(error: ValidationError, source: str, set_names: Sequence[str]) -> str:
    findings = error.errors()
    first = findings[0]
    loc = list(first["loc"])
    if loc[0] == "search" and len(loc) > 2 and loc[2] in ("float", "int", "choice", "curve"):
        del loc[2]  # pydantic names the kind of domain that it chose
    key = brief(".".join(str(part) for part in loc))
    where = next((f"--set {name}" for name in set_names if key == name or key.startswith(name + ".")), source)
    if first["type"] == "extra_forbidden":
        known = ["float", "int", "choice", "log", "step", "when"] if loc[0] == "search" else sweep_names()
        text = f"unknown key{nearest(str(loc[-1]) if loc[0] == 'search' else key, known)}"
    elif first["type"] == "missing":
        text = "is missing; add it"
    else:
        given = first.get("input")
        text = first["msg"].removeprefix("Value error, ")
        text += "" if isinstance(given, (dict, Section)) else f", given {mask(brief(repr(given)))}"
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{where}: {key}: {text}{more}" if where == source or key != where[6:] else f"{where}: {text}{more}"
