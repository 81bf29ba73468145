"""A sweep's tables on a terminal: the verdict first, 100 columns at most, and no id broken."""

import io
from pathlib import Path
from platform.base.terminal import Terminal
from platform.reports.ranking import ranking
from platform.reports.snapshot import SweepSnapshot
from platform.reports.terminal_tables import print_ranking, print_summary
from platform.search.confirm import CAM_BASELINE
from platform.search.sweep_summary import LeaderboardEntry, SweepSummary
from typing import Any

import pytest
from rich.console import Console

VALUES = {"patches.kind": "superpixel", "patches.S_N": 120, "patches.p_h": 0.4, "loss.ohem_ratio": 0.17345}
MORE = {f"loss.w_long_name_{letter}": 1.2345 for letter in "abcd"}
PICTURE = [Path("sweeps/runs/k/pictures/cam.png")]


def summary(values: dict[str, Any] = VALUES, **more: Any) -> SweepSummary:
    """Of a reference that won, and one other trial."""
    told: dict[str, Any] = {
        "sweep": "a-long-name",
        "verdict": "no trial beat the reference (best: a-long-name-0006, 1.7 points lower [-3.1, -0.2])",
        "against_baseline": "CPN against cam_baseline: +6.8 [2.8, 10.7]",
        "winner": "a-long-name-0000",
        "trials": {"complete": 2, "pruned": 1, "fail": 0},
        "confirm_runs": 9,
        "confirmed": {CAM_BASELINE: (50.0, 51.0, 52.0)},
        "baseline_interval": [48.0, 54.0],
        "leaderboard": [
            LeaderboardEntry(uid="a-long-name-0000", role="reference", miou=57.5, beta=0.52, miou_confirm_mean=57.3,
                             interval=[54.3, 60.4], seeds=3, values=values),
            LeaderboardEntry(uid="a-long-name-0006", role="search", miou=53.6, beta=0.5,
                             values={**values, "patches.kind": "grid", "patches.p_h": 0.42712}),
        ],
        "pruning": {"words": ["pruning stopped 1 of 3 trials"]},
        "without_masks": "mask_free against miou: 0.31",
        "metrics": dict.fromkeys([
            "miou_confirm_cam_baseline", "miou_confirm", "random_walk/miou_confirm", "random_walk/miou_train",
            "deeplab/miou_val", "deeplab/miou_val_crf",
        ], 50.0),
        "sets": {"score": "train", "val": "val"},
        "hours": 0.5,
    }  # fmt: skip
    return SweepSummary.model_validate({**told, **more})


def printed(found: SweepSummary, width: int = 100, verbose: bool = False) -> str:
    text = io.StringIO()
    terminal = Terminal(Console(file=text, force_terminal=False, width=width))
    terminal.verbose = verbose
    print_summary(terminal, found, PICTURE)
    return text.getvalue()


def row_of(said: str, name: str) -> list[str]:
    """The cells of the first row that holds a word."""
    line = next(line for line in said.splitlines() if line.startswith("│") and name in line)
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_verdict_comes_first_and_says_what_was_promoted() -> None:
    said = printed(summary())
    assert said.startswith(
        "verdict: no trial beat the reference (best: a-long-name-0006, 1.7 points lower [-3.1, -0.2]); "
        "the reference was promoted (30:00 in all)\nCPN against cam_baseline: +6.8 [2.8, 10.7]\nleaderboard"
    )
    order = [said.index(words) for words in ("leaderboard", "from CAM to segmentation", "pictures:")]
    assert order == sorted(order) and said.rstrip().endswith("sweeps/runs/k/pictures/cam.png")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"better": True, "verdict": "beats the reference by 2.0 [0.5, 3.5]", "winner": "a-long-name-0006"},
            "a-long-name-0006 beats the reference by 2.0 [0.5, 3.5]; it was promoted",
        ),
        (
            {"verdict": "no improvement shown: +1.0 [-1, 3]", "winner": "a-long-name-0006", "promoted": False},
            "no improvement shown: +1.0 [-1, 3]; a-long-name-0006 was not promoted (promote.when: better)",
        ),
    ],
    ids=["better", "kept"],
)
def test_other_verdicts_stand_alone_too(more: dict[str, Any], words: str) -> None:
    assert summary(**more).plain_verdict == words


def test_a_row_has_a_column_for_each_name_where_that_fits() -> None:
    said = printed(summary(), 140)
    assert row_of(said, "0000") == [
        "0000", "reference, winner", "superpixel", "120", "0.4", "0.173", "57.5", "0.52", "57.3 [54.3, 60.4]", "3",
    ]  # fmt: skip
    assert row_of(said, "cam_baseline")[-2:] == ["51.0 [48.0, 54.0]", "3"] and "configurations" not in said
    assert "trial 0000 is a-long-name-0000" in said


def test_where_it_does_not_fit_values_have_a_table_of_their_own() -> None:
    said = printed(summary())
    assert row_of(said, "0000")[:3] == ["0000", "reference, winner", "57.5"]
    assert row_of(said.partition("configurations")[2], "0006") == ["0006", "grid", "120", "0.427", "0.173"]


def test_many_names_are_shown_by_what_differs() -> None:
    said = printed(summary({**VALUES, **MORE})).partition("configurations")[2]
    assert row_of(said, "0006") == ["0006", "kind=grid p_h=0.427"]


@pytest.mark.parametrize("width", [100, 140])
@pytest.mark.parametrize("values", [VALUES, {**VALUES, **MORE}], ids=["few", "many"])
def test_no_line_of_a_table_is_wider_than_the_terminal(values: dict[str, Any], width: int) -> None:
    lines = printed(summary(values), width).splitlines()
    assert max(len(line) for line in lines if line.startswith(("│", "┃"))) <= width


def test_statistics_are_for_those_who_ask_and_for_twenty_trials() -> None:
    many = {"trials": {"complete": 20, "pruned": 0, "fail": 0}}
    assert "pruning stopped" not in printed(summary(**many)) and "pruning stopped" not in printed(summary(), 100, True)
    said = printed(summary(**many), 100, verbose=True)
    assert "pruning stopped 1 of 3 trials\nmask_free against miou: 0.31\n" in said


def test_the_ranking_fits_and_has_cam_baseline(sweep: SweepSnapshot) -> None:
    text = io.StringIO()
    print_ranking(Terminal(Console(file=text, force_terminal=False, width=100)), sweep, ranking(sweep)[:4], "20 more")
    said = text.getvalue()
    assert max(map(len, said.splitlines())) <= 100 and "20 more; trial " in said
    assert (
        row_of(said, "cam_baseline")[1] == "cam_baseline"
        and "made-00" not in said.partition("configurations")[0][: said.index("20 more")]
    )
