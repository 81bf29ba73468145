"""What the report says: of long sweeps a part, and that it is one; words for every figure that is missing."""

import base64
from dataclasses import replace
from pathlib import Path
from platform.base.paths import Storage, storage
from platform.reports.context import LISTED, context, efficiency_words, picture_of, pictures, stage_folders, tiles
from platform.reports.snapshot import SweepSnapshot
from platform.reports.throughput import Throughput
from platform.search.study import State

import numpy as np

from cpn.core.files import write_bytes
from cpn.data.voc import encode_mask
from cpn.scoring.run_manifest import RunManifest
from cpn.stages.pipeline import stage_keys

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + (640).to_bytes(4, "big") + (480).to_bytes(4, "big")
"""The head of a picture of 640 x 480 pixels."""


def test_of_many_trials_some_are_listed_and_it_is_said(sweep: SweepSnapshot) -> None:
    many = [replace(sweep.rows[i % 5], number=i, uid=f"made-{i:04d}") for i in range(700)]
    found = context(replace(sweep, rows=many), None, "command")
    assert len(found["leaderboard"]["rows"]) == LISTED
    assert f"The first {LISTED} of 700 trials" in found["leaderboard"]["words"]
    captions = " ".join(item["caption"] for item in found["search_charts"])
    assert "500 of 700 full trials are drawn: the best 250 and an even choice of the others" in captions


def test_failed_confirm_runs_are_in_the_report(sweep: SweepSnapshot) -> None:
    lost = replace(sweep.again[0], state=State.FAIL, reason="out of memory")
    made = context(replace(sweep, again=[lost, *sweep.again[1:]]), None, "x")
    assert made["confirm_failed"].startswith(f"1 of {len(sweep.again)} confirm runs failed: {lost.uid} (")
    assert made["counts"].endswith("1 more failed") and context(sweep, None, "x")["confirm_failed"] is None


def test_tiles_before_and_after_the_end(sweep: SweepSnapshot) -> None:
    assert [tile["value"] for tile in tiles(sweep, None)] == ["36.0", "42.9", "58.0", "61.2", "0.50"]
    before = tiles(replace(sweep, summary=None), sweep.rows[0])
    assert [tile["what"] for tile in before] == ["best trial, miou % (select)", "wall-clock hours"]


def test_stages_of_the_best_run_are_found_by_their_keys(sweep: SweepSnapshot, made: Storage) -> None:
    row = sweep.rows[0]
    keys = stage_keys("0" * 64, sweep.config(row), sweep.fingerprint)
    assert stage_folders(sweep, row)["crf"] == made.stage("crf", keys["crf"])
    assert stage_folders(sweep, sweep.rows[5]) == {}


def ran(**entry: float) -> RunManifest:
    """A run of one epoch, with this entry."""
    return RunManifest(key="k", history=(entry,), metrics={}, digests={})


def test_scaling_in_words() -> None:
    measured = Throughput(3, 40.0, 38.0, 42.0, None)
    assert efficiency_words(measured, 4, ran(images_per_s=12.5)).startswith("80%: 40.0 images/s on 4")
    assert efficiency_words(measured, 4, None).startswith("not measured: train one run alone")
    assert efficiency_words(None, 4, ran(images_per_s=12.5)).startswith("not measured")
    assert efficiency_words(measured, 4, ran()).startswith("not measured")


def test_the_panel_beside_cam_baseline_replaces_the_runs_own(
    sweep: SweepSnapshot, made: Storage, tmp_path: Path
) -> None:
    row, elsewhere = sweep.rows[0], replace(sweep, store=storage(str(tmp_path)))
    own, beside = (encode_mask(np.full((4, 4), value, np.uint8)) for value in (1, 2))
    for data, folder in (
        (own, elsewhere.folder(row) / "pictures"),
        (beside, elsewhere.store.sweep("made").panels / row.uid),
    ):
        write_bytes(folder / "cam_panel.png", data)
    drawn = pictures(elsewhere, row)[0]["pictures"]
    assert [base64.b64decode(picture["data"]) for picture in drawn] == [beside]


def test_a_pictures_size_is_read_from_its_head() -> None:
    assert {k: picture_of(PNG, "words")[k] for k in ("width", "height", "alt")} == {
        "width": 640,
        "height": 480,
        "alt": "words",
    }
