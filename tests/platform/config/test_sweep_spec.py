"""What follows from a specification as a whole: its name, its reference, how many trials it has."""

from pathlib import Path
from platform.config.space.domains import CurveDomain
from platform.config.spec import load_spec
from typing import Any

import pytest
from pydantic import ValidationError

from tests.platform.config.test_spec import PATCH, refusal, spec_file


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError):
        load_spec(PATCH).budget.trials = 3  # type: ignore[misc]


def test_an_empty_search_runs_only_the_reference(tmp_path: Path) -> None:
    spec = load_spec(spec_file(tmp_path, search={}, budget={}))
    assert spec.trial_limit == 1


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"budget": {"trials": 3}}, 3),
        ({"budget": {"wall_hours": 1.0}}, None),
        ({"search": {"cam.beta": {"curve": True}}, "budget": {}}, 1),
        ({"search": {"patches.kind": {"choice": ["superpixel", "grid"]}}, "search_options": {"sampler": "grid"}}, 2),
        (
            {
                "search": {"patches.kind": {"choice": ["superpixel", "grid"]}, "patches.S_N": {"int": [8, 10]}},
                "search_options": {"sampler": "grid"},
                "budget": {"trials": 4},
            },
            4,
        ),
    ],
    ids=["budget", "hours alone", "curve alone", "small grid", "large grid"],
)
def test_how_many_trials_there_are(tmp_path: Path, changes: dict[str, Any], limit: int | None) -> None:
    """A grid's points are counted with the reference, which stands for its own point."""
    assert load_spec(spec_file(tmp_path, **changes)).trial_limit == limit


@pytest.mark.parametrize("name", ["runs", "stages", "cache", "mine.confirm"])
def test_names_that_hold_other_things_are_refused(tmp_path: Path, name: str) -> None:
    said = refusal(lambda: load_spec(spec_file(tmp_path, name=name)))
    assert "sweep.yaml: name: the storage folder or the study keeps other things under this name; take another" in said


def test_the_reference_is_the_base_at_the_searched_names(tmp_path: Path) -> None:
    search = {
        "patches.kind": {"choice": ["superpixel", "grid"]},
        "patches.K": {"choice": [[4, 7]], "when": {"patches.kind": "grid"}},
        "loss.w_tcp": {"float": [2, 10]},
        "cam.beta": {"float": [0.2, 0.6]},
    }
    spec = load_spec(spec_file(tmp_path, search=search, base={"loss": {"w_tcp": 1.5}}))
    assert spec.reference == {"patches.kind": "superpixel", "loss.w_tcp": 1.5}
    assert isinstance(spec.search["cam.beta"], CurveDomain) and spec.search["cam.beta"].within == (0.2, 0.6)
