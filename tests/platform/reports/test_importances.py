"""Importances and plots of a search: a made-up truth, conditional names, and next to nothing to draw."""

from collections.abc import Sequence
from pathlib import Path
from platform.base.yaml_files import dump_yaml
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from platform.reports.importances import DRAWN, LEAST_TRIALS, as_optuna, importances, static_plots, write_plots
from platform.search.study import State, TrialRow
from typing import Any

import numpy as np
import pytest
from PIL import Image

SEARCH = {
    "patches.kind": {"choice": ["superpixel", "grid"]},
    "patches.S_N": {"int": [5, 300], "log": True, "when": {"patches.kind": "superpixel"}},
    "patches.K": {"choice": [[4, 8], [8, 16]], "when": {"patches.kind": "grid"}},
    "loss.w_tcp": {"float": [0.1, 10], "log": True},
    "loss.w_cls": {"float": [0.3, 3], "log": True},
    "loss.w_cpcr": {"float": [1, 1]},
    "cam.beta": {"curve": True},
}


STATIC = {"history", "importances", "slices", "contours", "parallel", "rung_0.5"}


def make_spec(folder: Path, search: dict[str, Any] | None = None) -> SweepSpec:
    dump_yaml(folder / "s.yaml", {"name": "s", "search": SEARCH if search is None else search, "budget": {"trials": 9}})
    return load_spec(folder / "s.yaml")


