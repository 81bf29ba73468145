"""In which fields two identities of a sweep differ, and what counts as a difference."""

import json
from pathlib import Path
from platform.config.identity import StudyIdentity, as_begun, difference, identity_of, known_by_content
from typing import Any

import pytest

from cpn.config import METHOD_VERSION
from cpn.core.errors import InputError
from tests.platform.search.test_study import make_spec


def test_an_old_study_goes_on_and_changed_content_is_refused() -> None:
    def identity(**base: Any) -> StudyIdentity:
        return StudyIdentity(base={f"network.{name}": value for name, value in base.items()}, metric="miou")

    new = identity(weights="sha256:1", backbone="mine:Net", backbone_code="sha256:2")
    for old in (identity(weights="w.safetensors", backbone="mine:Net"), new):
        assert differing(known_by_content(old, new), new) is None
    for old, word in (
        (identity(weights="sha256:3", backbone="mine:Net", backbone_code="sha256:2"), "network.weights"),
        (identity(weights="sha256:1", backbone="mine:Net", backbone_code="sha256:4"), "network.backbone_code"),
        (identity(weights="w.safetensors", backbone="other:Net"), "network.backbone was 'other:Net'"),
        (identity(weights=None, backbone="mine:Net"), "network.weights was None"),
        (identity(weights="scenes", backbone="mine:Net"), "network.weights was 'scenes'"),
    ):
        assert word in (differing(known_by_content(old, new), new) or "")


def test_it_holds_what_decides_a_trial(tmp_path: Path) -> None:
    identity = identity_of(make_spec(tmp_path, "search_options.history=60"), "f00d")
    kept = identity.to_json()
    assert set(kept) == {"base", "search", "search_options", "metric", "mode", "data", "method_version"}
    assert (identity.metric, identity.mode) == ("miou", "max")
    assert (identity.data, identity.method_version) == ("f00d", METHOD_VERSION)
    assert identity.base["train.seed"] == 5
    assert kept["search"]["loss.w_tcp"] == {"float": [0.1, 10.0], "log": True}
    assert identity.search_options == {"sampler": "gp", "seed": 0, "history": 60}
    assert StudyIdentity.read(json.loads(json.dumps(kept)), "-").to_json() == kept


def differing(old: StudyIdentity, new: StudyIdentity) -> str | None:
    return difference(old.to_json(), new.to_json())


def test_an_identity_of_an_earlier_version_is_kept_as_it_stands() -> None:
    old = {"base": {"a": 1}, "metric": "miou", "something": [1, None]}
    assert StudyIdentity.read(old, "-").to_json() == old and StudyIdentity.read({}, "-").to_json() == {}
    with pytest.raises(InputError, match=r"^s\.db: its attribute identity is damaged \(base: .*--set name=NEW$"):
        StudyIdentity.read({"base": 3}, "s.db")


def test_a_sweep_goes_on_with_the_sampler_it_began_with(tmp_path: Path) -> None:
    """The default was another before."""
    old = identity_of(make_spec(tmp_path, "search_options.sampler=tpe", "search_options.seed=3"), "f00d")
    unnamed = make_spec(tmp_path, "search_options.seed=3")
    assert differing(old, identity_of(as_begun(unnamed, old), "f00d")) is None
    assert as_begun(unnamed, old).search_options.sampler == "tpe" and unnamed.search_options.sampler == "gp"
    named = make_spec(tmp_path, "search_options.sampler=gp", "search_options.seed=3")
    words = differing(old, identity_of(as_begun(named, old), "f00d"))
    assert words == "search_options.sampler was 'tpe', is 'gp'"
    assert as_begun(unnamed, StudyIdentity()) is as_begun(unnamed, identity_of(unnamed, "f00d")) is unnamed


@pytest.mark.parametrize(
    "text",
    ["budget.trials=9", "resources.concurrent=2", "pruning.kind=none", "tracking.uri=sqlite:///x.db", "data.root=/x",
     "deeplab.width=8", "promote.when=always", "search_options.history=500"],
)  # fmt: skip
def test_what_changes_no_trial_is_not_in_it(tmp_path: Path, text: str) -> None:
    before, after = (identity_of(make_spec(tmp_path, *sets), "f00d") for sets in ((), (text,)))
    assert differing(before, after) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loss.w_tcp=2", "base.loss.w_tcp was 1.0, is 2.0"),
        ("search_options.seed=1", "search_options.seed was 0, is 1"),
        ("search.loss.w_tcp.log=false", "search.loss.w_tcp.log was True, is absent"),
        ("objective=mask_free", "metric was 'miou', is 'mask_free'"),
    ],
    ids=["base", "option", "domain", "objective"],
)
def test_what_changes_a_trial_is_named(tmp_path: Path, text: str, words: str) -> None:
    before, after = (identity_of(make_spec(tmp_path, *sets), "f00d") for sets in ((), (text,)))
    assert differing(before, after) == words


def test_three_differences_are_named_and_the_rest_counted() -> None:
    old, new = ({name: value for name in "abcde"} for value in (1, 2))
    assert difference(old, new) == "a was 1, is 2, b was 1, is 2, c was 1, is 2 and 2 more"


def test_a_tuple_reads_back_as_a_list_and_is_the_same() -> None:
    old, new = {"x": {"float": (0.1, 1.0)}, "seed": 0}, {"x": {"float": [0.1, 1.0]}, "seed": 1}
    assert difference(old, new) == "seed was 0, is 1"


def test_none_is_not_the_same_as_absent() -> None:
    assert difference({"a": None}, {}) == "a was None, is absent"
