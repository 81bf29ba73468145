import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cpn.config import (
    Config,
    config_from,
    known_names,
    merge,
    run_identity,
    run_key,
    to_dotted,
    with_values,
)
from cpn.config import configuration as module
from cpn.config.presets import PRESETS
from cpn.core.errors import InputError


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(InputError) as refused:
        config_from(values, "my.yaml")
    message = str(refused.value)
    assert message.startswith("my.yaml: ") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"loss": {"w_tpc": 1}}, ["loss.w_tpc: unknown key", "did you mean 'loss.w_tcp'?"]),
        ({"pathces": {}}, ["pathces: unknown key", "did you mean 'patches'?"]),
        ({"data": {"scenes": {"sise": 1}}}, ["data.scenes.sise: unknown key", "'data.scenes.size'"]),
        ({"deeplab": {"crf": {"iteration": 1}}}, ["deeplab.crf.iteration: unknown key", "'deeplab.crf.iterations'"]),
        ({"zzzzzz": 1}, ["zzzzzz: unknown key"]),
        ({"train": {"epochs": "many"}}, ["train.epochs: ", "whole number", "given 'many'"]),
        ({"train": {"epochs": 1.5}}, ["train.epochs: ", "whole number", "given 1.5"]),
        ({"train": 5}, ["train: ", "given 5"]),
        ({"patches": {"K": 56}}, ["patches.K: ", "given 56"]),
        ({"patches": {"kind": "gird"}}, ["patches.kind: ", "'superpixel' or 'grid'", "given 'gird'"]),
        ({"patches": {"p_h": 1.5}}, ["patches.p_h: ", "less than 1", "given 1.5"]),
        ({"train": {"lr": float("nan")}}, ["train.lr: "]),
        ({"patches": {"K": [56, 0]}}, ["patches.K.1: ", "greater than or equal to 1", "given 0"]),
        ({"data": {"long_side": [9, 8]}}, ["data: long_side is [9, 8]: give [smallest, largest]"]),
        ({"train": {"epochs": 0, "lr": 0, "seed": -1}}, ["train.epochs", "(and 2 more)"]),
        ({"preset": "scene"}, ["preset: 'scene' is unknown", "did you mean 'scenes'?", "official, paper"]),
        ({"preset": ["official", "qqqqqqq"]}, ["preset: 'qqqqqqq' is unknown; there are official"]),
        ({"preset": 5}, ["preset: 5 is neither a name nor a list"]),
        ({"preset": {"scenes": 1}}, ["preset: {'scenes': 1} is neither a name nor a list"]),
        ({"preset": [["scenes"]]}, ["preset: ", "is unknown"]),
    ],
)
def test_bad_input_is_one_line_with_key_and_cure(values: dict[str, Any], words: list[str]) -> None:
    message = refusal(values)
    for word in words:
        assert word in message


def test_an_unknown_key_that_resembles_none_names_none() -> None:
    assert "did you mean" not in refusal({"zzzzzz": 1})


def test_own_values_and_later_presets_win() -> None:
    assert config_from({"preset": "paper"}, "x").train.sgd_momentum == 0.9
    own = config_from({"preset": "paper", "train": {"sgd_momentum": 0.5}}, "x")
    assert own.train.sgd_momentum == 0.5 and own.patches.draw == "bernoulli"
    grid_last = config_from({"preset": ["cpn_superpixel", "cpn_grid"]}, "x")
    grid_first = config_from({"preset": ["cpn_grid", "cpn_superpixel"]}, "x")
    assert (grid_last.patches.kind, grid_first.patches.kind) == ("grid", "superpixel")
    assert config_from({"preset": None}, "x") == config_from({"preset": []}, "x") == Config()


def test_building_a_configuration_changes_no_argument() -> None:
    before = repr(PRESETS)
    values = {"preset": ["scenes", "paper"], "patches": {"K": [4, 7]}}
    config_from(values, "x")
    assert repr(PRESETS) == before and values == {"preset": ["scenes", "paper"], "patches": {"K": [4, 7]}}


def test_lists_are_replaced_never_joined() -> None:
    assert config_from({"patches": {"K": [4]}}, "x").patches.K == (4,)
    assert merge({"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}, "d": {"e": 1}}) == {
        "a": {"b": 1, "c": [2]},
        "d": {"e": 1},
    }


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().train.lr = 1.0  # type: ignore[misc]


def test_values_by_dotted_name() -> None:
    config = Config()
    changed = with_values(
        config,
        {
            "loss.w_tcp": 0.7,
            "patches.K": [4, 7],
            "loss.ohem_ratio": None,
            "deeplab.crf.iterations": 3,
            "data.scenes": {},
        },
        "--set",
    )
    assert changed.loss.w_tcp == 0.7 and changed.patches.K == (4, 7) and changed.loss.ohem_ratio is None
    assert changed.deeplab.crf.iterations == 3 and changed.deeplab.crf.sxy_bilateral == 32
    assert changed.data.scenes is not None
    assert config == Config() and with_values(config, {}, "x") == config
    differing = {n for n, v in to_dotted(changed).items() if to_dotted(config).get(n, "absent") != v}
    assert {n for n in differing if not n.startswith("data.scenes")} == {
        "loss.w_tcp",
        "patches.K",
        "loss.ohem_ratio",
        "deeplab.crf.iterations",
    }


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("loss.w_tpc", 1, "--set: loss.w_tpc: unknown key; did you mean 'loss.w_tcp'?"),
        ("lr", 1, "--set: lr: unknown key"),
        ("loss.w_tcp.x", 1, "--set: loss.w_tcp.x: unknown key"),
        ("loss.w_tcp", -1, "--set: loss.w_tcp: Input should be greater than or equal to 0, given -1"),
    ],
)
def test_bad_dotted_values(name: str, value: object, words: str) -> None:
    with pytest.raises(InputError) as refused:
        with_values(Config(), {name: value}, "--set")
    assert str(refused.value).startswith(words) and "\n" not in str(refused.value)


