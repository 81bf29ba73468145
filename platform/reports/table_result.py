"""A table's numbers: mean and spread of each row, differences seed by seed, the paper's numbers beside them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import stats

from cpn.core.checked import SWEEP_WRITES, read_typed
from cpn.scoring.run_manifest import RunManifest

from ..config.table_spec import BY_SCALE, COST_COLUMNS, GAIN_COLUMNS, ROW_ABOVE, Row, Table, shown_name

GAIN_AGAINST = "the image alone"
LEVEL = 0.05
"""The differences of one column to `table.against` all hold their intervals in 95 % of tables (Bonferroni)."""

Readings = Mapping[int, Mapping[str, float]]
"""Seed -> column -> value."""


class ColumnValues(BaseModel):
    """A column of a row over its seeds; None what too few of them have."""

    model_config = ConfigDict(frozen=True)

    values: tuple[float, ...] = ()
    """In the order of the seeds."""
    mean: float | None
    sd: float | None


class Difference(BaseModel):
    """A difference to another row, seed by seed, with its interval; None where no seed, or a single one, has it."""

    model_config = ConfigDict(frozen=True)

    difference: float | None
    low: float | None
    high: float | None


class TableRow(BaseModel):
    """A row of a table, or the average of a group of rows."""

    model_config = ConfigDict(frozen=True)

    name: str
    group: str | None = None
    average: bool = False
    """Whether it is the average of its group."""
    published: dict[str, float] = {}
    """The paper's numbers, by column."""
    seeds: tuple[int, ...] = ()
    columns: dict[str, ColumnValues]
    against: str | None = None
    """The row it is compared with."""
    differences: dict[str, Difference] | None = None
    """By column; None where it is compared with nothing."""


class TableRun(BaseModel):
    """A run that a table reads."""

    model_config = ConfigDict(frozen=True)

    row: str = ""
    seed: int = 0
    key: str
    """The run key: several rows may read one run."""


class ImportedRow(BaseModel):
    """A row of another method's files."""

    model_config = ConfigDict(frozen=True)

    folder: str
    kind: str
    uid: str = ""
    beta: float | None = None


class TableResult(BaseModel):
    """What a table has come to, `table.json`: written by platform/sweeps/table_sweep.py.

    What an earlier version did not write has a default here; what a later one adds is not read.
    """

    model_config = ConfigDict(frozen=True)

    sweep: str = ""
    title: str = ""
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    against: str | None = None
    """The row that the others are compared with, or `row above`."""
    published: dict[str, float] = {}
    """What the paper says of the whole table."""
    note: str = ""
    scenes: bool = False
    """Whether it was run on synthetic scenes."""
    seeds: int = 1
    runs: dict[str, TableRun] = {}
    """By uid."""
    unfinished: dict[str, str] = {}
    """Uid -> why."""
    imported: dict[str, ImportedRow] = {}
    """By row."""
    extra_supervision: str | None = None
    stages_failed: dict[str, str] = {}
    """Uid -> why."""
    values: dict[str, dict[str, Any]] = {}
    """What each row changes of the base, by dotted name."""
    fingerprint: str = ""
    """Of the packed data set."""
    run_hours: float = 0.0
    """Hours of training of all runs, each counted once."""
    words: str = ""
    """For people."""

    def to_json(self) -> dict[str, Any]:
        """Give the plain values that the file holds."""
        return self.model_dump(mode="json", exclude_unset=True)


def read_table(path: Path) -> TableResult | None:
    """Read a table; None where there is none. Raises DamagedFile where it is not what a sweep writes."""
    try:
        return read_typed(path, TableResult, SWEEP_WRITES)
    except FileNotFoundError:
        return None


def run_readings(result: RunManifest) -> dict[str, float]:
    """Read the columns of a finished run from its manifest (cpn/run.py); `hours` is its own time."""
    wanted: tuple[str, ...] = ("miou_train", "miou_confirm", "mask_free")
    readings = {name: float(result.metrics[name]) for name in wanted if name in result.metrics}
    readings["hours"] = result.seconds / 3600
    for row in result.scales:
        readings[scale_column(row.scale)] = float(row.miou)
    if result.scales:
        of_all = {
            "iou_background": result.scales[-1].iou_background,
            "iou_foreground": result.scales[-1].iou_foreground,
        }
        readings |= {name: float(value) for name, value in of_all.items() if value is not None}
    return readings


