"""The end of a sweep in words and numbers: what is kept, what is shown, in which order, of which images."""

import io
from dataclasses import replace
from pathlib import Path
from platform.base.paths import storage
from platform.base.terminal import Terminal
from platform.base.yaml_files import dump_yaml
from platform.config.spec import load_spec
from platform.reports.summary import ladder, leaderboard, markdown, statistics, summarise, write_summary
from platform.reports.terminal_tables import print_summary
from platform.search.confirm import CAM_BASELINE, Verdict
from platform.search.study import State, TrialRow
from platform.search.sweep_summary import SweepSummary
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from cpn.core.files import read_json
from cpn.propagation.walk_rule import WalkChoice
from cpn.stages.stage_manifest import StageManifest, WalkReport

STEPS = ["cam_baseline", "best CAM", "random walk", "random walk", "DeepLab", "DeepLab with CRF"]


def row(number: int, miou: float | None, state: State = State.COMPLETE, role: str = "search") -> TrialRow:
    values = {"patches.K": [56, 112], "patches.p_h": 0.25}
    return TrialRow(number, f"s-{number:04d}", state, values, 0, role, miou, beta=0.44)


ROWS = [
    row(0, 50.0, role="reference"),
    row(1, 55.0),
    row(2, None, State.FAIL),
    row(3, 57.0, State.PRUNED),
    row(4, 56.0),
    row(5, 56.0),
]
LINE = "CPN against cam_baseline: +6.5 [4.0, 9.0]"
VERDICT = Verdict("s-0004", "beats the reference by 2.0 [0.5, 3.5]", True, True, 2.0, 0.5, 3.5, LINE)
MANIFESTS = {
    "crf": StageManifest(stage="crf", key="1", metrics={}),
    "random_walk": StageManifest(stage="random_walk", key="2", metrics={"miou_confirm": 58.0, "miou_train": 58.5}),
    "deeplab": StageManifest(stage="deeplab", key="3", metrics={"miou_val": 60.0, "miou_val_crf": 61.25}),
}


@pytest.fixture
def summary(tmp_path: Path) -> SweepSummary:
    path = tmp_path / "s.yaml"
    search = {"patches.p_h": {"float": [0.1, 0.5]}}
    base = {"preset": "official", "data": {"score": "train", "val": "val"}}
    dump_yaml(path, {"name": "s", "base": base, "search": search, "budget": {"trials": 6}})
    means = {"s-0000": [49.0, 50.0], "s-0004": [51.0, 52.0], CAM_BASELINE: [44.0, 46.0]}
    pack = cast(Any, SimpleNamespace(fingerprint="f00d"))
    return summarise(load_spec(path), pack, ROWS, [row(0, 1.0)] * 6, means, VERDICT, ROWS[4], MANIFESTS, 0.5)


def test_the_leaderboard_holds_full_trials_best_first() -> None:
    made = leaderboard(ROWS, {"s-0004": [51.0, 52.0]})
    assert [entry.uid for entry in made] == ["s-0004", "s-0005", "s-0001", "s-0000"]
    assert (made[0].miou_confirm_mean, made[0].seeds) == (51.5, 2)
    assert (made[1].miou_confirm_mean, made[1].seeds) == (None, 0)
    assert made[0].values == {"patches.K": "56,112", "patches.p_h": 0.25}


def test_what_is_kept(summary: SweepSummary) -> None:
    assert summary.trials == {"complete": 4, "pruned": 1, "fail": 1} and summary.confirm_runs == 6
    assert summary.confirm_failed is None and "Warning" not in summary.note
    assert summary.against_baseline == LINE and f"\n{LINE}.\n" in summary.note
    assert summary.metrics == {
        "miou_confirm_cam_baseline": 45.0,
        "miou_confirm": 51.5,
        "miou": 56.0,
        "random_walk/miou_confirm": 58.0,
        "random_walk/miou_train": 58.5,
        "deeplab/miou_val": 60.0,
        "deeplab/miou_val_crf": 61.25,
        "hours": 0.5,
        "difference": 2.0,
    }
    assert (summary.winner, summary.interval, summary.fingerprint) == ("s-0004", (0.5, 3.5), "f00d")


