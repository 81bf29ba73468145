"""A table's numbers by hand: means, spreads, paired differences, groups, and the text that is shown."""

from pathlib import Path
from platform.config.table_spec import Row, Table
from platform.reports.table_result import (
    Difference,
    TableResult,
    TableRow,
    TableRun,
    cell,
    column_values,
    cost_words,
    difference_cell,
    paired,
    read_table,
    run_readings,
    shown_columns,
    table_cells,
    table_markdown,
    table_rows,
    verdicts,
)

import pytest
from scipy import stats

from cpn.core.files import DamagedFile, read_json, write_json
from cpn.scoring.run_manifest import RunManifest

ROWS = {
    "a": Row(published={"miou_train": 50.0}, group="g"),
    "b": Row(group="g"),
    "c": Row(),
}
READINGS = {
    "a": {0: {"miou_train": 50.0}, 1: {"miou_train": 52.0}},
    "b": {0: {"miou_train": 53.0}, 1: {"miou_train": 56.0}},
    "c": {0: {"miou_train": 40.0}},
}


def table(**values: object) -> Table:
    return Table.model_validate(
        {"title": "T", "rows": {name: row.model_dump() for name, row in ROWS.items()}, **values}
    )


def test_means_spreads_and_groups() -> None:
    a, b, c, group = table_rows(table(), ROWS, ["miou_train"], READINGS)
    assert (a.columns["miou_train"].values, a.columns["miou_train"].mean) == ((50.0, 52.0), 51.0)
    assert a.columns["miou_train"].sd == pytest.approx(2**0.5)
    assert c.columns["miou_train"].sd is None and a.differences is None
    assert group.name == "average of g" and group.columns["miou_train"].values == (51.5, 54.0)
    assert b.group == "g" and group.average


def test_a_group_is_averaged_over_the_seeds_that_all_have() -> None:
    readings = {**READINGS, "b": {1: {"miou_train": 56.0}}}
    *_, group = table_rows(table(), ROWS, ["miou_train"], readings)
    assert group.seeds == (1,) and group.columns["miou_train"].values == (54.0,)


def test_differences_are_seed_by_seed_and_hold_over_the_column() -> None:
    a, b, c, _ = table_rows(table(against="a"), ROWS, ["miou_train"], READINGS)
    assert a.differences is None
    found = b.differences["miou_train"]
    half = stats.t.ppf(1 - 0.05 / 2 / 2, 1) * 0.5  # differences 3 and 4: standard deviation .71, standard error .5
    assert found.difference == 3.5
    assert (found.low, found.high) == (pytest.approx(3.5 - half), pytest.approx(3.5 + half))
    assert c.differences["miou_train"] == Difference(difference=-10.0, low=None, high=None)
    assert paired({5: {"x": 1.0}}, {6: {"x": 1.0}}, "x", 1).difference is None
    assert (
        difference_cell(found).startswith("+3.5 [")
        and difference_cell(Difference(difference=None, low=None, high=None)) == "-"
    )


def test_a_spread_has_the_places_of_its_mean() -> None:
    def shown(*values: float) -> str:
        return cell(column_values({seed: {"x": value} for seed, value in enumerate(values)}, "x"))

    assert shown(50.0, 52.0) == "51.0 ± 1.4"
    assert shown(0.5, -0.25) == "0.12 ± 0.53", "a mean below 1 is undecided without its spread"
    assert (shown(0.3), shown(0.3, 0.3, 0.3), shown(1.2, 1.2, 1.2), shown()) == ("0.30", "0.30", "1.2", "-")
    assert (shown(0.0042, 0.0030), shown(-0.02), shown(0.0, 0.0)) == ("0.0036 ± 0.0008", "-0.020", "0.00")


def test_a_gain_is_a_difference_in_itself() -> None:
    rows = {"small": Row(), "large": Row()}
    readings = {
        "small": {0: {"miou_o": 50.0, "miou_gain": -12.0}, 1: {"miou_o": 51.0, "miou_gain": -13.0}},
        "large": {0: {"miou_o": 50.0, "miou_gain": 0.0}, 1: {"miou_o": 51.0, "miou_gain": 0.0}},
    }
    columns = ["miou_o", "miou_gain"]
    found = table_rows(table(), rows, columns, readings)
    half = stats.t.ppf(1 - 0.05 / 2 / 2, 1) * 0.5  # standard deviation .71 of two seeds, two rows
    assert found[0].differences is not None and list(found[0].differences) == ["miou_gain"]
    gain = found[0].differences["miou_gain"].model_dump()
    assert gain == {"difference": -12.5, "low": pytest.approx(-12.5 - half), "high": pytest.approx(-12.5 + half)}
    heads, body = table_cells(found, columns)
    assert heads == ["row", *columns] and body[1] == ["large", "50.5 ± 0.7", "+0.0 [0.0, 0.0]"]
    assert verdicts(found, columns) == ["miou_gain against the image alone: undecided: small, large."]


