"""The quickstarts' arithmetic on made-up summaries; the sweeps themselves are the smoke test's."""

import argparse
import json
from pathlib import Path
from platform.search.sweep_summary import SweepSummary

import pytest

from benchmarks.sweeps import quickstarts
from benchmarks.sweeps.quickstarts import Ended, account, command, ended, in_words, result
from cpn.core.errors import InputError, WorkError
from cpn.core.files import write_json


def summary(winner: list[float], baseline: list[float]) -> SweepSummary:
    confirmed = {
        "cam_baseline": tuple(baseline),
        "quickstart-seed7-0003": tuple(winner),
        "quickstart-seed7-0000": (99.0,),
    }
    return SweepSummary(
        verdict="no trial beat the reference",
        against_baseline="CPN against cam_baseline: +3.0",
        winner="quickstart-seed7-0003",
        confirmed=confirmed,
        hours=0.1,
    )


def test_the_winner_is_compared_and_not_the_best_number() -> None:
    row = ended(7, summary([60, 62, 64], [57, 59, 61]))
    assert (row.winner, row.baseline, row.gain, row.hours) == (62, 59, 3, 0.1)


def test_a_side_without_confirm_runs_is_an_error() -> None:
    with pytest.raises(WorkError, match="quickstart-seed7: cam_baseline has no finished confirm run"):
        ended(7, summary([60, 62], []))
    with pytest.raises(WorkError, match="quickstart-seed7-0003 has no finished confirm run"):
        ended(7, summary([], [57]))


def test_account_counts_gains_above_zero() -> None:
    rows = [Ended(seed, 50, 50 + gain, hours, "") for seed, gain, hours in ((0, 2, 0.1), (1, 0, 0.2), (2, 4, 0.1))]
    found = account(rows)
    assert (found["sweeps"], found["above"], found["gain"]) == (3, 2, pytest.approx(2))
    # Student's t with 2 degrees of freedom: 4.303 times the standard error 2 / sqrt(3).
    assert found["interval"] == pytest.approx([2 - 4.3027 * 2 / 3**0.5, 2 + 4.3027 * 2 / 3**0.5], abs=1e-3)
    assert found["longest_minutes"] == pytest.approx(12)
    assert in_words(found).startswith("CPN above cam_baseline in 2 of 3 quickstarts, mean gain +2.0 [-3.0, +7.0]")
    assert "one sweep, no interval" in in_words(account(rows[:1]))


def test_only_seeds_name_and_storage_differ(tmp_path: Path) -> None:
    words = command(104, tmp_path)
    assert words[1:4] == ["-m", "platform.sweep", str(quickstarts.SPACE)]
    assert words[4::2] == ["--set"] * 5
    assert words[5::2] == [
        "name=quickstart-seed104",
        f"resources.storage={tmp_path}",
        "data.scenes.seed=104",
        "train.seed=104",
        "search_options.seed=104",
    ]


def test_a_finished_sweep_is_read_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, gain in ((7, 1.0), (8, 3.0)):
        found = summary([50 + gain], [50])
        write_json(tmp_path / f"quickstart-seed{seed}" / "summary.json", found.to_json())
    assert result(9, tmp_path) is None
    monkeypatch.setattr(quickstarts, "run_one", lambda *_: pytest.fail("was run again"))
    options = argparse.Namespace(count=2, first=7, keep=tmp_path, quick=False)
    values = quickstarts.run(options)
    assert (values["sweeps"], values["above"], values["gain"]) == (2, 2, 2.0)
    assert json.loads(json.dumps(values))["rows"][1]["gain"] == 3.0
    assert "| 8 | 50.0 | 53.0 | +3.0 | 6.0 |" in capsys.readouterr().out


def test_a_failed_sweep_names_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstarts, "command", lambda *_: ["false"])
    with pytest.raises(WorkError, match=r"quickstart-seed7: ended with exit code 1; see .*quickstart-seed7\.log"):
        quickstarts.run_one(7, tmp_path, ())


def test_no_quickstart_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--count"):
        quickstarts.run(argparse.Namespace(count=0, first=0, keep=tmp_path, quick=False))
