"""A run's manifest as its file holds it, by earlier and later versions too."""

from typing import Any

import pytest
from pydantic import ValidationError

from cpn.scoring.run_manifest import Curve, Lineage, RunManifest

LEAST: dict[str, Any] = {"key": "k", "history": [{"epoch": 1}], "metrics": {"miou": 50.0}, "digests": {}}
"""What an earlier version wrote, and every version needs."""


def test_an_earlier_version_lacks_what_it_did_not_write() -> None:
    manifest = RunManifest.model_validate(LEAST)
    assert (manifest.version, manifest.curve, manifest.iou, manifest.classes) == (0, None, (), ())
    assert manifest.to_json() == LEAST


def test_what_a_later_version_adds_is_kept() -> None:
    later = {**LEAST, "new": {"a": [1]}, "curve": {"beta": [0.1], "miou": [5.0], "more": 1}}
    assert RunManifest.model_validate(later).to_json() == later


def test_whole_numbers_stay_whole() -> None:
    kept = RunManifest.model_validate({**LEAST, "history": [{"epoch": 3, "lr": 0.5}]}).to_json()["history"]
    assert [type(value) for value in kept[0].values()] == [int, float]


@pytest.mark.parametrize("name", LEAST)
def test_what_every_run_has_must_be_there(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}\n  Field required"):
        RunManifest.model_validate({key: value for key, value in LEAST.items() if key != name})


def test_a_manifest_is_frozen() -> None:
    manifest = RunManifest.model_validate({**LEAST, "curve": {"beta": [0.1], "miou": [5.0]}})
    with pytest.raises(ValidationError, match="frozen"):
        manifest.key = "other"  # type: ignore[misc]
    assert manifest.curve == Curve(beta=(0.1,), miou=(5.0,))
    with pytest.raises(ValidationError, match="frozen"):
        manifest.curve.beta = ()  # type: ignore[misc]


def test_nulls_of_an_earlier_version_are_left_out() -> None:
    history = [{"epoch": 1, "miou_epoch": None}, {"epoch": 2, "miou_epoch": 40.0}]
    manifest = RunManifest.model_validate({**LEAST, "history": history, "metrics": {"miou": None, "beta": 0.5}})
    assert manifest.history == ({"epoch": 1}, {"epoch": 2, "miou_epoch": 40.0}) and manifest.metrics == {"beta": 0.5}


def test_what_it_says_of_its_network() -> None:
    assert RunManifest.model_validate(LEAST).lineage == Lineage(0)
    told = {"version": 3, "fingerprint": "f", "classes": ["cat"], "digests": {"model.safetensors": "d"}}
    assert RunManifest.model_validate({**LEAST, **told}).lineage == Lineage(3, "f", "d", ("cat",))


def test_scores_by_scale() -> None:
    rows = [{"scale": "1", "miou": 41.0}, {"scale": "all", "miou": 42.0, "iou_background": 80.0, "iou": {"cat": 3.0}}]
    manifest = RunManifest.model_validate({**LEAST, "scales": rows})
    assert [row.iou_background for row in manifest.scales] == [None, 80.0]
    assert manifest.to_json()["scales"] == rows
