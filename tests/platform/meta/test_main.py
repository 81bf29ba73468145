"""The command meta over sweeps on disk: a table for people, JSON for programs, one line for what does not go."""

import json
from platform.base.paths import Storage
from platform.meta import __main__ as meta
from platform.meta.effects import Importance

import pytest

from cpn.core.errors import InputError


def test_a_sweep_is_read_and_shown(
    made: Storage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.reports.importances.TREES", 2)
    words = ["made", "--storage", str(made.root), "--resamples", "20"]
    assert meta.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    effects = found["importances"]["made"]
    assert max(effects, key=lambda name: effects[name]["share"]) in ("loss.w_tcp", "patches.p_h")
    assert all(one["low"] <= one["high"] for one in effects.values())
    assert found["follows"].startswith("does the best S_N follow object size? 0 sweeps")
    known = {name: Importance(**{key: one[key] for key in one if key != "mattered"}) for name, one in effects.items()}
    monkeypatch.setattr("platform.meta.effects.sweep_importances", lambda *_: known)
    assert meta.main(words) == 0
    shown = capsys.readouterr().out
    assert "share of variance, %" in shown and "loss.w_tcp" in shown and "over 20 redraws" in shown
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["made", "--resamples", "5"], "--resamples 5: too few"),
        (["made", "--seed", "-1"], "--seed -1: give 0 or more"),
        (["other"], "other: no such sweep"),
    ],
    ids=["resamples", "seed", "no-sweep"],
)
def test_what_does_not_go_is_one_line(made: Storage, words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        meta.main([*words, "--storage", str(made.root)])
