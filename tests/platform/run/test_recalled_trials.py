"""A study that was lost, or put back to an older copy, gets its trials' values back from the records."""

from pathlib import Path
from platform.config.space.domains import parse_search
from platform.run.recalled_trials import recalled_trials, searched_values
from platform.search.study import State, Study, open_study, study_url
from platform.tracking.recorder import Recorder, plain
from typing import Any

import pytest

from tests.platform.search.test_study import make_spec

SEARCH = parse_search(
    {
        "loss.w_tcp": {"float": [0.1, 10], "log": True},
        "patches.kind": {"choice": ["superpixel", "grid"]},
        "patches.K": {"choice": [[4, 7], [56, 112]], "when": {"patches.kind": "grid"}},
        "patches.S_N": {"int": [5, 8000], "when": {"patches.kind": "superpixel"}},
        "network.prcm": {"choice": [True, False]},
        "network.weights": {"choice": [None, "none.pth", "1"]},
        "train.lr": {"choice": [1, 0.1, 1e-05]},
        "cam.beta": {"curve": True},
    }
)
BASE = {"patches.K": [4, 7], "patches.S_N": 40, "cam.beta": 0.5, "data.crop": 448}
VALUES: dict[str, dict[str, Any]] = {
    "superpixels": {"loss.w_tcp": 0.1 + 0.2, "patches.kind": "superpixel", "patches.S_N": 212, "network.prcm": True,
                    "network.weights": None, "train.lr": 0.1},
    "a list": {"loss.w_tcp": 1.0, "patches.kind": "grid", "patches.K": [56, 112], "network.prcm": False,
               "network.weights": "none.pth", "train.lr": 1},
    "small and large": {"loss.w_tcp": 10.0, "patches.kind": "superpixel", "patches.S_N": 8000, "network.prcm": False,
                        "network.weights": "1", "train.lr": 1e-05},
}  # fmt: skip


def params(values: dict[str, Any]) -> dict[str, str]:
    """A run's parameters as the records keep them: of the whole configuration."""
    return {name: plain(value) for name, value in {**BASE, **values}.items()}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_values_are_read_back_as_they_were(values: dict[str, Any]) -> None:
    found = searched_values(SEARCH, params(values))
    assert found == values and [type(value) for value in found.values()] == [type(v) for v in values.values()]


@pytest.mark.parametrize(
    ("name", "text"),
    [("loss.w_tcp", "11"), ("loss.w_tcp", "none"), ("patches.S_N", "2.5"), ("patches.kind", "grids"), ("train.lr", "")],
)
def test_what_the_search_does_not_hold_is_not_made_up(name: str, text: str) -> None:
    assert searched_values(SEARCH, {**params(VALUES["superpixels"]), name: text}) is None


def recorded(folder: Path, *numbers: int) -> list[dict[str, Any]]:
    """The records of the sweep `small` with trials of these numbers; the values of number n are those of n."""
    recorder = Recorder(folder, "http://127.0.0.1:9", "small")
    recorder.start("small.sweep", name="sweep")
    values = [{"patches.kind": "superpixel", "loss.w_tcp": 1.0 + number / 7} for number in range(10)]
    for number in numbers:
        recorder.start(f"small-{number:04d}", name="a", params=params(values[number]))
        recorder.start(f"small.confirm-{number:04d}", name="a", params=params(values[0]))
    recorder.start("small-0000", name="again", params=params(values[9]))
    recorder.close(0)
    return values


def lost_study(folder: Path, ended: int, numbers: tuple[int, ...]) -> tuple[Study, list[dict[str, Any]]]:
    """A study in which so many trials have ended, opened again with what the records tell of these numbers."""
    spec = make_spec(folder)
    values = recorded(folder / "records", *numbers)
    first = open_study(spec, study_url(spec), "f00d")
    for _ in range(ended):
        row = first.ask()
        assert row is not None
        first.tell(row.uid, State.COMPLETE, 0.5)
    first.close()
    return open_study(spec, study_url(spec), "f00d", recalled_trials(folder / "records", "small", spec.search)), values


@pytest.mark.parametrize(
    ("ended", "numbers", "comes_back"),
    [
        (0, (0, 1, 2, 3), [1, 2, 3]),
        (2, (0, 1, 2, 3), [2, 3]),
        (0, (0, 1, 3), [1]),
        (0, (), []),
        (0, tuple(range(9)), [1, 2, 3, 4, 5]),
    ],
    ids=["lost", "an older copy", "a gap", "no records", "more than the budget"],
)
def test_trials_have_their_values_again(
    tmp_path: Path, ended: int, numbers: tuple[int, ...], comes_back: list[int]
) -> None:
    study, values = lost_study(tmp_path, ended, numbers)
    waiting = [row for row in study.rows() if row.state is State.WAITING and row.role == "search"]
    assert [row.number for row in waiting] == comes_back
    assert [row.values for row in waiting] == [values[number] for number in comes_back]
    spec = make_spec(tmp_path)
    recalled = recalled_trials(tmp_path / "records", "small", spec.search)
    again = open_study(spec, study_url(spec), "f00d", recalled)
    assert len(again.rows()) == len(study.rows()), "once"
    while (row := again.ask()) is not None and row.number < 6:
        again.tell(row.uid, State.COMPLETE, 0.1 * row.number)
    drawn = [row for row in again.rows() if row.role == "search" and row.number not in comes_back]
    assert all(row.values not in values for row in drawn) and again.rows()[0].role == "reference"


def test_a_damaged_line_tells_of_nothing(tmp_path: Path) -> None:
    recorded(tmp_path, 0, 1, 2)
    file = tmp_path / "events.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if b'"small-0001"' in line)
    lines[at] = lines[at].replace(b"superpixel", b"superpixfl")
    file.write_bytes(b"".join(lines))
    search = {name: domain for name, domain in SEARCH.items() if name in ("patches.kind", "loss.w_tcp")}
    assert len(recalled_trials(tmp_path, "small", search)) == 1
    assert recalled_trials(tmp_path / "none", "small", search) == []
