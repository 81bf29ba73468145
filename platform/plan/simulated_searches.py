"""What a number of trials can be expected to find, from simulated searches: the table that a benchmark wrote."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cpn.core.files import read_json

from ..config.sweep_spec import SweepSpec
from .estimate import Price

TABLE = Path(__file__).with_name("simulated_searches.json")
BUDGETS = (8, 16, 24, 32, 48, 64, 96, 128)
"""Numbers of trials that the table has, as far as the searches went."""


class DistanceAfter(BaseModel):
    """What searches had come to after so many trials, in mIoU points from the best there is."""

    model_config = ConfigDict(frozen=True)

    trials: int
    median: float
    most: float
    """In nine of ten searches."""


class SimulatedSearches(BaseModel):
    """Simulated searches by the sampler gp, and what they came to."""

    model_config = ConfigDict(frozen=True)

    command: str
    """What wrote it."""
    families: tuple[str, ...]
    searches: int
    budgets: tuple[DistanceAfter, ...]


def expectation(spec: SweepSpec, price: Price, table: Path = TABLE) -> str | None:
    """Return what the trials of a sweep's budget found in simulation, in a line; None where no limit says how many
    there will be, and for samplers and tables, which were not simulated.
    """
    if spec.table is not None or spec.search_options.sampler != "gp":
        return None
    counts = [] if price.trials is None else [price.trials]
    if spec.budget.gpu_hours is not None and price.hours_per_trial:
        counts.append(int(spec.budget.gpu_hours / price.hours_per_trial))
    simulated = SimulatedSearches.model_validate(read_json(table, "install this package again"))
    rows = [row for row in simulated.budgets if counts and row.trials <= min(counts)]
    if not rows:
        return None
    row = rows[-1]
    at_least = "" if row.trials == min(counts) else f"{min(counts)} trials, at least as good as "
    return (
        f"to expect: {at_least}{row.trials} trials, which came within {row.median:g} mIoU of the best there was in "
        f"half of {simulated.searches} simulated searches, within {row.most:g} in nine of ten ({simulated.command})"
    )
