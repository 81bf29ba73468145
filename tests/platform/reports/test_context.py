"""What the report says: of long sweeps a part, and that it is one; words for every figure that is missing."""

import base64
import io
from dataclasses import replace
from pathlib import Path
from platform.base.paths import Storage, storage
from platform.reports.context import (
    LISTED,
    ReportContext,
    context,
    efficiency_words,
    leaderboard,
    picture_of,
    pictures,
    stage_folders,
    tiles,
)
from platform.reports.page import TEMPLATE
from platform.reports.ranking import ranking
from platform.reports.snapshot import SweepSnapshot
from platform.reports.throughput import Throughput
from platform.search.study import State
from typing import Any

import jinja2
import numpy as np
from jinja2 import meta
from numpy.typing import NDArray
from PIL import Image

from cpn.core.files import write_bytes
from cpn.data.voc import encode_mask, palette
from cpn.scoring.run_manifest import RunManifest
from cpn.stages.pipeline import stage_keys


def decoded(picture: dict[str, Any]) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of a picture of the page."""
    with Image.open(io.BytesIO(base64.b64decode(picture["data"])), formats=(picture["kind"].upper(),)) as opened:
        return np.asarray(opened.convert("RGB"))


def png(image: NDArray[np.uint8]) -> bytes:
    """An image (H, W, 3) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_of_many_trials_some_are_listed_and_it_is_said(sweep: SweepSnapshot) -> None:
    many = [replace(sweep.rows[i % 5], number=i, uid=f"made-{i:04d}") for i in range(700)]
    found = context(replace(sweep, rows=many), None, "command")
    assert len(found["leaderboard"]["rows"]) == LISTED
    assert f"The first {LISTED} of 700 trials" in found["leaderboard"]["words"]
    captions = " ".join(item["caption"] for item in found["search_charts"])
    assert "500 of 700 full trials are drawn: the best 250 and an even choice of the others" in captions


def test_the_template_shows_what_the_context_holds(sweep: SweepSnapshot) -> None:
    names = set(ReportContext.__annotations__)
    assert set(context(sweep, None, "x")) == names
    template = jinja2.Environment(autoescape=True).parse(TEMPLATE.read_text(encoding="utf-8"))
    assert meta.find_undeclared_variables(template) == names | {"plotly", "chart_config"}


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
    own, beside = (encode_mask(np.full((32, 32), value, np.uint8)) for value in (1, 2))
    for data, folder in (
        (own, elsewhere.folder(row) / "pictures"),
        (beside, elsewhere.store.sweep("made").panels / row.uid),
    ):
        write_bytes(folder / "cam_panel.png", data)
    [drawn] = pictures(elsewhere, row)[0]["pictures"]
    assert decoded(drawn).shape == (32, 32, 3) and np.abs(decoded(drawn).astype(int) - palette()[2]).max() < 8
    assert drawn["look"].startswith("Look for maps that cover the whole object")


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


def test_the_leaderboard_has_a_column_for_each_name(sweep: SweepSnapshot) -> None:
    made = leaderboard(sweep, ranking(sweep))
    assert made["heads"] == [
        "#", "trial", "state", "miou % (train, select)", "confirmed % (train, confirm)", "against the reference",
        "kind", "S_N", "p_h", "w_tcp", "K", "beta", "seeds", "hours",
    ]  # fmt: skip
    winner, failed = made["rows"][1], made["rows"][-1]
    assert [cell["text"] for cell in winner["cells"]][1:7] == [
        "made-0019", "complete, winner", "52.3", "42.9 [40.9, 44.9]", "+1.9 [0.7, 3.1]", "superpixel",
    ]  # fmt: skip
    assert [cell["key"] for cell in winner["cells"]][4:8] == ["42.9", "1.9", "superpixel", "32"]
    assert failed["state"] == "fail" and failed["cells"][3] == {"text": "-", "key": ""}


def test_a_running_sweep_has_a_timeline(sweep: SweepSnapshot) -> None:
    charts = context(replace(sweep, state="running"), None, "x")["cost"]["charts"]
    assert [chart["title"] for chart in charts] == ["What ran when", "What the hours went to"]
    assert "1 worker(s) with 0 GPU(s)" in charts[0]["caption"]
