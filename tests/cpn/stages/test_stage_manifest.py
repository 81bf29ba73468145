"""A stage's manifest as its file holds it, by earlier and later versions too."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cpn.core.checked import read_typed
from cpn.core.files import read_json, write_json
from cpn.propagation.walk_rule import WalkChoice
from cpn.stages.stage_manifest import StageManifest, WalkReport

FIRST: dict[str, Any] = {
    "stage": "deeplab",
    "key": "0f",
    "inputs": {"model": "1a", "random_walk": "2b"},
    "config": {"epochs": 3, "scales": [0.5, 1.0]},
    "metrics": {"miou_val": 51.5},
    "history": [{"epoch": 1, "loss_total": 0.5}],
    "seconds": 12.5,
    "finished": 2000.0,
}
"""What the first version wrote."""
WALK: dict[str, Any] = {
    "choice": {"alpha": 6.5, "logt": 4, "radius": 3, "used": True},
    "rule": {"alpha": None, "logt": 6, "radius": 5, "used": True},
    "metrics": {"used": 1.0, "steps": 16.0},
    "grid": [{"alpha": 6.5, "logt": 4, "miou_select": 50.0, "miou_confirm": 49.0}],
    "words": "random walk: alpha 6.5",
}


@pytest.mark.parametrize("more", [{}, {"files": "3c", "walk": WALK, "earlier_key": "4d"}, {"of_a_later_version": [1]}])
def test_a_file_is_written_again_byte_by_byte(tmp_path: Path, more: dict[str, Any]) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    write_json(one, {**FIRST, **more})
    manifest = read_typed(one, StageManifest)
    write_json(two, manifest.to_json())
    assert one.read_bytes() == two.read_bytes() and read_json(two) == {**FIRST, **more}
    assert (manifest.files is None) == ("files" not in more)


@pytest.mark.parametrize("name", ["stage", "key", "metrics"])
def test_what_every_stage_has_must_be_there(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}\n  Field required"):
        StageManifest.model_validate({key: value for key, value in FIRST.items() if key != name})


def test_the_choice_of_a_walk() -> None:
    walk = WalkReport.model_validate(WALK)
    assert walk.choice == WalkChoice(6.5, 4, 3) and walk.rule == WalkChoice(None, 6, 5)
    assert walk.grid[0].miou_select == 50.0 and walk.to_json() == WALK