def scale_column(scale: str) -> str:
    """Name the column of one scale, or of `all`."""
    return f"scale {scale}"


def shown_columns(table: Table, scales: Sequence[str]) -> list[str]:
    """List the table's columns, `by_scale` expanded to the rows of `scale_scores.row_names`."""
    columns: list[str] = []
    for column in table.columns:
        columns += [scale_column(scale) for scale in scales] if column == BY_SCALE else [column]
    return columns


def table_rows(
    table: Table,
    rows: Mapping[str, Row],
    columns: Sequence[str],
    readings: Mapping[str, Readings],
    scenes: bool = False,
) -> list[TableRow]:
    """Return every row; those of groups follow as rows of their own."""
    above = dict(zip(list(rows)[1:], rows, strict=False))
    others = {
        name: above.get(name) if table.against == ROW_ABOVE else table.against
        for name in rows
        if table.against is not None and name != table.against
    }
    others = {name: other for name, other in others.items() if other in rows}
    entries = []
    for name, row in rows.items():
        own, other = readings.get(name, {}), others.get(name)
        compared: dict[str, Any] = {}
        if other is not None:
            compared["against"] = shown_name(other, rows[other], scenes)
            compared["differences"] = {
                column: paired(own, readings.get(other, {}), column, len(others))
                for column in columns
                if column not in COST_COLUMNS
            }
        for column in GAIN_COLUMNS:
            if column in columns:
                gains = [values[column] for values in own.values() if column in values]
                compared.setdefault("differences", {})[column] = interval(gains, len(rows))
        entries.append(
            TableRow(
                name=shown_name(name, row, scenes),
                group=row.group,
                published=dict(row.published),
                seeds=tuple(own),
                columns={column: column_values(own, column) for column in columns},
                **compared,
            )
        )
    return entries + group_rows(rows, columns, readings)


def group_rows(rows: Mapping[str, Row], columns: Sequence[str], readings: Mapping[str, Readings]) -> list[TableRow]:
    """Average the rows of each group, seed by seed, over the seeds that all of them have. Of two groups the first is
    compared with the second.
    """
    averages: dict[str, Readings] = {}
    for group in dict.fromkeys(row.group for row in rows.values() if row.group is not None):
        members = [readings.get(name, {}) for name, row in rows.items() if row.group == group]
        common = [seed for seed in members[0] if all(seed in member for member in members)]
        averages[group] = {
            seed: {
                column: float(np.mean([member[seed][column] for member in members]))
                for column in columns
                if all(column in member[seed] for member in members)
            }
            for seed in common
        }
    entries = [
        TableRow(
            name=f"average of {group}",
            group=group,
            average=True,
            published={},
            seeds=tuple(averaged),
            columns={column: column_values(averaged, column) for column in columns},
        )
        for group, averaged in averages.items()
    ]
    if len(entries) == 2:
        one, other = averages.values()
        scores = [column for column in columns if column not in (*COST_COLUMNS, *GAIN_COLUMNS)]
        differences = {column: paired(one, other, column, 1) for column in scores}
        entries[0] = entries[0].model_copy(update={"against": entries[1].name, "differences": differences})
    return entries


ONE_SEED = "undecided, as one seed has no interval"


def verdicts(rows: Sequence[TableRow], columns: Iterable[str]) -> list[str]:
    """Write a sentence for each compared column: which rows are above, which below, which are undecided."""
    sentences = []
    for column in columns:
        names_by_verdict = {
            "above": list[str](),
            "below": list[str](),
            "undecided": list[str](),
            ONE_SEED: list[str](),
        }
        differences = [(row, (row.differences or {}).get(column)) for row in rows]
        compared = [(row, one) for row, one in differences if one is not None and one.difference is not None]
        others = [GAIN_AGAINST if column in GAIN_COLUMNS else row.against for row, _ in compared]
        same = len(set(others)) == 1
        for (row, one), other in zip(compared, others, strict=True):
            name = row.name if same else f"{row.name} (against {other})"
            names_by_verdict[verdict(one)].append(name)
        if compared:
            parts = [f"{kind}: {', '.join(names)}" for kind, names in names_by_verdict.items() if names]
            against = f" against {others[0]}" if same else ""
            sentences.append(f"{column}{against}: {'; '.join(parts)}.")
    return sentences


