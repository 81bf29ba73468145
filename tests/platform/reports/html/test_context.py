"""What the report says: of long sweeps a part, and that it is one; words for every figure that is missing."""

from dataclasses import replace
from platform.config.spec import load_spec
from platform.reports.html.context import (
    LISTED,
    a_trial_runs_on,
    context,
    efficiency_words,
    leaderboard,
    missing,
    space,
    tiles,
)
from platform.reports.ranking import ranking
from platform.reports.snapshot import SweepSnapshot
from platform.reports.throughput import Throughput
from platform.search.study import State

from cpn.scoring.run_manifest import RunManifest
from tests.conftest import CHECKOUT


def test_of_many_trials_some_are_listed_and_it_is_said(sweep: SweepSnapshot) -> None:
    many = [replace(sweep.rows[i % 5], number=i, uid=f"made-{i:04d}") for i in range(700)]
    found = context(replace(sweep, rows=many), None, "command")
    *listed, last = found["leaderboard"]["rows"]
    assert len(listed) == LISTED and last["marks"] == ["baseline"]
    assert f"The first {LISTED} of 700 trials" in found["leaderboard"]["words"]
    captions = " ".join(item["caption"] for item in found["search_charts"])
    assert "500 of 700 complete trials are drawn: the best 250 and an even choice of the others" in captions


def test_failed_confirm_runs_are_in_the_report(sweep: SweepSnapshot) -> None:
    lost = replace(sweep.again[0], state=State.FAIL, reason="out of memory")
    made = context(replace(sweep, again=[lost, *sweep.again[1:]]), None, "x")
    assert made["confirm_failed"].startswith(f"1 of {len(sweep.again)} confirm runs failed: {lost.uid} (")
    assert made["counts"].endswith("1 more failed") and context(sweep, None, "x")["confirm_failed"] is None


def test_why_the_search_ended_early_is_in_the_report(sweep: SweepSnapshot) -> None:
    early = replace(sweep, stopped="another 8 GPU-hours are expected to gain 0.05 mIoU: stopping")
    assert context(early, None, "x")["stopped"] == early.stopped and context(sweep, None, "x")["stopped"] is None


def test_a_value_without_effect_is_not_the_references(sweep: SweepSnapshot) -> None:
    spec = load_spec(CHECKOUT / "search_spaces/quickstart.yaml", [])
    reference = {row[0]: row[2] for row in space(replace(sweep, spec=spec), None)["rows"]}
    assert (reference["patches.S_N"], reference["patches.K"]) == ("120", "-"), "it has superpixels, and no grid"
    assert reference["cam.beta"] == "0.5"


def test_tiles_before_and_after_the_end(sweep: SweepSnapshot) -> None:
    assert [tile["value"] for tile in tiles(sweep, None)] == ["36.0", "42.9", "58.0", "61.2", "0.50"]
    before = tiles(replace(sweep, summary=None), sweep.rows[0])
    assert [tile["what"] for tile in before] == ["best trial, mIoU % (select)", "wall-clock hours"]


def ran(**entry: float) -> RunManifest:
    """A run of one epoch, with this entry."""
    return RunManifest(key="k", history=(entry,), metrics={}, digests={})


def test_scaling_in_words() -> None:
    measured = Throughput(3, 40.0, 38.0, 42.0, None)
    assert efficiency_words(measured, 4, ran(images_per_s=12.5)).startswith("80%: 40.0 images/s on 4")
    assert efficiency_words(measured, 4, None).startswith("not measured: train one run alone")
    assert efficiency_words(None, 4, ran(images_per_s=12.5)).startswith("not measured")
    assert efficiency_words(measured, 4, ran()).startswith("not measured")


def test_the_leaderboard_has_a_column_for_each_name(sweep: SweepSnapshot) -> None:
    made = leaderboard(sweep, ranking(sweep))
    assert made["heads"] == [
        "#", "trial", "state", "miou % (train, select)", "confirmed % (train, confirm)", "against the reference",
        "kind", "S_N", "p_h", "w_tcp", "K", "beta", "seeds", "hours",
    ]  # fmt: skip
    winner, *_, failed, baseline = made["rows"][1:]
    assert [cell["text"] for cell in winner["cells"]][1:7] == [
        "made-0019", "complete, winner", "52.3", "42.9 [40.9, 44.9]", "+1.9 [0.7, 3.1]", "superpixel",
    ]  # fmt: skip
    assert [cell["key"] for cell in winner["cells"]][4:8] == ["42.9", "1.9", "superpixel", "32"]
    assert failed["state"] == "fail" and failed["cells"][3] == {"text": "-", "key": ""}
    assert [cell["text"] for cell in baseline["cells"]][:6] == ["-", "cam_baseline", "complete, baseline", "-",
                                                                baseline["cells"][4]["text"], "-"]  # fmt: skip
    assert baseline["cells"][4]["text"].startswith("36.0") and baseline["cells"][-2]["text"] == "3"
    assert [row["marks"] for row in leaderboard(replace(sweep, summary=None), ranking(sweep))["rows"]].count(
        ["baseline"]
    ) == 0, "before it ran"


def test_what_a_trial_runs_on_is_counted(sweep: SweepSnapshot) -> None:
    def words(**resources: float) -> str:
        own = sweep.spec.resources.model_copy(update=resources)
        return a_trial_runs_on(sweep.spec.model_copy(update={"resources": own}))

    assert words(workers=1, gpus_per_worker=0, cpus_per_worker=1) == "1 worker with 1 CPU core"
    assert words(workers=4, gpus_per_worker=1, cpus_per_worker=8) == "4 workers with 1 GPU and 8 CPU cores each"
    assert words(workers=1, gpus_per_worker=0.5, cpus_per_worker=2) == "1 worker with 0.5 GPUs and 2 CPU cores"


def test_a_running_sweep_has_a_timeline(sweep: SweepSnapshot) -> None:
    charts = context(replace(sweep, state="running"), None, "x")["cost"]["charts"]
    assert [chart["title"] for chart in charts] == ["What ran when", "What the hours went to"]
    assert ": 1 worker with 1 CPU core. Gaps" in charts[0]["caption"]


def test_charts_that_are_left_out_are_named(sweep: SweepSnapshot) -> None:
    few, more = (replace(sweep, rows=sweep.rows[:count], summary=None) for count in (9, 16))
    assert (
        missing(few)
        == "Not shown yet: importances from 8 complete trials on, contours from 15 complete trials on; there are 7."
    )
    assert missing(more) == "Not shown yet: contours from 15 complete trials on; there are 13."
    assert missing(replace(sweep, summary=None)) == ""
