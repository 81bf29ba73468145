"""The topic on a few scenes in place of photographs: every part, what is kept, and what goes on."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.photos import photographs, runs
from benchmarks.photos.goals import Goal
from benchmarks.photos.runs import Piece, Place
from cpn.config import config_from
from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.data.voc import open_pack
from cpn.run import run
from cpn.scoring.counts import load_counts
from cpn.scoring.metrics import BETAS
from cpn.sources.scenes import write_scenes

TINY: dict[str, Any] = {
    "data": {"crop": 49, "long_side": [49, 49]},
    "patches": {"S_N": 8},
    "train": {"epochs": 1, "batch_size": 4},
    "cam": {"long_side": 49, "scales": [1.0], "flip": False},
    "crf": {"iterations": 1},
    "affinity": {"epochs": 1, "batch_size": 4, "widths": [4, 4, 4], "radius": 2},
    "deeplab": {"iterations": 2, "batch_size": 4, "width": 8, "scales": [1.0], "test_flip": False},
}


def folder_with_scenes(root: Path) -> Path:
    """A data set in VOC layout that is not packed."""
    write_scenes(root, ScenesConfig(train=8, val=2, size=48))
    return root


def test_the_two_systems_of_prcm_differ_in_its_name_alone() -> None:
    place = Place(Path("keep"), "data", "train", {})
    assert {runs.config_of(place, name, 3).train.seed for name in runs.SYSTEMS} == {3}
    without, with_prcm = (runs.config_of(place, name, 0) for name in ("cpn", "cpn_prcm"))
    assert with_prcm.network.prcm and not without.network.prcm
    assert with_prcm == without.model_copy(update={"network": with_prcm.network})
    preset = config_from({"preset": ["official", "photos"]}, "here")
    own = preset.network.prcm
    system = runs.config_of(place, "cpn_prcm" if own else "cpn", preset.train.seed)
    assert system.model_copy(update={"data": preset.data}) == preset, "what is measured is what the preset does"
    assert runs.preset_system(place) == ("cpn_prcm" if own else "cpn")
    assert runs.preset_system(Place(Path("keep"), "data", "train", {"network": {"prcm": not own}})) != (
        "cpn_prcm" if own else "cpn"
    )


def test_parts_take_what_they_need_and_each_piece_once() -> None:
    def pieces(*parts: str) -> list[tuple[str, str, int, int]]:
        steps = photographs.plan(parts, 2, 3, "cpn")
        return [(p.kind, p.system, p.seed, p.init) for step in steps for p in step]

    everything = pieces(*photographs.PARTS)
    assert len(everything) == len(set(everything)) == 1 + 2 * 4 + 2 * 3 + 2 * 2
    assert {p[1] for p in pieces("stages") if p[0] == "run"} == {"cam_baseline", "cpn"}
    assert {p[1] for p in pieces("controls") if p[0] == "run"} == {"cam_baseline", "control_pair"}
    assert not [p for p in pieces("cam") if p[0] in ("init", "stages")]


def test_what_to_type_next() -> None:
    options = argparse.Namespace(data=Path("a b"), seeds=2, inits=5, keep=Path("k"), over="{}", jobs=1)
    place = Place(Path("k"), "/packed", "train", {})
    unrun, missed, met = Goal("a", 4, None), Goal("a", 4, 1.0), Goal("a", 4, 5.0)
    assert photographs.next_line(options, ["cam"], [unrun, met], place) == (
        "python -m benchmarks photographs --data 'a b' --seeds 2 --keep k --only controls stages"
    )
    assert "refinement_losses --data 'a b'" in photographs.next_line(options, photographs.PARTS, [missed], place)
    sweep = photographs.next_line(options, photographs.PARTS, [met], place)
    assert "--set preset=photos --set data.root=/packed --set data.train=train" in sweep


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    words = ["photographs", "--data", str(tmp_path), "--keep", str(tmp_path.parent / "keep")]
    with pytest.raises(InputError, match="--over: '3' is no JSON object"):
        main([*words, "--over", "3"])
    with pytest.raises(InputError, match="at least 1"):
        main([*words, "--seeds", "0"])
    with pytest.raises(InputError, match="lies inside --data"):
        main([*words[:3], "--keep", str(tmp_path / "keep")])
    with photographs.alone(tmp_path / "held"), pytest.raises(InputError, match="another command works there"):
        main([*words[:3], "--keep", str(tmp_path / "held")])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_part_from_nothing_but_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_with_scenes(tmp_path / "scenes")
    before = sorted(path.relative_to(data) for path in data.rglob("*"))
    words = ["photographs", "--data", str(data), "--keep", str(tmp_path / "keep"), "--seeds", "1", "--inits", "2"]
    words += ["--over", json.dumps(TINY), "--json"]
    main([*words, "--only", "cam"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2].startswith("next: ") and printed[-2].endswith("--only controls stages")
    assert {line["verdict"] for line in json.loads(printed[-1])["goals"][1:3]} == {"not run"}
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "keep").glob("runs/*/result.json")}
    assert len(kept) == 3

    main([*words, "--only", "controls", "stages"])
    printed = capsys.readouterr().out.splitlines()
    found = json.loads(printed[-1])
    assert sorted(path.relative_to(data) for path in data.rglob("*")) == before  # nothing was written there
    assert all(path.stat().st_mtime_ns == was for path, was in kept.items())  # finished runs are read
    goals, rows = found["goals"], found["runs"]
    assert [line["verdict"] for line in goals].count("not run") == 0
    assert sum(found[name] for name in ("met", "missed", "undecided")) == len(goals)
    by_name = {(row["system"], row["init"]): row for row in rows}
    assert set(by_name) == {(name, 0) for name in runs.SYSTEMS} | {("control_pcm", 1)}
    controls = [by_name["control_pcm", init]["miou_confirm"] for init in range(2)]
    own = by_name[found["cpn"], 0]
    assert goals[0]["reached"] == pytest.approx(own["miou_confirm"] - by_name["cam_baseline", 0]["miou_confirm"])
    assert goals[2]["reached"] == pytest.approx(own["miou_confirm"] - np.mean(controls))
    assert goals[4]["reached"] == pytest.approx(own["random_walk/miou_confirm"] - own["miou_confirm"])
    deeplab = [row["deeplab/miou_val"] for row in (own, by_name["cam_baseline", 0])]
    assert goals[5]["reached"] == pytest.approx(deeplab[0] - deeplab[1])
    assert all(row["cpu_minutes"] > 0 for row in rows) and any("min left" in line for line in printed)

    # The run of control_pcm, trained in full, is init 0.
    place = Place(tmp_path / "keep", str(tmp_path / "keep" / "data"), "trainaug", TINY)
    pack = open_pack(place.data)
    folder = runs.init_folder(place, 0, 0, pack)
    config = runs.config_of(place, "control_pcm", 0)
    torch.set_num_threads(1)
    whole = run(config, pack, tmp_path / "whole", cache=place.cache, device=torch.device("cpu"), report=lambda e: None)
    assert whole.metrics["miou_confirm"] == pytest.approx(controls[0])
    np.testing.assert_array_equal(
        load_counts(tmp_path / "whole" / runs.COUNTS)[1], load_counts(folder / runs.COUNTS)[1]
    )
    other = load_counts(runs.init_folder(place, 0, 1, pack) / runs.COUNTS)[1]
    assert other.shape[1] == len(BETAS) and not np.array_equal(other, load_counts(folder / runs.COUNTS)[1])
    assert photographs.is_done(Piece("stages", found["cpn"], 0), place, pack)
