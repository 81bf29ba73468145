"""`--dry-run`: the plan and its price on the screen, exit code 0, and nothing made, even where no data are."""

import re
from pathlib import Path
from platform.dry_run import domain_words
from platform.spec import load_spec
from platform.sweep import main

import pytest

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments, "--dry-run"]) == 0
    return capsys.readouterr().out


def test_voc_is_priced_without_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = printed(capsys, str(SPACES / "patch.yaml"))
    assert list(tmp_path.iterdir()) == []
    for name in load_spec(SPACES / "patch.yaml").search:
        assert name in said
    assert "data: /data/VOC2012; lists trainaug (training), train (scored), val (validation)" in said
    assert "runs: 64 trials, the reference first, then 15 confirm runs" in said
    found = re.search(r"([0-9.]+) GPU-hours a run, ([0-9.]+) in all without pruning; ([0-9.]+) GB", said)
    assert found is not None
    each, total, disk = (float(number) for number in found.groups())
    # 12 confirm runs of CPN; 3 of cam_baseline, which has one branch of the three and scores like the others.
    assert (64 + 12) * each < total < (64 + 12 + 3 * 0.5) * each and disk > 30
    assert said.endswith(f"next: python -m platform.sweep {SPACES}/patch.yaml\n")


def test_a_price_is_multiplied_out(capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, str(SPACES / "patch.yaml"), "--set", "budget.price_per_gpu_hour=0.25")
    found = re.search(r"([0-9.]+) in all without pruning for ([0-9.]+) at 0.25 an hour; ([0-9.]+) GB", said)
    assert found is not None and float(found[2]) == pytest.approx(float(found[1]) / 4, rel=1e-3)


def test_sets_are_in_the_plan_and_in_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = printed(capsys, str(SPACES / "quickstart.yaml"), "--set", "budget.trials=3", "--set", "confirm.seeds=1")
    assert list(tmp_path.iterdir()) == []
    assert "data: synthetic scenes" in said and "runs: 3 trials" in said and "then 3 confirm runs" in said
    assert said.endswith("--set budget.trials=3 --set confirm.seeds=1\n")


def test_the_next_command_can_be_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A value with spaces is quoted, and no line is broken however long."""
    said = printed(capsys, str(SPACES / "quickstart.yaml"), "--set", f"data.root={tmp_path}/" + "my data " * 20)
    assert said.splitlines()[-1].endswith(f"--set 'data.root={tmp_path}/" + "my data " * 20 + "'")


def test_the_reference_is_shown_to_its_last_digit(capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, str(SPACES / "patch.yaml"))
    assert "0.72" in next(line for line in said.splitlines() if "cam.beta" in line)


def test_domains_in_words() -> None:
    search = load_spec(SPACES / "patch.yaml").search
    assert domain_words(search["loss.w_tcp"]) == "float 0.1 to 10.0, log"
    assert domain_words(search["patches.p_h"]) == "float 0.1 to 0.5"
    assert domain_words(search["patches.kind"]) == "one of superpixel, grid"
    assert domain_words(search["patches.S_N"]) == "int 5 to 8000, log, when patches.kind=superpixel"
    assert domain_words(search["patches.K"]).endswith(", [224, 448], when patches.kind=grid")
    assert domain_words(search["patches.K"]).startswith("one of [4, 7], [7, 14]")