def test_each_row_against_the_one_above() -> None:
    a, b, c, _ = table_rows(table(against="row above"), ROWS, ["miou_train"], READINGS)
    assert a.differences is None and (b.against, c.against) == ("a", "b")
    assert b.differences["miou_train"].difference == 3.5 and c.differences["miou_train"].difference == -13.0
    assert b.differences["miou_train"].high == pytest.approx(3.5 + stats.t.ppf(1 - 0.05 / 2 / 2, 1) * 0.5)


def test_the_first_of_two_groups_is_compared_with_the_second() -> None:
    rows = {**ROWS, "c": Row(group="h")}
    readings = {**READINGS, "c": {0: {"miou_train": 40.0}, 1: {"miou_train": 42.5}}}
    *_, g, h = table_rows(table(), rows, ["miou_train", "hours"], readings)
    half = stats.t.ppf(0.975, 1) * 0.0  # both seeds differ by 11.5
    assert g.against == "average of h" and h.differences is None
    assert set(g.differences) == {"miou_train"}, "what a run costs is not compared"
    assert table_cells([g, h], ["miou_train", "hours"])[0] == ["row", "miou_train", "difference", "hours"]
    assert g.differences["miou_train"] == Difference(difference=11.5, low=11.5 - half, high=11.5 + half)


def test_on_scenes_a_row_has_the_name_of_its_values_there() -> None:
    rows = {"S_N 200": Row(scenes_name="S_N 40"), "S_N 5": Row()}
    spec = Table(title="T", rows=rows, against="S_N 200")
    readings = {"S_N 200": {0: {"miou_train": 50.0}}, "S_N 5": {0: {"miou_train": 40.0}}}
    forty, five = table_rows(spec, rows, ["miou_train"], readings, scenes=True)
    assert (forty.name, five.against) == ("S_N 40", "S_N 40")
    assert table_rows(spec, rows, ["miou_train"], readings)[1].against == "S_N 200"


def test_the_verdict_is_where_the_interval_lies() -> None:
    def row(name: str, low: float | None, high: float | None, against: str = "x") -> TableRow:
        found = Difference(difference=1.0, low=low, high=high)
        return TableRow(name=name, columns={}, against=against, differences={"miou_train": found, "hours": found})

    alone = TableRow(name="x", columns={})
    rows = [alone, row("a", 0.1, 2.0), row("b", -2.0, -0.1), row("c", -1.0, 1.0), row("d", None, None)]
    assert verdicts(rows, ["miou_train", "absent"]) == [
        "miou_train against x: above: a; below: b; undecided: c; undecided, as one seed has no interval: d."
    ]
    assert verdicts([rows[1], row("e", 0.1, 0.2, against="y")], ["miou_train"]) == [
        "miou_train: above: a (against x), e (against y)."
    ]
    assert verdicts([alone], ["miou_train"]) == []


def test_a_run_answers_its_columns() -> None:
    scales = [
        {"scale": "1", "miou": 41.0},
        {"scale": "all", "miou": 42.0, "iou_background": 80.0, "iou_foreground": 30.0},
    ]
    for row in scales[:1]:
        row |= {"iou_background": 1.0, "iou_foreground": 2.0}
    metrics = {"miou_train": 42.0, "beta": 0.3}
    values = {"key": "k", "history": [], "metrics": metrics, "seconds": 1800, "scales": scales, "digests": {}}
    result = RunManifest.model_validate(values)
    assert run_readings(result) == {
        "miou_train": 42.0, "hours": 0.5, "scale 1": 41.0, "scale all": 42.0, "iou_background": 80.0,
        "iou_foreground": 30.0,
    }  # fmt: skip
    assert shown_columns(table(columns=["by_scale", "hours"]), ["1", "all"]) == ["scale 1", "scale all", "hours"]


def test_the_text_has_the_papers_number_beside_ours() -> None:
    rows = table_rows(table(against="a"), ROWS, ["miou_train"], READINGS)
    heads, body = table_cells(rows, ["miou_train"])
    assert heads == ["row", "miou_train", "paper", "difference"]
    assert body[0] == ["a", "51.0 ± 1.4", "50.00", "-"] and body[2] == ["c", "40.0", "-", "-10.0"]
    text = table_markdown(TableResult(title="A | B", rows=tuple(rows), columns=("miou_train",), words="Run on scenes."))
    assert "| a | 51.0 ± 1.4 | 50.00 | - |" in text and text.endswith("Run on scenes.")


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    assert read_table(path) is None
    rows = tuple(table_rows(table(against="a"), ROWS, ["miou_train"], READINGS))
    runs = {"t-0000": TableRun(row="a", seed=0, key="0f")}
    result = TableResult(sweep="t", title="T", columns=("miou_train",), rows=rows, runs=runs, run_hours=0.5)
    write_json(path, result.to_json())
    assert read_table(path) == result and read_json(path) == result.to_json()
    first, second, *_ = read_json(path)["rows"]
    assert set(first) == {"name", "group", "published", "seeds", "columns"} and "differences" in second
    assert cost_words(result) == "1 run, 0.50 hours of training."


def test_a_file_that_holds_no_table_is_damaged_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_json(path, {"columns": ["miou_train"], "rows": [{"name": "a"}]})
    with pytest.raises(
        DamagedFile, match=r"table.json: is damaged \(rows.0.columns: Field required\); give the sweep's"
    ):
        read_table(path)
