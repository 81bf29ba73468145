"""Every search space loads, says its question, command and cost, and draws configurations that the method accepts."""

from platform.space import draw
from platform.spec import load_spec

import optuna
import pytest

from cpn.config import with_values
from tests.conftest import CHECKOUT

SPACES = sorted((CHECKOUT / "search_spaces").glob("*.yaml"))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_it_loads_and_every_draw_is_a_configuration(path) -> None:  # type: ignore[no-untyped-def]
    spec = load_spec(path)
    from platform.domains import drawn

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        with_values(spec.base_config, draw(study.ask(), drawn(spec.search)), path.name)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_its_header_says_question_command_and_cost(path) -> None:  # type: ignore[no-untyped-def]
    header = path.read_text().split("name:")[0]
    for head in ("# Question:", "# Command:", "# Cost:"):
        assert head in header
    assert f"search_spaces/{path.name}" in header


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_it_goes_to_scene_size_by_one_preset(path) -> None:  # type: ignore[no-untyped-def]
    spec = load_spec(path, ["preset=scenes"])
    assert spec.base_config.data.root is None and spec.base_config.data.scenes is not None