@pytest.mark.parametrize("presets", [[], ["scenes"], ["paper", "scenes", "seam"]])
def test_dotted_values_bring_the_configuration_back(presets: list[str]) -> None:
    config = config_from({"preset": presets}, "x")
    flat = to_dotted(config)
    assert with_values(Config(), flat, "x") == config
    assert all(isinstance(v, (str, int, float, bool, list, type(None))) for v in flat.values())
    assert set(flat) <= set(known_names())
    # Nothing is left out: every name without further names under it has a value.
    leaves = {n for n in known_names() if not any(other.startswith(n + ".") for other in known_names())}
    assert leaves - set(flat) == (set() if "scenes" in presets else {n for n in leaves if n.startswith("data.scenes.")})


@given(lr=st.floats(1e-6, 1.0), sides=st.lists(st.integers(1, 500), min_size=1, max_size=4), seed=st.integers(0, 2**40))
def test_any_value_survives_the_round_trip(lr: float, sides: list[int], seed: int) -> None:
    config = with_values(Config(), {"train.lr": lr, "patches.K": sides, "train.seed": seed}, "x")
    again = with_values(Config(), to_dotted(config), "x")
    assert again == config and run_key(again, "f") == run_key(config, "f")


def test_the_key_of_a_run() -> None:
    config = Config()
    key = run_key(config, "fingerprint")
    assert len(key) == 16 and key == run_key(Config(), "fingerprint")
    without_effect = {
        "data.root": "/elsewhere",
        "data.workers": 9,
        "train.checkpoint_minutes": None,
        "crf.iterations": 3,
        "deeplab.lr": 0.5,
    }
    for name, value in without_effect.items():
        assert run_key(with_values(config, {name: value}, "x"), "fingerprint") == key, name
    with_effect = {
        "train.seed": 1,
        "train.lr": 0.02,
        "patches.K": [112, 56],
        "cam.scales": [1.0],
        "data.crop": 64,
        "network.weights": "scenes",
        "loss.ohem_ratio": None,
        "data.scenes": {"seed": 1},
    }
    keys = {
        name: run_key(with_values(config, {name: value}, "x"), "fingerprint") for name, value in with_effect.items()
    }
    assert len({key, *keys.values()}) == 1 + len(with_effect)
    assert run_key(config, "other data") != key


def test_the_method_version_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key = run_key(Config(), "fingerprint")
    monkeypatch.setattr(module, "METHOD_VERSION", module.METHOD_VERSION + 1)
    assert run_key(Config(), "fingerprint") != key


def test_later_options_leave_earlier_keys_alone() -> None:
    """At the value that says what was done before they are in no key, and otherwise they are."""
    patches = {name for name in run_identity(Config()) if name.startswith("patches.")}
    assert patches == {f"patches.{name}" for name in ("kind", "S_N", "slic_on", "K", "p_h", "draw", "guard")}
    values, key = to_dotted(Config()), run_key(Config(), "fingerprint")
    assert {name: values[name] for name in module.ADDED} == module.ADDED, "their defaults do what was done before"
    changes = {"patches.S_N_range": [50, 800], "patches.hidden_value": "blur", "patches.lambda_by": "patches"}
    changes |= {
        "cam.sizes": "aligned",
        "cam.long_side": 321,
        "cam.max_pixels": 300_000,
        "network.x_scale": "unit",
        "network.x_image": 0.5,
        "network.prcm_scale": 0.5,
    }
    changes |= {"cam.epoch_images": 50, "train.epoch_images": 50, "train.compiled": "default"}
    # Those of later stages are in no run's key: test_pipeline.py.
    stages = {name for name in module.ADDED if name.startswith(("deeplab.", "instance_masks."))}
    stages |= {"random_walk.keep_if", "irn.map_power"}
    assert changes.keys() | stages == module.ADDED.keys()
    for name, value in changes.items():
        changed = with_values(Config(), {name: value}, "x")
        assert run_identity(changed)[name] == value and run_key(changed, "fingerprint") != key


def test_the_identity_holds_the_sections_of_a_run_alone() -> None:
    sections = {name.split(".")[0] for name in run_identity(Config())}
    assert sections == {"data", "patches", "network", "loss", "train", "cam"}


PYTHONS = re.compile(r"\b(tuple|None|True|False|dictionary|integer|string|parse|validation|Field|[Tt]uple)\b|\(.*,\)")


@pytest.mark.parametrize("value", [None, True, 1.5, "x", [], ["x"], [None], {"x": 1}], ids=str)
def test_no_refusal_speaks_python(value: Any) -> None:
    """Who writes YAML knows lists, texts, null and true, whichever value is wrong."""
    refused = 0
    for name in known_names():
        try:
            with_values(Config(), {name: value}, "s.yaml")
        except InputError as error:
            refused += 1
            assert PYTHONS.search(str(error).replace(name, "")) is None, str(error)
    assert refused > 10


def test_none_is_told_to_be_null() -> None:
    assert refusal({"loss": {"ohem_ratio": "None"}}).endswith("given 'None'; write null for none")
