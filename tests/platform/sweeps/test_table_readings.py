"""What is timed for a table is one thread's work; other methods' files stand in a table like runs."""

import io
from pathlib import Path
from platform.base.paths import storage
from platform.base.terminal import Terminal
from platform.cluster.interruption import Interruption
from platform.config.identity import StudyIdentity
from platform.config.spec import load_spec
from platform.run.sweep_context import SweepContext
from platform.search.study import open_list, study_url
from platform.sweeps.table_readings import one_thread
from platform.sweeps.table_sweep import run_table_sweep
from platform.tracking.recorder import Recorder
from platform.tracking.records import Records
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from cpn.config.data import ScenesConfig
from cpn.core.files import read_json
from cpn.core.opencv import cv2
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from tests.platform.other_method import SETS, tasks_at_once, write_method

TABLE = """name: methods
table:
  title: Two methods
  seeds: 2
  against: truth
  columns: [miou_train, random_walk/miou_train, deeplab/miou_val]
  rows:
    theirs: {maps: maps}
    truth: {labels: labels}
"""


def test_one_thread_while_timing_and_as_many_as_before_after_it() -> None:
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(2)
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), one_thread():
            assert (cv2.getNumThreads(), torch.get_num_threads()) == (1, 1)
            raise KeyError
        assert (cv2.getNumThreads(), torch.get_num_threads()) == (2, 2)
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def test_two_methods_stand_in_one_table_from_files_to_deeplab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Score maps and labels through the same stages, seed by seed, beside each other; nothing is trained before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tasks_at_once(monkeypatch, tmp_path)
    write_scenes(tmp_path / "scenes", ScenesConfig(train=8, val=2, size=32))
    pack = prepare(tmp_path / "scenes", ["train", "val"])
    write_method(tmp_path, pack)
    (tmp_path / "t.yaml").write_text(TABLE)
    spec = load_spec(tmp_path / "t.yaml", [*SETS, f"data.root={pack.root}"])
    assert spec.trial_limit == 0 and spec.table is not None
    assert spec.table.rows["theirs"].maps == str(tmp_path / "maps")
    recorder = Recorder(tmp_path / "records", "http://127.0.0.1:9", spec.name, lambda line: None)
    terminal = Terminal(Console(file=io.StringIO(), width=200))
    records = Records(recorder, spec, pack.fingerprint, {})
    sweep = SweepContext(spec, pack, str(pack.root), storage("sweeps"), terminal, records, Interruption())
    trials = open_list(spec.name, study_url(spec), StudyIdentity())
    ending: Any = SimpleNamespace(note=None)
    try:
        assert run_table_sweep(sweep, trials, recorder, "command", ending) == 0
    finally:
        sweep.close()
        trials.close()
        recorder.close(0)
    found = read_json(sweep.paths.table)
    theirs, truth = (row["columns"] for row in found["rows"])
    assert truth["miou_train"]["values"] == pytest.approx([100, 100])
    assert 50 < theirs["miou_train"]["mean"] < 99 and theirs["miou_train"]["sd"] == 0
    assert all(len(row["deeplab/miou_val"]["values"]) == 2 for row in (theirs, truth)), "seeds are those of DeepLab"
    assert theirs["random_walk/miou_train"]["mean"] < truth["random_walk/miou_train"]["mean"]
    assert "Row theirs: score maps of another method" in found["words"] and found["runs"] == {}
    assert found["rows"][0]["differences"]["miou_train"]["high"] < 0
