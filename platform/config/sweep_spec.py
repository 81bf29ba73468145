"""The specification of a sweep as an object: every section, and what follows from them."""

from functools import cached_property
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator

from cpn.config import Config, config_from, to_dotted

from ..base.paths import is_taken
from .sections import (
    CONFIRM_STUDY,
    Budget,
    Confirm,
    Named,
    Notify,
    Promote,
    Pruning,
    Resources,
    SearchOptions,
    SweepSection,
    Tracking,
)
from .space import grid
from .space.domains import Domain, drawn, values_of_base, with_curve
from .table_spec import Table, trained_rows


class SweepSpec(SweepSection):
    """Everything about one sweep."""

    name: Named = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
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
    image-level labels alone, for a data set without masks: see cpn/scoring/mask_free.py.
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
    _set_names: tuple[str, ...] = PrivateAttr(default=())

    @field_validator("search")
    @classmethod
    def _read_off(cls, value: dict[str, Any]) -> dict[str, Any]:
        return with_curve(value)

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if is_taken(value) or value.endswith(CONFIRM_STUDY):
            raise ValueError("the storage folder or the study keeps other things under this name; take another")
        return value

    @property
    def set_names(self) -> tuple[str, ...]:
        """The method's dotted names that `--set` gave a value in this command."""
        return self._set_names

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
            return self.table.seeds * len(trained_rows(self.table, self.base_config))
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
