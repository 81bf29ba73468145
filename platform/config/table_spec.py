"""The `table` section: named configurations that are run with several seeds and put side by side, as a paper does.

    table:
      title: Table 4, the hidden probability p_h
      seeds: 3
      columns: [miou_train]
      rows:
        p_h .1: {values: {patches: {p_h: 0.1}}, published: {miou_train: 55.52}}
        p_h .5: {values: {patches: {p_h: 0.5}}, published: {miou_train: 57.43}}

Every row is the base with its values, and a preset, laid over it. A run that several tables need is trained once.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from cpn.config import Config, config_from, merge, preset_names, to_dotted
from cpn.config.patches import PAIR_MAPS, PatchesConfig
from cpn.config.presets import PRESETS
from cpn.config.section import MOST_SEEDS, Section
from cpn.core.errors import InputError

BY_SCALE = "by_scale"
"""Stands for one column for each scale of `cam.scales`, and one for all of them together."""
RUN_COLUMNS = ("miou_train", "iou_background", "iou_foreground", "miou_confirm", "mask_free", BY_SCALE)
STAGE_COLUMNS = ("random_walk/miou_train", "deeplab/miou_val", "deeplab/miou_val_crf")
GAIN_COLUMNS = ("miou_gain", "recall_gain")
"""What a pair's maps together have more than the image's own map: a difference in itself."""
PAIR_COLUMNS = (*(f"{kind}_{name}" for kind in ("miou", "recall") for name in PAIR_MAPS), *GAIN_COLUMNS)
"""Of each of the maps, and the gains."""
COST_COLUMNS = ("patch_ms", "hours")
COLUMNS = (*RUN_COLUMNS, *STAGE_COLUMNS, *PAIR_COLUMNS, *COST_COLUMNS)
"""What a column can be; docs/paper.md says what each is."""

ROW_ABOVE = "row above"
"""As `table.against`: every row is compared with the one before it."""


class Row(Section):
    """One line of a table."""

    values: dict[str, Any] = {}
    """Nested values, and `preset`, laid over the base."""
    scenes: dict[str, Any] | None = {}
    """Laid over these where the data are synthetic scenes of the preset's size; null leaves the row out there."""
    scenes_name: str | None = None
    """What the row is called there, where its name holds a number that `scenes` changes; null: as here."""
    maps: str | None = None
    """Folder with another method's score maps (ID.npz, docs/judge.md), carried on in the place of a training; null: the
    row is trained."""
    labels: str | None = None
    """The same of pseudo labels (ID.png)."""
    halved: bool = False
    """Whether the score maps lie in [0, 0.5] and are to be doubled."""
    pair: PatchesConfig | None = None
    """Patches by which the trained network is shown a complementary pair, for the columns miou_o to recall_pair."""
    pair_scenes: PatchesConfig | None = None
    """The same where the data are scenes; null: as `pair`."""
    published: dict[str, float] = {}
    """Column -> the paper's number, in percent (patch_ms in milliseconds)."""
    group: str | None = None
    """Rows of one group are averaged in a line of their own."""

    @property
    def imported(self) -> str | None:
        """The folder with another method's files, where the row names one."""
        return self.maps or self.labels


class Table(Section):
    """Configurations side by side. Nothing is searched, confirmed or promoted."""

    title: str = Field(min_length=1)
    """What the table is, and where it stands in the paper."""
    rows: dict[str, Row] = Field(min_length=1)
    """Name -> row, in the order in which they are shown."""
    columns: tuple[Literal[COLUMNS], ...] = Field(default=("miou_train",), min_length=1)  # type: ignore[valid-type]
    """What is shown of each row."""
    seeds: int = Field(default=3, ge=1, le=MOST_SEEDS)
    """Runs of each row, with the seeds train.seed, train.seed + 1, ..."""
    against: str | None = None
    """A row that the others are compared with, seed by seed; `row above`: each with the one before; null: none."""
    panel: bool = False
    """Draw the CAMs of all rows for the same images side by side."""
    published: dict[str, float] = {}
    """What the paper says of the table as a whole, such as a difference of two averages."""
    note: str = ""
    """Where the protocol differs from the paper's, or its numbers are read off a figure."""

    @property
    def reads_stages(self) -> bool:
        """Whether runs have to be carried on to DeepLab."""
        return any(column in STAGE_COLUMNS for column in self.columns)

    @property
    def reads_pairs(self) -> bool:
        """Whether trained networks are shown complementary pairs."""
        return any(column in PAIR_COLUMNS for column in self.columns)