def test_a_failed_stage_is_told_and_has_no_value(summary: SweepSummary) -> None:
    assert summary.stage_failed is None and "Failed" not in summary.note
    metrics = {**summary.metrics, "deeplab/miou_val": None, "deeplab/miou_val_crf": None}
    told = summary.model_copy(update={"metrics": metrics, "stage_failed": "stage deeplab: one mask; --set x=y"})
    assert [value for *_, value in ladder(told)][-4:] == [58.0, 58.5, "failed", "failed"]
    assert "**Failed: stage deeplab: one mask; --set x=y**" in markdown(told)
    shown = Terminal(Console(file=io.StringIO(), width=200))
    print_summary(shown, told, [])
    output = cast(Any, shown.console.file).getvalue()
    assert "failed: stage deeplab: one mask" in output and "the promotion stands" in output


def test_a_search_that_ended_early_says_why(summary: SweepSummary) -> None:
    assert summary.stopped is None and "ended early" not in summary.note
    told = summary.model_copy(update={"stopped": "another 8 GPU-hours are expected to gain 0.05 mIoU: stopping"})
    assert f"\nThe search ended early: {told.stopped}.\n" in markdown(told)
    shown = Terminal(Console(file=io.StringIO(), width=200))
    print_summary(shown, told, [])
    assert f"the search ended early: {told.stopped}" in cast(Any, shown.console.file).getvalue()


def test_the_ladder_climbs_from_cam_to_deeplab(summary: SweepSummary) -> None:
    made = ladder(summary)
    assert [step.split(",")[0] for step, _, _ in made] == STEPS
    assert [images for _, images, _ in made] == ["train, confirm"] * 3 + ["train, all", "val", "val"]
    assert [value for _, _, value in made] == [45.0, 51.5, 58.0, 58.5, 60.0, 61.25]


def test_markdown_has_the_verdict_first_and_a_row_for_each_step(summary: SweepSummary) -> None:
    lines = summary.note.splitlines()
    assert lines[0] == "**s-0004 beats the reference by 2.0 [0.5, 3.5]; it was promoted**"
    assert "Winner: `s-0004`" in lines
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert table[0] == ["step", "images", "mIoU %"] and {len(cells) for cells in table} == {3}
    assert [cells[0].split(",")[0] for cells in table[2:]] == STEPS
    assert [cells[2] for cells in table[2:]] == ["45.0", "51.5", "58.0", "58.5", "60.0", "61.2"]


def test_what_is_missing_is_a_dash_not_a_number(summary: SweepSummary) -> None:
    """Nothing was promoted, nothing confirmed: the table stays whole."""
    bare = summary.model_copy(update={"metrics": dict.fromkeys(summary.metrics)})
    assert [value for _, _, value in ladder(bare)] == [None] * 6
    assert "None" not in markdown(bare) and markdown(bare).count("| - |") == 6


