"""Two trials side by side: what differs is there, what is equal is not, and what one lacks is a dash."""

import json
from pathlib import Path
from platform.base.paths import Storage
from platform.compare import comparison, differing, main
from platform.reports.snapshot import find_trial

import pytest

from tests.platform.made_sweep import make_sweep


def test_what_differs(made: Storage) -> None:
    one, two = find_trial(made, "made-0000"), find_trial(made, "made-0001")
    found = comparison(one, two)
    values = {name for name in one[1].values if one[1].values[name] != two[1].values.get(name)}
    assert values - {"patches.S_N"} <= set(found["config"]) and "train.epochs" not in found["config"]
    assert found["config"]["loss.w_tcp"] == [1.0, two[1].values["loss.w_tcp"]]
    assert found["metrics"]["miou"] == [one[1].miou, two[1].miou]
    assert list(found["iou"]) == ["background", "ant", "bee & wasp", "cat"] and len(found["beta_curve"]) == 61
    assert found["epochs"]["4"] == [one[1].reports[4], two[1].reports[4]] and not found["same_run"]


def test_a_pruned_trial_has_curves_as_far_as_it_came(made: Storage) -> None:
    found = comparison(find_trial(made, "made-0000"), find_trial(made, "made-0006"))
    assert found["b"]["state"] == "pruned" and found["metrics"]["miou"][1] is None
    assert found["epochs"]["4"][1] is None and found["epochs"]["2"][1] is not None
    assert found["beta_curve"]["0.44"][1] is None


def test_the_tables(made: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["made-0000", "made-0001", "--storage", str(made.root)]) == 0
    said = capsys.readouterr().out
    for words in (
        "what differs in the configuration",
        "loss.w_tcp",
        "bee & wasp",
        "second - first",
        "points; all of them: --json",
    ):
        assert words in said
    assert "are the same run" not in said and "not comparable" not in said
    assert said.splitlines()[-1].startswith("next: python -m platform.export made-0001 --storage")
    main(["made-0006", "made-0006", "--storage", str(made.root)])
    said = capsys.readouterr().out
    assert "made-0006 and made-0006 are the same run" in said and "nothing" in said and "pruned, after epoch 2" in said


def test_of_two_sweeps_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_sweep(tmp_path, "one", 1)
    make_sweep(tmp_path, "two", 1, base={"preset": ["official", "scenes"], "train": {"epochs": 4, "seed": 5},
                                         "patches": {"draw": "bernoulli"}})  # fmt: skip
    main(["one-0000", "two-0000", "--storage", str(store.root), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["config"] == {"train.seed": [0, 5]} and found["same_data"] and not found["same_run"]


def test_by_hand() -> None:
    assert differing({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 3], "c": None}) == {"b": [[1, 2], [1, 3]]}
