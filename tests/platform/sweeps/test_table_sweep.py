"""Tables through the real command: rows, seeds, pairs, stages, panel; killed once; another takes its runs over."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from platform.base.paths import storage
from platform.config.identity import StudyIdentity
from platform.config.spec import load_spec
from platform.reports.table_result import ColumnValues, Difference, TableResult, TableRow
from platform.run import sweep_context, trial_loop
from platform.search.study import open_list, study_url
from platform.sweeps import run_sweep
from platform.sweeps.table_sweep import keep_pictures, runs_of, stage_pictures, table_entries, table_words
from types import SimpleNamespace

import pytest

from cpn.core.files import write_bytes
from cpn.stages.stage_manifest import StageManifest
from tests.conftest import CHECKOUT
from tests.platform.machines import Machines
from tests.test_smoke import read_until

BASE = """
base:
  preset: [official, scenes]
  data: {scenes: {train: 16, val: 6, seed: 3}}
  network: {weights: null}
  train: {epochs: 2, batch_size: 4}
  affinity: {epochs: 1, batch_size: 4}
  deeplab: {iterations: 4, batch_size: 4, width: 8, scales: [1.0]}
resources: {gpus_per_worker: 0, workers: 1}
"""
FIRST = f"""name: first
{BASE}
table:
  title: A small table
  seeds: 2
  against: plain
  panel: true
  columns: [by_scale, iou_foreground, patch_ms]
  rows:
    plain: {{values: {{preset: cam_baseline}}, published: {{scale all: 47.84}}}}
    grid: {{values: {{preset: cpn_grid}}}}
"""
SECOND = f"""name: second
{BASE}
table:
  title: Another one
  seeds: 1
  columns: [miou_train, miou_o, recall_o, recall_pair, recall_gain, deeplab/miou_val_crf]
  rows:
    cells of 8: {{values: {{preset: cam_baseline}}, pair: {{kind: grid, K: [8]}}}}
    cells of 32: {{values: {{preset: cam_baseline}}, pair: {{kind: grid, K: [32]}}}}
