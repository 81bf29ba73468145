"""The rehearsal of the true size: all parts at a small one, parts that are done, the time left, the settings."""

import json
import re
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from benchmarks import __main__ as command
from benchmarks.method import rehearsal
from benchmarks.method.rehearsal import PARTS, Place
from cpn.core.errors import WorkError
from cpn.core.files import read_json, write_json
from cpn.scoring.selection import select_and_confirm

ROW = {"what": "", "cpu_minutes": 2.0, "wall_minutes": 3.0, "peak_gib": 0.5, "found": {"beta": 0.5}}


class SameProcess:
    """In place of a part's process: this one, which has torch imported already."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *arguments: object) -> None:
        pass

    def submit(self, work: object, name: str, place: Place) -> Any:
        assert work is rehearsal.in_own_process
        return SimpleNamespace(result=lambda: rehearsal.measured(name, place))


def folder(keep: Path) -> Path:
    (found,) = keep.iterdir()
    return found


def test_every_part_runs_at_a_small_size_and_is_not_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rehearsal, "ProcessPoolExecutor", SameProcess)
    words = ["rehearsal", "--quick", "--json", "--keep", str(tmp_path / "kept")]
    assert command.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    first = json.loads(lines[-1])
    assert [row["part"] for row in first["rows"]] == list(PARTS)
    assert lines[-2].startswith("next: python -m cpn.download ")
    assert lines[0] == "step-cpn: CPN, three branches: one step (1 of 12)"
    assert re.fullmatch(r"step-affinity: AffinityNet: one step \(2 of 12; about \d+ min left\)", lines[2])
    for row in first["rows"]:
        assert row["cpu_minutes"] > 0 and row["wall_minutes"] > 0 and row["peak_gib"] > 0.1
    place = folder(tmp_path / "kept")
    assert len(list((place / "stage-random_walk").glob("*.png"))) == 2
    assert {"miou_val", "miou_val_crf"} <= first["rows"][-1]["found"].keys()

    # What was stopped is begun again; what it left counts for nothing.
    (place / "deeplab.json").unlink()
    (place / "stage-deeplab" / "model.safetensors").write_bytes(b"")
    write_json(place / "cam.json", {**ROW, "what": "kept"})
    assert command.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    second = json.loads(lines[-1])
    assert sum(": done before, " in line for line in lines) == len(PARTS) - 1
    rows = dict(zip(PARTS, second["rows"], strict=True))
    assert rows["cam"] == {**ROW, "part": "cam", "what": "kept"}
    assert rows["deeplab"]["found"] == first["rows"][-1]["found"]
    assert second["cpu_minutes"] == pytest.approx(sum(row["cpu_minutes"] for row in second["rows"]))
    assert (place / "stage-deeplab" / "model.safetensors").stat().st_size > 0


def test_a_part_has_a_process_of_its_own(tmp_path: Path) -> None:
    row = rehearsal.done("data", Place(tmp_path, True))
    assert row["found"] == {"images": 2} and read_json(tmp_path / "data.json")["found"] == {"images": 2}


def test_a_killed_part_is_told_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed() -> None:
        raise BrokenProcessPool("a process ended abruptly")

    monkeypatch.setattr(SameProcess, "submit", lambda *arguments: SimpleNamespace(result=killed))
    monkeypatch.setattr(rehearsal, "ProcessPoolExecutor", SameProcess)
    with pytest.raises(WorkError, match="^step-cpn: its process was killed, most likely for memory: free some"):
        rehearsal.done("step-cpn", Place(tmp_path, True))
    assert not list(tmp_path.iterdir())


def test_time_left_follows_what_was_done() -> None:
    whole = sum(part.share for part in PARTS.values())
    rows = [{**ROW, "part": "step-cpn"}]
    assert rehearsal.minutes_left([]) is None
    assert rehearsal.minutes_left(rows) == pytest.approx(3 * (whole / PARTS["step-cpn"].share - 1))
    assert rehearsal.minutes_left([{**ROW, "part": name} for name in PARTS]) == pytest.approx(0)


def test_the_table_ends_with_sums_and_the_largest_peak() -> None:
    rows = [{**ROW, "part": "run", "what": "a"}, {**ROW, "part": "cam", "what": "b", "peak_gib": 1.25}]
    assert rehearsal.table(rows)[2:] == [
        "| run | a | 2.0 | 3.0 | 0.50 |",
        "| cam | b | 2.0 | 3.0 | 1.25 |",
        "| in all |  | 4.0 | 6.0 | 1.25 |",
    ]


def test_the_size_is_the_official_one() -> None:
    config = rehearsal.config_of(Place(Path("kept"), False))
    assert (config.network.backbone, config.data.crop, config.patches.kind) == ("resnet38", 448, "superpixel")
    assert (config.irn.crop, config.network.weights, config.deeplab.crop) == (448, None, None)
    assert (len(config.cam.scales), len(config.deeplab.scales or ()), config.cam.flip) == (4, 6, True)
    assert config.train.batch_size == config.affinity.batch_size == config.irn.batch_size == 1
    assert [len(part) for part in select_and_confirm(list(rehearsal.IMAGES), config.cam)] == [1, 1]
