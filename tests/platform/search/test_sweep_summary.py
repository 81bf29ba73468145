"""The summary of a sweep as it is read back: whole, of an earlier version, or damaged."""

import json
from pathlib import Path
from platform.reports.summary import write_summary
from platform.search.sweep_summary import SweepSummary, missing_summary, read_summary

import pytest

from cpn.core.files import DamagedFile, read_json
from tests.platform.made_sweep import make_sweep


def test_what_is_written_is_read_back_and_written_again_alike(tmp_path: Path) -> None:
    paths = make_sweep(tmp_path).sweep("made")
    before = paths.summary.read_bytes()
    summary = read_summary(paths.summary)
    assert summary is not None and summary.winner == read_json(paths.summary)["winner"]
    written = read_json(paths.summary)
    assert written["stage_failed"] is None and written["unscored"] == [], "every key is written, whatever its value"
    assert summary.ended == 24 and len(summary.leaderboard) == summary.trials["complete"]
    write_summary(paths, summary)
    assert paths.summary.read_bytes() == before


def test_a_finished_sweep_without_its_summary_is_said(tmp_path: Path) -> None:
    for name, ended, said in (("done", True, True), ("stopped", False, False)):
        paths = make_sweep(tmp_path / name, ended=ended).sweep("made")
        assert not (ended and missing_summary(paths))
        paths.summary.unlink(missing_ok=True)
        line = missing_summary(paths)
        assert (line is not None) == said
        assert line is None or line.startswith(f"{paths.summary}: is missing, though the sweep has finished; give")


def test_an_earlier_versions_file_is_read(tmp_path: Path) -> None:
    """It has no digest, fewer keys, and one that is not written any more."""
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"verdict": "not tested", "winner": "s-0001", "metrics": {"miou": 50.5}, "old": [1]}))
    summary = read_summary(path)
    assert summary == SweepSummary(verdict="not tested", winner="s-0001", metrics={"miou": 50.5})
    assert (summary.walk_used, summary.leaderboard, summary.ended) == (True, (), 0)


def test_accounts_have_defaults_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    told = {"verdict": "v", "winner": "s-0001", "pruning": {"words": ["it saved"], "rungs": []}, "cost": {"total": 2.5}}
    path.write_text(json.dumps(told))
    summary = read_summary(path)
    assert summary is not None and summary.pruning.words == ("it saved",) and summary.pruning.points is None
    assert (summary.cost.total, summary.cost.words) == (2.5, "") and summary.to_json() == told


def test_without_a_file_there_is_no_summary(tmp_path: Path) -> None:
    assert read_summary(tmp_path / "summary.json") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [("{", "Expecting"), ("[1]", "dictionary"), ('{"winner": "s-0001"}', "verdict: Field required"),
     ('{"winner": "s-0001", "verdict": "v", "hours": "long"}', "hours: Input should be a valid number")],
)  # fmt: skip
def test_what_no_sweep_writes_is_damaged(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DamagedFile, match=rf"summary.json: is damaged \(.*{why}.*give the sweep's command again"):
        read_summary(tmp_path / "summary.json")