def test_failed_confirm_runs_are_told(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    dump_yaml(path, {"name": "s", "base": {"preset": "official"}, "search": {"patches.p_h": {"float": [0.1, 0.5]}},
                     "budget": {"trials": 6}})  # fmt: skip
    lost = replace(row(1, None, State.FAIL, CAM_BASELINE), reason="out of memory", attrs={"of": CAM_BASELINE})
    pack = cast(Any, SimpleNamespace(fingerprint="f00d"))
    made = summarise(load_spec(path), pack, ROWS, [row(0, 1.0), lost], {}, VERDICT, ROWS[4], {}, 0.5)
    words = "1 of 2 confirm runs failed: s-0001 (cam_baseline, seed 0): out of memory; no cam_baseline to compare with"
    assert made.confirm_failed == words and f"Warning: {words}" in markdown(made)
    text = io.StringIO()
    print_summary(Terminal(Console(file=text, force_terminal=False, width=200)), made, [])
    assert f"warning: {words}" in text.getvalue()


def test_the_files_are_whole_and_readable(summary: SweepSummary, tmp_path: Path) -> None:
    paths = storage(str(tmp_path)).sweep("s")
    files = write_summary(paths, summary)
    assert files == [paths.summary, paths.summary.with_suffix(".md")] and read_json(files[0])["winner"] == "s-0004"
    assert files[1].read_text().startswith("# sweep s\n\n**s-0004 beats the reference")
    assert write_summary(paths, summary) == files


def test_what_pruning_cost_is_said(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    dump_yaml(path, {"name": "s", "base": {"preset": "official"}, "search": {"patches.p_h": {"float": [0.1, 0.5]}},
                     "budget": {"trials": 6}, "pruning": {"grace": 0.5}})  # fmt: skip
    rows = [replace(r, attrs={"would_prune_at": 0.5}) if r.number == 1 else r for r in ROWS]
    pack, off = cast(Any, SimpleNamespace(fingerprint="f00d")), {"0.5": "pruning is switched off at 50%: why"}
    made = summarise(load_spec(path), pack, rows, [], {}, VERDICT, ROWS[4], {}, 0.5, off)
    assert (made.pruning.points, made.pruning.unseen) == (-1.0, 1)
    assert [entry.would_prune_at for entry in made.leaderboard] == [None, None, 0.5, None]
    assert statistics(made) == [] and "pruning" not in made.note, "six trials show nothing"
    told = "\n".join(statistics(made.model_copy(update={"trials": {"complete": 20}})))
    for said in ("pruning stopped 1 of", "1 would-be-pruned trials ran on", "pruning is switched off at 50%: why"):
        assert said in told


def summary_of(metrics: dict[str, int | float], words: str | None, tmp_path: Path) -> SweepSummary:
    path = tmp_path / "s.yaml"
    dump_yaml(path, {"name": "s", "base": {"preset": "official"}, "budget": {"trials": 6}})
    pack = cast(Any, SimpleNamespace(fingerprint="f00d"))
    walk = None if words is None else WalkReport(choice=WalkChoice(1.0, 4, 3), words=words)
    made = {**MANIFESTS, "random_walk": StageManifest(stage="random_walk", key="2", metrics=metrics, walk=walk)}
    return summarise(load_spec(path), pack, ROWS, [], {}, VERDICT, ROWS[4], made, 0.5)


def test_an_unused_walk_is_said_in_words_and_table(tmp_path: Path) -> None:
    words = "random walk: a miss, it lowers its CAM and is not used"
    metrics = {"miou_confirm": 58.0, "miou_train": 58.5}
    missed = summary_of({**metrics, "used": 0.0}, words, tmp_path)
    assert [step for step, _, _ in ladder(missed)][2:4] == ["the CAM's masks, for the walk is a miss"] * 2
    assert words in missed.note.splitlines()
    text = io.StringIO()
    print_summary(Terminal(Console(file=text, force_terminal=False, width=200)), missed, [])
    assert words in text.getvalue()
    used = summary_of({**metrics, "used": 1.0}, "random walk: alpha 1", tmp_path)
    assert [step for step, _, _ in ladder(used)][2:4] == ["random walk"] * 2 and "random walk: alpha 1" in used.note
    assert summary_of({**metrics}, None, tmp_path).walk is None


def test_numbers_of_a_choice_are_no_score(tmp_path: Path) -> None:
    made = summary_of({"alpha": 1.0, "steps": 16.0, "used": 1.0}, "w", tmp_path)
    assert made.unscored == ("random_walk",) and ladder(made)[2][2] == "no masks"
