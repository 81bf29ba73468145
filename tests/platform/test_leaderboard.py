"""The leaderboard in the terminal: ranked, cut where it is long, and as JSON with every number."""

import json
from pathlib import Path
from platform.base.paths import Storage
from platform.leaderboard import main

import pytest

from cpn.core.errors import InputError
from tests.platform.made_sweep import make_sweep


def test_the_table_and_what_to_type_next(made: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["made", "--storage", str(made.root), "--top", "4"]) == 0
    said = capsys.readouterr().out
    assert "leaderboard of made" in said and "20 more trials: --all" in said and "made-0006" not in said
    assert said.startswith("verdict: made-0019 beats the reference by 1.9 [0.7, 3.1]; it was promoted")
    assert "so far" not in said
    assert said.splitlines()[-1] == f"next: python -m platform.report made --storage {made.root}"
    main(["made", "--storage", str(made.root), "--all"])
    said = capsys.readouterr().out
    assert "made-0006: after epoch 2: 5 of 8 others were better" in said and "more trials" not in said


def test_json_has_everything(made: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    main(["made", "--storage", str(made.root), "--json", "--all"])
    found = json.loads(capsys.readouterr().out)
    assert (found["sweep"], found["state"], found["so_far"], found["all_trials"]) == ("made", "finished", None, 24)
    assert len(found["trials"]) == 24 and found["trials"][1]["difference"] == [0.7, 3.1]


def test_a_sweep_without_an_end_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_sweep(tmp_path, "early", 2, ended=False)
    main(["early", "--storage", str(store.root)])
    said = capsys.readouterr().out
    assert "so far: stopped, 2 trials have ended and there is no verdict yet" in said and "verdict:" not in said


def test_no_number_of_trials() -> None:
    with pytest.raises(InputError, match="^--top 0: no number of trials; give 1 or more, or --all"):
        main(["made", "--top", "0"])