"""


def start(folder: Path, spec: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "platform.sweep", spec],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_killed_table_goes_on_and_another_takes_its_runs_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "first.yaml").write_text(FIRST)
    (tmp_path / "second.yaml").write_text(SECOND)
    killed = start(tmp_path, "first.yaml")
    read_until(killed, "complete", 300)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("sweeps/runs/*/result.json")}
    assert before, "the kill came before the first run was kept"
    again = start(tmp_path, "first.yaml")
    output, _ = again.communicate(timeout=500)
    assert again.returncode == 0, output
    assert all(path.stat().st_mtime_ns == when for path, when in before.items()), "a finished run was run again"

    first = json.loads((tmp_path / "sweeps/first/table.json").read_text())
    plain, grid = first["rows"]
    assert first["columns"] == ["scale 1", "scale 2", "scale all", "iou_foreground", "patch_ms"]
    assert len(first["runs"]) == 4 and not first["unfinished"]
    assert all(len(row["columns"]["scale all"]["values"]) == 2 for row in first["rows"])
    assert grid["differences"]["scale all"]["low"] is not None and "Verdict, scale 1 against plain: " in first["words"]
    assert plain["columns"]["patch_ms"]["mean"] == 0.0, "without patches nothing is timed"
    assert all(ms != 0.0 for ms in grid["columns"]["patch_ms"]["values"])  # how long is for benchmarks to say
    assert "compare the order of the rows" in " ".join(output.split()) and "47.84" in output
    assert (tmp_path / "sweeps/first/panel.png").read_bytes()[:4] == b"\x89PNG"
    assert "| grid |" in (tmp_path / "sweeps/first/table.md").read_text()

    # On Ray it does what the first did, and the stages of a search; here its part is in this process.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_context, "ray_cluster", lambda *_: nullcontext([{"CPU": 1.0}]))
    machines = Machines(monkeypatch, tmp_path)
    monkeypatch.setattr(trial_loop, "run_trials", machines.run_trials)
    assert run_sweep.run_sweep(load_spec(Path("second.yaml")), "again") == 0
    assert "training_task" in machines.said
    second = json.loads((tmp_path / "sweeps/second/table.json").read_text())
    small, large = second["rows"]
    assert len(list(tmp_path.glob("sweeps/runs/*/result.json"))) == 4, "the row of the first table was trained again"
    assert small["columns"]["miou_o"] == large["columns"]["miou_o"]
    assert small["columns"]["recall_pair"] != large["columns"]["recall_pair"]
    for row in (small, large):
        recall = {name: row["columns"][f"recall_{name}"]["mean"] for name in ("o", "pair", "gain")}
        assert recall["gain"] == recall["pair"] - recall["o"]
    assert small["columns"]["deeplab/miou_val_crf"]["mean"] > 0
    assert [(tmp_path / f"sweeps/second/{stage}.png").read_bytes()[:4] for stage in ("random_walk", "deeplab")] == [
        b"\x89PNG"
    ] * 2
    assert small["columns"]["miou_train"]["mean"] == plain["columns"]["scale all"]["values"][0]

    monkeypatch.setattr(sweep_context, "ray_cluster", lambda *_: pytest.fail("Ray was to be started"))
    assert run_sweep.run_sweep(load_spec(Path("second.yaml")), "again") == 0, "once more does nothing"


def test_seeds_come_before_rows() -> None:
    entries = table_entries(load_spec(CHECKOUT / "search_spaces" / "table4.yaml", ["table.seeds=2", "train.seed=7"]))
    assert [(entry["row"], entry["seed"]) for entry in entries[:6]] == [
        ("p_h .1", 7), ("p_h .2", 7), ("p_h .3", 7), ("p_h .4", 7), ("p_h .5", 7), ("p_h .1", 8),
    ]  # fmt: skip
    assert entries[0]["values"] == {"patches.p_h": 0.1, "train.seed": 7}


def test_a_row_that_was_changed_shows_its_new_runs_alone(tmp_path: Path) -> None:
    spec = load_spec(CHECKOUT / "search_spaces" / "table4.yaml", [f"resources.storage={tmp_path}", "table.seeds=1"])
    before = table_entries(spec)
    trials = open_list("table4", study_url(spec), StudyIdentity())
    trials.enqueue(before)
    after = [{**entry, "values": {**entry["values"], "patches.p_h": 0.15}} for entry in before[:1]] + before[1:]
    trials.enqueue(after)
    assert len(trials.rows()) == 6
    assert [(row.attrs["row"], row.values.get("patches.p_h", 0.5)) for row in runs_of(after, trials.rows())] == [
        ("p_h .2", 0.2), ("p_h .3", 0.3), ("p_h .4", 0.4), ("p_h .5", 0.5), ("p_h .1", 0.15),
    ]  # fmt: skip


def test_pictures_are_those_of_the_stages_as_they_are(tmp_path: Path) -> None:
    sweep = SimpleNamespace(store=storage(str(tmp_path)), paths=storage(str(tmp_path)).sweep("t"))
    for key in ("old", "new"):
        for stage in ("random_walk", "deeplab"):
            write_bytes(sweep.store.stage(stage, key) / "pictures" / f"{stage}.png", key.encode())
        made = {s: StageManifest(stage=s, key=key, metrics={}) for s in ("random_walk", "deeplab")}
        keep_pictures(sweep, made)  # type: ignore[arg-type]
    assert [path.read_bytes() for path in stage_pictures(sweep.paths.root)] == [b"new", b"new"]


def test_a_row_with_fewer_seeds_says_so() -> None:
    columns = {"miou_train": ColumnValues(values=(1.0,), mean=1.0, sd=None)}
    rows = tuple(TableRow(name=name, seeds=seeds, columns=columns) for name, seeds in (("a", (0,)), ("b", (0, 1))))
    result = TableResult(rows=rows, columns=("miou_train",), seeds=2, scenes=True)
    assert "Rows with fewer runs: a 1." in table_words(result)


@pytest.mark.parametrize(("seeds", "words"), [(1, "Differences are of one seed."), (2, "with 95 % intervals")])
def test_intervals_are_told_where_there_are_some(seeds: int, words: str) -> None:
    differences = {"miou_train": Difference(difference=1.0, low=None, high=None)}
    rows = (TableRow(name="a", columns={}), TableRow(name="b", columns={}, against="a", differences=differences))
    assert words in table_words(TableResult(rows=rows, columns=("miou_train",), seeds=seeds))
