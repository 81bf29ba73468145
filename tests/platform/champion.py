"""Helpers for tests of the champion of the small sweep: where its alias points, and hands that move it."""

import json
from platform import promote
from platform.tracking.client import connect
from platform.tracking.read import read_model_state
from platform.tracking.records import CHAMPION
from platform.tracking.registry import ModelState
from typing import Any

import pytest

from tests.platform.small_sweep import SmallSweep

NAME = "cpn-small"


def state_of(small: SmallSweep) -> ModelState:
    state = read_model_state(small.uri, NAME)
    assert state is not None
    return state


def moves(small: SmallSweep) -> list[tuple[str, str | None, str | None]]:
    return [(entry.kind, entry.before, entry.to) for entry in state_of(small).history]


def said_by(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What `promote ... --json` prints."""
    capsys.readouterr()
    assert promote.main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def by_hand(small: SmallSweep, version: str) -> None:
    connect(small.uri).set_registered_model_alias(NAME, CHAMPION, version)


def versions_of(small: SmallSweep, *uids: str) -> dict[str, str]:
    """Versions as somebody makes them in the MLflow UI, of these runs' artifacts and without tags of ours."""
    client, made = connect(small.uri), {}
    experiment = client.get_experiment_by_name("small").experiment_id
    for uid in uids:
        run = client.search_runs([experiment], f"tags.uid = '{uid}'")[0]
        made[uid] = str(client.create_model_version(NAME, f"{run.info.artifact_uri}/model", run.info.run_id).version)
    return made