def verdict(difference: Difference) -> str:
    """Classify the interval of a difference; one that holds 0 shows neither a difference nor that there is none."""
    low, high = difference.low, difference.high
    if low is None or high is None:
        return ONE_SEED
    return "above" if low > 0 else "below" if high < 0 else "undecided"


def column_values(readings: Readings, column: str) -> ColumnValues:
    """Return the values of a column by seed, their mean and standard deviation (None for no, or a single, value)."""
    values = [own[column] for own in readings.values() if column in own]
    return ColumnValues(
        values=tuple(values),
        mean=float(np.mean(values)) if values else None,
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
    )


def paired(own: Readings, other: Readings, column: str, compared: int) -> Difference:
    """Compute the `interval` of the differences over the seeds that both have."""
    differences = [
        values[column] - other[seed][column]
        for seed, values in own.items()
        if seed in other and column in values and column in other[seed]
    ]
    return interval(differences, compared)


def interval(differences: Sequence[float], compared: int) -> Difference:
    """Average differences by seed, with the t interval at .05 / `compared`; no interval below 2."""
    if not differences:
        return Difference(difference=None, low=None, high=None)
    mean, count = float(np.mean(differences)), len(differences)
    if count < 2:
        return Difference(difference=mean, low=None, high=None)
    half = float(stats.t.ppf(1 - LEVEL / compared / 2, count - 1) * np.std(differences, ddof=1) / count**0.5)
    return Difference(difference=mean, low=mean - half, high=mean + half)


def cell(value: ColumnValues) -> str:
    """`57.4 ± 0.3`; below 1 with two digits, `0.75 ± 1.20`; no spread where all seeds are the same; or a dash."""
    mean, spread = value.mean, value.sd
    if mean is None:
        return "-"
    places = 1 if abs(mean) >= 1 else 2 if mean == 0 else 1 - math.floor(math.log10(abs(mean)))
    text = f"{mean:.{places}f}"
    same = spread is None or max(value.values) == min(value.values)
    return text if same else f"{text} ± {spread:.{places}f}"


def difference_cell(value: Difference) -> str:
    """`+1.9 [0.7, 3.0]`, or a dash."""
    if value.difference is None:
        return "-"
    interval = f" [{value.low:.1f}, {value.high:.1f}]" if value.low is not None else ""
    return f"{value.difference:+.1f}{interval}"


def table_cells(rows: Sequence[TableRow], columns: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    """Format heads and cells: each column's value, the paper's where a row has one, the difference where compared."""
    columns = list(columns)
    with_paper = [column for column in columns if any(column in row.published for row in rows)]
    compared = {column for row in rows for column in row.differences or ()} - set(GAIN_COLUMNS)
    heads = ["row"]
    for column in columns:
        heads += [column] + (["paper"] if column in with_paper else []) + (["difference"] if column in compared else [])
    body = []
    for row in rows:
        line = [row.name]
        for column in columns:
            gain = (row.differences or {}).get(column) if column in GAIN_COLUMNS else None
            line.append(cell(row.columns[column]) if gain is None else difference_cell(gain))
            if column in with_paper:
                line.append(f"{row.published[column]:.2f}" if column in row.published else "-")
            if column in compared:
                line.append(difference_cell(row.differences[column]) if row.differences is not None else "-")
        body.append([*line])
    return heads, body


def table_markdown(result: TableResult) -> str:
    """Format the table as Markdown, with its title, its note and what it was run on."""
    heads, body = table_cells(result.rows, result.columns)
    escaped = [[text.replace("|", "\\|") for text in line] for line in [heads, *body]]
    lines = [f"**{result.title}**", ""]
    lines += [f"| {' | '.join(escaped[0])} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(line)} |" for line in escaped[1:]]
    lines += ["", result.words]
    return "\n".join(lines)


def cost_words(result: TableResult) -> str:
    """State how many networks a table trained, each counted once however many rows use it, and their hours."""
    count = len({run.key for run in result.runs.values()})
    return f"{count} run{'s' if count != 1 else ''}, {result.run_hours:.2f} hours of training."
