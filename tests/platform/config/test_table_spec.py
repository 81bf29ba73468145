"""The `table` section: what a row is for which data, and every way of writing one wrong."""

import re
from pathlib import Path
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from platform.config.table_spec import row_config, row_pair, row_values, shown_rows, trained_rows

import pytest

from cpn.config import config_from
from cpn.core.errors import InputError

TEXT = """name: t
base: {preset: official, data: {root: /data/x}}
table:
  title: A table
  seeds: 2
  rows:
    plain: {values: {preset: cam_baseline}, published: {miou_train: 47.84}}
    starred: {values: {preset: seam_prcm}}
    many: {values: {patches: {S_N: 8000}}, scenes: {patches: {S_N: 640}}}
    large: {values: {patches: {S_N: 5}}, scenes: null}
"""


def spec_of(tmp_path: Path, text: str = TEXT, *sets: str) -> SweepSpec:
    (tmp_path / "t.yaml").write_text(text)
    return load_spec(tmp_path / "t.yaml", sets)


def test_rows_are_the_base_with_their_values(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    assert spec.table is not None
    assert list(shown_rows(spec.table, spec.base_config)) == ["plain", "starred", "many", "large"]
    assert spec.trial_limit == 8
    values = row_values(spec.base, "many", spec.table.rows["many"], "t")
    assert values == {"patches.S_N": 8000}
    plain = row_config(spec.base, "plain", spec.table.rows["plain"], "t")
    assert plain == config_from({"preset": ["official", "cam_baseline"], "data": {"root": "/data/x"}}, "t")


def test_at_scene_size_rows_may_change_or_be_left_out(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, TEXT, "preset=scenes", "table.seeds=5")
    assert spec.table is not None
    rows = shown_rows(spec.table, spec.base_config)
    assert list(rows) == ["plain", "starred", "many"] and spec.trial_limit == 15
    assert row_values(spec.base, "many", rows["many"], "t") == {"patches.S_N": 640}
    # `--set preset=scenes` lays its values over the file's own, but not over a row: SEAM* is nothing without PRCM.
    assert not spec.base_config.network.prcm
    assert row_config(spec.base, "starred", rows["starred"], "t").network.prcm


def test_large_scenes_take_the_values_of_large_pictures(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, TEXT, "data.root=null", "data.scenes.size=448")
    assert spec.table is not None
    assert "large" in shown_rows(spec.table, spec.base_config)
    assert row_config(spec.base, "many", spec.table.rows["many"], "t").patches.S_N == 8000


def test_a_pair_has_its_own_size_on_scenes(tmp_path: Path) -> None:
    text = TEXT.replace("plain: {", "plain: {pair: {kind: grid, K: [56]}, pair_scenes: {kind: grid, K: [8]}, ")
    for sets, wanted in (((), (56,)), (("preset=scenes",), (8,))):
        spec = spec_of(tmp_path, text, *sets)
        assert spec.table is not None
        pair = row_pair(spec.table.rows["plain"], spec.base_config)
        assert pair is not None and pair.K == wanted


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("S_N: 8000", "S_M: 8000", "table.rows.many: patches.S_M: unknown key; did you mean 'patches.S_N'"),
        ("S_N: 8000", "S_N: 9000", "table.rows.many: patches.S_N"),
        ("preset: cam_baseline", "preset: cam_base", "table.rows.plain: preset: 'cam_base' is unknown"),
        ("published: {miou_train", "published: {miou", "table.rows.plain.published: miou is no column"),
        ("seeds: 2", "seeds: 0", "table.seeds"),
        ("title: A table", "titel: A table", "table.title: is missing"),
        ("seeds: 2", "columns: [miou_o]", "table.rows.plain.pair: miou_o needs the patches of the pair"),
        ("seeds: 2", "columns: [iou_bg]", "table.columns"),
        ("seeds: 2", "against: nobody", "table.against: 'nobody' is no row; take one of plain"),
        ("preset: cam_baseline}", "preset: cam_baseline, train: {seed: 3}}", "drop train.seed, and see table.seeds"),
        ("name: t", "name: t\nsearch: {loss.w_cls: {float: [1, 2]}}", "search: a table runs its rows"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        spec_of(tmp_path, TEXT.replace(old, new))
    assert "\n" not in str(caught.value) and "t.yaml" in str(caught.value)


def test_a_table_without_a_row_for_scenes_is_refused_there(tmp_path: Path) -> None:
    text = TEXT.split("  rows:")[0] + "  rows:\n    large: {scenes: null}\n"
    assert spec_of(tmp_path, text).trial_limit == 2
    with pytest.raises(InputError, match="none of them exists for scenes"):
        spec_of(tmp_path, text, "preset=scenes")


def test_a_row_of_files_is_not_trained(tmp_path: Path) -> None:
    text = TEXT.replace("    starred: {values: {preset: seam_prcm}}", "    theirs: {maps: /maps, halved: true}")
    spec = spec_of(tmp_path, text)
    assert spec.table is not None and spec.trial_limit == 6
    assert list(trained_rows(spec.table, spec.base_config)) == ["plain", "many", "large"]
    assert spec.table.rows["theirs"].imported == "/maps"


@pytest.mark.parametrize(
    ("row", "columns", "words"),
    [
        ("{maps: /m, labels: /l}", "[miou_train]", "names maps and labels; give one of them"),
        ("{labels: /l, halved: true}", "[miou_train]", "halved: says how score maps are kept"),
        ("{maps: /m}", "[miou_o]", "has no network that could be shown a pair"),
    ],
    ids=["both", "halved-labels", "pairs"],
)
def test_files_that_cannot_be_what_the_row_says(tmp_path: Path, row: str, columns: str, words: str) -> None:
    text = TEXT.partition("  rows:")[0] + f"  columns: {columns}\n  rows:\n    theirs: {row}\n"
    with pytest.raises(InputError, match=f"table.rows.theirs.*{words}"):
        spec_of(tmp_path, text)
