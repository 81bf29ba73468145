"""The walk's numbers of one run: chosen once over shares of the scored list, then read from their file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from platform.base.paths import Storage
from platform.base.terminal import Terminal
from platform.run.walk_stage import CHOICE, walk_of
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cpn.core.checked import read_typed
from cpn.core.files import write_json
from cpn.propagation.walk_rule import WalkChoice
from cpn.stages.inputs import Inputs
from cpn.stages.stage_manifest import WalkReport
from cpn.stages.walk_choice import chosen, count_settings, grid_of
from tests.cpn.stages.test_walk_choice import make_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("walk"))


class Tasks:
    """Tasks run at once, in this process; a reference is the result itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        monkeypatch.setattr(ray, "get", lambda result: result)

    def task(self, function: Callable[..., Any]) -> Any:
        def remote(*arguments: Any) -> Any:
            self.ran.append(function.__name__)
            return function(*arguments)

        return SimpleNamespace(remote=remote)


def choice(tasks: Tasks, inputs: Inputs, place: Path, cpus: int = 2) -> WalkReport:
    def wait(refs: Sequence[Any], ended: Callable[[int], None]) -> None:
        ended(len(refs))

    work, scored = place / "sweeps/stages/w.work", inputs.config.data.score
    return walk_of(Storage(place / "sweeps"), work, inputs.pack, scored, lambda names: inputs, tasks.task,
                   [{"CPU": float(cpus)}], Terminal(), wait)  # fmt: skip


def test_shares_add_up_to_the_whole_list(monkeypatch: pytest.MonkeyPatch, inputs: Inputs, tmp_path: Path) -> None:
    tasks, images = Tasks(monkeypatch), len(inputs.pack.split(inputs.config.data.score))
    found = choice(tasks, inputs, tmp_path)
    grid = grid_of(inputs)
    assert found == chosen(inputs, grid, count_settings(inputs, grid, range(images)))
    assert tasks.ran == ["counting_task", "counting_task", "choosing_task"], "a share for each core"
    assert read_typed(tmp_path / "sweeps/stages/w.work" / CHOICE, WalkReport) == found


def test_a_choice_that_was_made_is_read(monkeypatch: pytest.MonkeyPatch, inputs: Inputs, tmp_path: Path) -> None:
    tasks = Tasks(monkeypatch)
    made = WalkReport(choice=WalkChoice(3.0, 4, 2), words="made before")
    write_json(tmp_path / "sweeps/stages/w.work" / CHOICE, made.to_json())
    assert choice(tasks, inputs, tmp_path) == made and tasks.ran == []


@pytest.mark.parametrize("text", ["{", '{"alpha": 3}', "[]"])
def test_a_damaged_choice_is_made_again(
    monkeypatch: pytest.MonkeyPatch, inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    tasks, path = Tasks(monkeypatch), tmp_path / "sweeps/stages/w.work" / CHOICE
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = choice(tasks, inputs, tmp_path, cpus=1)
    assert f"{path} is damaged; the choice is made again" in capsys.readouterr().out
    assert tasks.ran == ["counting_task", "choosing_task"] and read_typed(path, WalkReport) == found
