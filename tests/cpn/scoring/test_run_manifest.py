"""A run's manifest as its file holds it, by earlier and later versions too."""

from typing import Any

import pytest
from pydantic import ValidationError

from cpn.scoring.run_manifest import Curve, RunManifest

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
