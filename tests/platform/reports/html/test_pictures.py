"""The report's pictures: which, from where, and in which form."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from platform.base.paths import Storage, storage
from platform.reports.html.pictures import picture, picture_of, pictures, stage_folders
from platform.reports.snapshot import SweepSnapshot
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cpn.core.files import write_bytes
from cpn.data.voc import encode_mask, palette
from cpn.stages.stage_manifest import stage_keys
from tests.platform.made_sweep import PANEL_PLACES


def decoded(picture: dict[str, Any]) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of a picture of the page."""
    with Image.open(io.BytesIO(base64.b64decode(picture["data"])), formats=(picture["kind"].upper(),)) as opened:
        return np.asarray(opened.convert("RGB"))


def png(image: NDArray[np.uint8]) -> bytes:
    """An image (H, W, 3) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_stages_of_the_best_run_are_found_by_their_keys(sweep: SweepSnapshot, made: Storage) -> None:
    row = sweep.rows[0]
    keys = stage_keys("0" * 64, sweep.config(row), sweep.fingerprint)
    assert stage_folders(sweep, row)["crf"] == made.stage("crf", keys["crf"])
    assert stage_folders(sweep, sweep.rows[5]) == {}


def test_the_panel_beside_cam_baseline_replaces_the_runs_own(
    sweep: SweepSnapshot, made: Storage, tmp_path: Path
) -> None:
    row, elsewhere = sweep.rows[0], replace(sweep, store=storage(str(tmp_path)))
    own, beside = (encode_mask(np.full((32, 32), value, np.uint8)) for value in (1, 2))
    for data, folder in (
        (own, elsewhere.folder(row) / "pictures"),
        (beside, elsewhere.store.sweep("made").panels / row.uid),
    ):
        write_bytes(folder / "cam_panel.png", data)
    [drawn] = pictures(elsewhere, row)[0]["pictures"]
    assert decoded(drawn).shape == (32, 32, 3) and np.abs(decoded(drawn).astype(int) - palette()[2]).max() < 8
    assert drawn["look"].startswith("Look for maps that cover the whole object")


def test_only_panels_say_where_their_images_are(sweep: SweepSnapshot, tmp_path: Path) -> None:
    [drawn] = pictures(sweep, sweep.rows[0])[0]["pictures"]
    assert json.loads(drawn["places"]) == PANEL_PLACES
    write_bytes(tmp_path / "beta_curve.png", png(np.zeros((4, 4, 3), np.uint8)))
    assert picture(tmp_path / "beta_curve.png", "x")["places"] == "[]"


def test_pictures_are_webp_where_that_is_smaller() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    shown = picture_of(png(noise), "words")
    assert (shown["kind"], shown["width"], shown["height"], shown["alt"]) == ("webp", 64, 48, "words")
    assert decoded(shown).shape == (48, 64, 3) and len(shown["data"]) < len(png(noise))
    flat = io.BytesIO()
    Image.fromarray(np.indices((256, 256)).sum(0).astype(np.uint8) % 2 * 255).convert("1").save(flat, "PNG")
    assert picture_of(flat.getvalue(), "words")["kind"] == "png", "a chessboard of pixels"


def test_the_next_trials_panels_are_there_to_compare(sweep: SweepSnapshot) -> None:
    best = sweep.by_uid["made-0019"]
    groups = pictures(sweep, best)
    assert [group["title"] for group in groups if group["folded"]] == [
        "made-0008",
        "made-0017",
        "made-0002",
    ]
    assert {picture["name"] for group in groups if group["folded"] for picture in group["pictures"]} == {"cam_panel"}