def at_scene_size(config: Config) -> bool:
    """Return whether the data are synthetic scenes in crops as small as the preset's: large ones take a row's own
    values.
    """
    return config.data.root is None and config.data.crop <= int(PRESETS["scenes"]["data"]["crop"])


def shown_rows(table: Table, base: Config) -> dict[str, Row]:
    """Return the rows that exist for these data, in order."""
    scenes = at_scene_size(base)
    return {name: row for name, row in table.rows.items() if not scenes or row.scenes is not None}


def trained_rows(table: Table, base: Config) -> dict[str, Row]:
    """Return those of them that are trained: they name no files of another method."""
    return {name: row for name, row in shown_rows(table, base).items() if row.imported is None}


def shown_name(name: str, row: Row, scenes: bool) -> str:
    """Return what a row is called."""
    return row.scenes_name or name if scenes else name


def row_pair(row: Row, base: Config) -> PatchesConfig | None:
    """Return the patches of a row's pair for these data."""
    return row.pair_scenes or row.pair if at_scene_size(base) else row.pair


def row_config(base: Mapping[str, Any], name: str, row: Row, source: str) -> Config:
    """Return the whole configuration of a row: its presets and values lie over all of the base, whatever set that.

    Raises InputError naming `source` and the row.
    """
    where = f"{source}: table.rows.{name}"
    below = config_from(base, source)
    over = merge(row.values, row.scenes or {}) if at_scene_size(below) else row.values
    merged: dict[str, Any] = below.model_dump()
    for preset in preset_names(over.get("preset"), where):
        merged = merge(merged, PRESETS[preset])
    return config_from(merge(merged, {key: value for key, value in over.items() if key != "preset"}), where)


def row_values(base: Mapping[str, Any], name: str, row: Row, source: str) -> dict[str, Any]:
    """Return the dotted values in which a row differs from the base."""
    before = to_dotted(config_from(base, source))
    return {k: v for k, v in to_dotted(row_config(base, name, row, source)).items() if v != before[k]}


def check_imported(table: Table, row: Row, where: str) -> None:
    """Raise InputError for files of another method that cannot be told, or asked, what the row says."""
    if row.maps is not None and row.labels is not None:
        raise InputError(f"{where}: names maps and labels; give one of them, or two rows")
    if row.halved and row.maps is None:
        raise InputError(f"{where}.halved: says how score maps are kept; name them with maps, or drop it")
    if row.imported is not None and table.reads_pairs:
        raise InputError(f"{where}: has no network that could be shown a pair; drop the columns of pairs, or the row")


def check_table(table: Table, base: Mapping[str, Any], source: str) -> None:
    """Raise InputError, with the key, for what cannot be run or shown."""
    for name, row in table.rows.items():
        row_config(base, name, row, source)
        where = f"{source}: table.rows.{name}"
        if "seed" in row.values.get("train", {}):
            raise InputError(f"{where}: seeds are given to all rows alike; drop train.seed, and see table.seeds")
        check_imported(table, row, where)
        if table.reads_pairs and row.pair is None:
            raise InputError(
                f"{where}.pair: {table.columns[0]} needs the patches of the pair; e.g. {{kind: grid, K: [56]}}"
            )
        unknown = [
            column for column in row.published if column not in table.columns and not column.startswith("scale ")
        ]
        if unknown:
            raise InputError(
                f"{where}.published: {unknown[0]} is no column of the table; there are {', '.join(table.columns)}"
            )
    if not shown_rows(table, config_from(base, source)):
        raise InputError(f"{source}: table.rows: none of them exists for scenes; give one of them `scenes:` values")
    if table.against is not None and table.against not in (*table.rows, ROW_ABOVE):
        there = ", ".join((*table.rows, ROW_ABOVE))
        raise InputError(f"{source}: table.against: {table.against!r} is no row; take one of {there}")
