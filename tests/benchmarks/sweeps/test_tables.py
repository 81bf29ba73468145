"""Tables of real scores: which points are run, in which order, and that a table goes on where it ended."""

from pathlib import Path
from platform.config.space import domains

import pytest

from benchmarks.__main__ import main
from benchmarks.sweeps import tables
from cpn.core.errors import InputError


def test_other_scenes_are_other_points_and_images():
    first, other = tables.scenes(), tables.scenes_other()
    assert first.search == other.search
    assert tables.drawn_points(first)[:5] != tables.drawn_points(other)[:5]
    assert first.base["data"]["scenes"]["seed"] != other.base["data"]["scenes"]["seed"]


def test_points_lie_in_the_space_and_stay():
    family = tables.scenes()
    search = domains.parse_search(family.search)
    points = tables.drawn_points(family)
    assert len(points) == 200 and points == tables.drawn_points(family)
    for values in points:
        assert ("patches.K" in values) == (values["patches.kind"] == "grid") != ("patches.S_N" in values)
        assert all(domains.contains(domains.drawn(search)[name], value) for name, value in values.items())
    kinds = [values["patches.kind"] for values in points]
    assert kinds.count("grid") == 100  # a Latin hypercube: each half of every coordinate has half of the points
    halves = [tables.first_half(point) for point in range(200)]
    assert 70 < sum(halves) < 130


def test_first_points_have_a_second_seed_and_cheap_runs():
    family = tables.scenes()
    runs = list(tables.wanted(family))
    assert len(runs) == len(set(runs)) == 200 + family.repeated * (1 + len(family.cheap))
    assert runs[:3] == [(0, 0, "whole"), (0, 1, "whole"), (0, 0, "half_epochs")]
    assert runs[-1] == (199, 0, "whole")


def test_a_table_is_read_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["tables", "--quick", "--json", "--keep", str(tmp_path)]) == 0
    assert '"made": 1' in capsys.readouterr().out
    (row,) = tables.read_rows(tmp_path / "quick" / "scenes.jsonl")
    assert (row.point, row.seed, row.fidelity, len(row.epochs)) == (0, 0, "whole", 1)
    assert 0 < row.miou < 100 and row.cpu_seconds > 0
    assert main(["tables", "--quick", "--json", "--keep", str(tmp_path)]) == 0
    assert '"made": 0' in capsys.readouterr().out


def test_a_damaged_row_is_named(tmp_path: Path):
    table = tmp_path / "scenes.jsonl"
    table.write_text('{"point": 0}\n')
    with pytest.raises(InputError, match=r"scenes.jsonl, line 1: is no row of a table; delete the line"):
        tables.read_rows(table)


def test_photographs_need_a_folder(tmp_path: Path):
    with pytest.raises(InputError, match="--data"):
        tables.photographs(None, tmp_path)
