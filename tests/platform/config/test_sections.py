"""A value that a section of a specification refuses is named in one line, with its cure."""

from pathlib import Path
from platform.config.sections import Budget, Resources, SearchOptions
from platform.config.spec import load_spec
from typing import Any

import pytest
from pydantic import ValidationError

from tests.platform.config.test_spec import refusal, spec_file


def test_a_number_is_a_name_in_the_file_too(tmp_path: Path) -> None:
    assert load_spec(spec_file(tmp_path, name=2024)).name == "2024"
    assert "should be a text" in refusal(lambda: load_spec(spec_file(tmp_path, name=True)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a b"}, "name: is written in letters, digits"),
        ({"base": 3}, "base: has to hold `key: value` lines"),
        ({"search": {"train.seed": {"int": [0, 9]}}}, "search.train.seed: the best of several seeds is luck"),
        ({"base": {"loss": {"w_tpc": 1}}}, "base: loss.w_tpc: unknown key; did you mean 'loss.w_tcp'?"),
        ({"base": {"patches": {"p_h": "half"}}}, "base: patches.p_h: Input should be a number"),
        ({"base": {"preset": "offical"}}, "base: preset: 'offical' is unknown; did you mean 'official'?"),
        ({"budgte": {}}, "budgte: unknown key; did you mean 'budget'?"),
        ({"budget": {"trials": "64"}}, "budget.trials: Input should be a whole number, given '64'"),
        ({"budget": {"trials": True}}, "budget.trials: Input should be a whole number, given true"),
        ({"budget": {}}, "budget: the sweep would never end; give budget.trials"),
        ({"pruning": {"grace": 0.3}}, "pruning.grace: Input should be greater than or equal to 0.5, given 0.3"),
        ({"resources": {"concurrent": "aut"}}, "resources.concurrent: write a whole number of at least 1, or auto"),
        (
            {"resources": {"gpus_per_worker": -1}},
            "resources.gpus_per_worker: Input should be greater than or",
        ),
        ({"promote": {"when": "never"}}, "promote.when: Input should be 'always' or 'better', given 'never'"),
        ({"search_options": {"sampler": "tpee"}}, "search_options.sampler: Input should be 'gp', 'tpe'"),
    ],
)
def test_a_bad_section_is_named_with_its_cure(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = spec_file(tmp_path, **changes)
    assert refusal(lambda: load_spec(path)).startswith(f"{path}: {said}")


def test_more_than_one_fault_is_counted(tmp_path: Path) -> None:
    path = spec_file(tmp_path, pruning={"grace": 0.1, "audit": 2})
    assert refusal(lambda: load_spec(path)).endswith("(and 1 more)")


@pytest.mark.parametrize("concurrent", [0, -1, True, 1.5, None], ids=str)
def test_trials_at_a_time_are_a_whole_number(concurrent: Any) -> None:
    with pytest.raises(ValidationError, match="write a whole number of at least 1, or auto"):
        Resources(concurrent=concurrent)


def test_cards_of_a_worker_are_rounded_up_to_workers() -> None:
    with pytest.raises(ValidationError, match="write workers: 2, gpus_per_worker: 1"):
        Resources(gpus_per_worker=1.5)


@pytest.mark.parametrize("names", [[True], [""], [None], {"a": 1}], ids=str)
def test_sweeps_to_learn_from_are_a_list_of_names(names: Any) -> None:
    with pytest.raises(ValidationError, match="write a list of the sweeps' names, \\[\\] for none"):
        SearchOptions(warm_start=names)


@pytest.mark.parametrize("place", ["s3:/bucket/x", "s3:bucket", "S3://bucket", "file:/tmp/x", "gs://b", "://b"])
def test_a_url_that_is_mistyped_is_no_folder(place: str) -> None:
    with pytest.raises(ValidationError, match="write a folder, or s3://BUCKET/PREFIX"):
        Resources(storage=place)
    assert Resources(storage=f"./{place.replace('://', ':')}").storage.startswith("./")


@pytest.mark.parametrize("sign", "\n\t\x07\u2028\u200b", ids=ascii)
def test_a_folder_is_not_made_with_signs_that_nobody_sees(sign: str) -> None:
    with pytest.raises(ValidationError, match="holds a line break or another sign that cannot be seen; correct it"):
        Resources(storage=f"swe{sign}eps")


def test_a_share_of_one_hundred_is_no_miou() -> None:
    with pytest.raises(ValidationError, match="this is in percent; write 100 if you mean 1 of 1"):
        Budget(target_miou=1)
    assert Budget(target_miou=1.01).target_miou == 1.01


@pytest.mark.parametrize(
    "resources",
    [{"gpus_per_worker": 1}, {"concurrent": 4, "autoscaled": True}, {"workers": 2, "min_workers": 2},
     {"storage": "s3://bucket/prefix"}, {"accelerator": "A100", "gpus_per_worker": 0.5}],
    ids=lambda value: "-".join(value),
)  # fmt: skip
def test_the_last_value_before_a_refusal_is_taken(resources: dict[str, Any]) -> None:
    assert Resources.model_validate(resources).model_dump(exclude_unset=True) == resources
