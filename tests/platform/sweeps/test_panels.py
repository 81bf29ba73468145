"""Trials' panels beside cam_baseline: one for every finished trial, none before cam_baseline has run."""

from pathlib import Path
from platform.search.study import State, TrialRow
from platform.sweeps.panels import compared_panels

import numpy as np
import pytest

from cpn.config.data import ScenesConfig
from cpn.core.files import write_json
from cpn.data.voc import Pack
from cpn.plots.run_pictures import PanelImage, save_panel
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("panels") / "scenes"
    write_scenes(root, ScenesConfig(train=3, val=1, size=32))
    return prepare(root, ["train"])


def row(number: int, state: State = State.COMPLETE, role: str = "search") -> TrialRow:
    return TrialRow(number, f"{role}-{number}", state, {}, 0, role)


def finish(folder: Path, pack: Pack, level: int, objective: str = "cpn") -> None:
    flat = np.full((32, 32), level, np.uint8)
    arrays = {"CAM": flat, "mask": np.zeros((32, 32), np.uint8)}
    save_panel(folder / "panel.npz", [PanelImage(pack.split("train").ids[0], "large object", arrays)])
    config = {"data": {"score": "train"}, "train": {"objective": objective}}
    manifest = {"key": folder.name, "history": [], "config": config, "metrics": {"beta": 0.5}, "digests": {}}
    write_json(folder / "result.json", manifest)


def test_every_finished_trial_gets_its_panel_once(pack: Pack, tmp_path: Path) -> None:
    rows = [row(0), row(1, State.PRUNED), row(2), row(3)]
    again = [row(0, State.FAIL, "cam_baseline"), row(1, role="cam_baseline")]

    def folder_of(row: TrialRow) -> Path:
        return tmp_path / "runs" / row.uid

    for uid, level in (("search-0", 100), ("search-1", 100), ("search-2", 100)):  # 3: a run without maps
        finish(tmp_path / "runs" / uid, pack, level)
    out = tmp_path / "panels"
    assert list(compared_panels(rows, again, folder_of, pack, out)) == []
    finish(tmp_path / "runs" / "cam_baseline-1", pack, 200, "classification")
    made = dict(compared_panels(rows, again, folder_of, pack, out))
    assert set(made) == {"search-0", "search-2"}
    assert made["search-0"] == out / "search-0" / "cam_panel.png"
    drawn = {uid: (path.stat().st_mtime_ns, path.read_bytes()) for uid, path in made.items()}
    made["search-2"].write_bytes(drawn["search-2"][1][:-9])  # damaged: it is drawn again
    assert dict(compared_panels(rows, again, folder_of, pack, out)) == made
    assert made["search-0"].stat().st_mtime_ns == drawn["search-0"][0], "a whole one is not"
    assert made["search-2"].read_bytes() == drawn["search-2"][1]


def test_of_a_damaged_run_no_panel_is_drawn_and_that_is_said(pack: Pack, tmp_path: Path) -> None:
    for uid in ("search-0", "cam_baseline-1"):
        finish(tmp_path / uid, pack, 100, "cpn")
    (tmp_path / "search-0/result.json").write_text("{")
    lines: list[str] = []
    rows, again = [row(0)], [row(1, role="cam_baseline")]
    assert dict(compared_panels(rows, again, lambda r: tmp_path / r.uid, pack, tmp_path / "out", lines.append)) == {}
    assert len(lines) == 1 and "search-0/result.json: missing or damaged" in lines[0]