def trials(count: int, finish: bool = True) -> list[TrialRow]:
    """Trials whose value depends on w_tcp alone, and on S_N where there is one."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        kind = str(rng.choice(["superpixel", "grid"]))
        values: dict[str, Any] = {"patches.kind": kind, "loss.w_cpcr": 1.0}
        values["loss.w_tcp"], values["loss.w_cls"] = (
            float(10 ** rng.uniform(-1, 1)),
            float(10 ** rng.uniform(-0.5, 0.4)),
        )
        given = int(np.exp(rng.uniform(np.log(5), np.log(300))))
        values |= {"patches.S_N": given} if kind == "superpixel" else {"patches.K": [[4, 8], [8, 16]][number % 2]}
        end = 50 - 8 * abs(np.log10(values["loss.w_tcp"]) - 0.4)
        end -= 3 * abs(np.log(given / 40)) if kind == "superpixel" else 1
        pruned, audited = number % 7 == 6, number % 7 == 5
        state = State.FAIL if not finish else State.PRUNED if pruned else State.COMPLETE
        attrs = {"would_prune_at": 0.5} if audited else {"pruned_at": 0.5} if pruned else {}
        reports = {4: end - 5} | ({8: float(end)} if state is State.COMPLETE else {})
        role = "reference" if number == 0 else "search"
        miou = float(end) if state is State.COMPLETE else None
        made.append(
            TrialRow(number, f"s-{number:04d}", state, values, 0, role, miou, 0.5, reports=reports, attrs=attrs)
        )
    return made


def test_what_decides_is_found_and_the_rest_is_not(tmp_path: Path) -> None:
    spec, rows = make_spec(tmp_path), trials(120)
    found = importances(spec.search, rows)
    assert list(found)[:2] in (["loss.w_tcp", "patches.S_N"], ["patches.S_N", "loss.w_tcp"])
    assert sum(found.values()) == pytest.approx(1) and found["loss.w_cpcr"] == 0 and found["loss.w_cls"] < 0.1
    assert set(found) == set(SEARCH) - {"cam.beta"}  # conditional names too
    assert importances(spec.search, rows) == found


def test_too_little_has_no_importance(tmp_path: Path) -> None:
    spec, rows = make_spec(tmp_path), trials(30)
    done = [row for row in rows if row.state is State.COMPLETE]
    assert importances(spec.search, done[: LEAST_TRIALS - 1]) == {} != importances(spec.search, done[:LEAST_TRIALS])
    equal = [TrialRow(r.number, r.uid, r.state, r.values, 0, r.role, 50.0) for r in done]
    assert importances(spec.search, equal) == {} == importances({}, done)


def test_all_plots_are_written_for_the_parent_run(tmp_path: Path) -> None:
    spec, rows = make_spec(tmp_path), trials(40)
    files = write_plots(spec, rows, tmp_path / "plots")
    assert {file.stem for file in files} == STATIC
    for file in files:
        with Image.open(file) as picture:
            assert picture.width == 1000 and np.array(picture.convert("L")).std() > 5
    assert static_plots(spec, rows) == static_plots(spec, rows)


def test_contours_wait_for_fifteen_trials_with_both_names(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    done = [row for row in trials(40) if row.state is State.COMPLETE]
    assert "contours" not in static_plots(spec, done[:14]) and "contours" in static_plots(spec, done[:15])


def test_a_study_in_memory_keeps_the_trials_numbers(tmp_path: Path) -> None:
    rows = trials(20)
    rows[3] = TrialRow(3, "s-0003", State.FAIL, rows[3].values, 0, "search")
    study = as_optuna(make_spec(tmp_path).search, rows, "s")
    assert [trial.value for trial in study.trials] == [row.miou for row in rows]
    assert [trial.state.name for trial in study.trials] == [row.state.name for row in rows]


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("none", [], set()),
        ("all failed", trials(4, finish=False), set()),
        ("one", trials(1), {"history", "slices", "parallel", "rung_0.5"}),
        ("three", trials(3), {"history", "slices", "parallel", "rung_0.5"}),
    ],
)
def test_few_trials_break_nothing(tmp_path: Path, name: str, rows: list[TrialRow], expected: set[str]) -> None:
    spec = make_spec(tmp_path)
    assert set(static_plots(spec, rows)) == expected


def test_a_reference_outside_the_space_and_no_space_at_all(tmp_path: Path) -> None:
    rows = trials(20)
    far = TrialRow(99, "s-0099", State.COMPLETE, {"patches.kind": "superpixel", "patches.S_N": 2000, "loss.w_tcp": 50.0,
                   "loss.w_cls": 1.0, "loss.w_cpcr": 1.0}, 0, "reference", 40.0, reports={4: 30.0})  # fmt: skip
    spec = make_spec(tmp_path)
    assert set(static_plots(spec, [*rows, far])) == STATIC
    other = TrialRow(98, "s-0098", State.COMPLETE, {**rows[0].values, "patches.kind": "hexagon"}, 0, "reference", 41.0)
    assert set(static_plots(spec, [*rows, other])) == STATIC
    assert set(static_plots(make_spec(tmp_path, {}), rows[:1])) == {"history", "rung_0.5"}


def test_plots_are_drawn_again_only_for_other_trials_or_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, rows, folder = make_spec(tmp_path), trials(9), tmp_path / "plots"
    times: list[int] = []
    draw = static_plots

    def counted(spec: SweepSpec, rows: Sequence[TrialRow]) -> dict[str, bytes]:
        times.append(len(rows))
        return draw(spec, rows)

    monkeypatch.setattr("platform.reports.importances.static_plots", counted)
    files = write_plots(spec, rows, folder)
    first = {file: file.read_bytes() for file in files}
    assert write_plots(spec, rows, folder) == files and times == [9]
    files[0].write_bytes(first[files[0]][:-9])
    assert write_plots(spec, rows, folder) == files and times == [9, 9]
    assert {file: file.read_bytes() for file in files} == first
    (folder / DRAWN).write_text("{")
    assert write_plots(spec, rows, folder) == files and times == [9, 9, 9]
    write_plots(spec, rows[:8], folder)
    write_plots(make_spec(tmp_path, {"loss.w_tcp": {"float": [0.1, 10]}}), rows[:8], folder)
    assert times == [9, 9, 9, 8, 8]
