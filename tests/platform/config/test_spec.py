"""A specification is right, or it is refused in one line before anything starts."""

from collections.abc import Callable
from pathlib import Path
from platform.base.yaml_files import dump_yaml
from platform.config.space.domains import ChoiceDomain, CurveDomain, FloatDomain, IntDomain
from platform.config.spec import load_spec, spec_from, sweep_names
from platform.config.sweep_spec import SweepSpec
from platform.config.table_spec import Row, Table
from typing import Any

import pytest

from cpn.config import known_names, merge, to_dotted
from cpn.core.errors import InputError
from tests.cpn.config.sections import whole_numbers

PATCH = Path(__file__).parents[3] / "search_spaces" / "patch.yaml"


def spec_file(folder: Path, **changes: Any) -> Path:
    """A small valid specification with some sections replaced."""
    path = folder / "sweep.yaml"
    dump_yaml(
        path, {"name": "small", "search": {"loss.w_tcp": {"float": [0.1, 10]}}, "budget": {"trials": 3}, **changes}
    )
    return path


def refusal(load: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        load()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_patch_yaml_reads_as_designed() -> None:
    spec = load_spec(PATCH)
    assert spec.name == "patch" and spec.trial_limit == 64
    assert list(spec.search)[:4] == ["patches.kind", "patches.S_N", "patches.K", "patches.p_h"]
    kinds = [type(spec.search[name]) for name in ("patches.kind", "patches.S_N", "patches.p_h", "cam.beta")]
    assert kinds == [ChoiceDomain, IntDomain, FloatDomain, CurveDomain]
    assert spec.base_config.patches.draw == "bernoulli" and spec.base_config.data.root == "/data/VOC2012"
    assert spec.resources.concurrent == "auto" and spec.pruning.reduction == 2


@pytest.mark.parametrize(
    ("sets", "read"),
    [
        (["name=123456"], lambda spec: spec.name == "123456"),
        (["name=007"], lambda spec: spec.name == "007"),
        (["name=1e5"], lambda spec: spec.name == "1e5"),
        (["name=12_7"], lambda spec: spec.name == "12_7"),
        (["resources.storage=2024"], lambda spec: spec.resources.storage == "2024"),
        (["search_options.warm_start=[123, other]"], lambda spec: spec.search_options.warm_start == ("123", "other")),
        (["data.train=2012"], lambda spec: spec.base_config.data.train == "2012"),
    ],
    ids=lambda value: str(value) if isinstance(value, list) else "",
)
def test_a_number_is_a_name(tmp_path: Path, sets: list[str], read: Callable[[Any], bool]) -> None:
    """`--set name=$SLURM_JOB_ID`: quotes do not survive a shell."""
    assert read(load_spec(spec_file(tmp_path), sets))


def test_set_reaches_base_sweep_sections_name_preset_and_search() -> None:
    spec = load_spec(
        PATCH,
        [
            "data.root=/elsewhere",
            "patches.K=[8, 16]",
            "budget.trials=40",
            "budget.wall_hours=1.5",
            "name=other",
            "preset=paper",
            "search.patches.p_h.float=[0.2, 0.3]",
            "search.loss.w_cls=null",
            "search.loss.alpha={choice: [1, 2]}",
        ],
    )
    base = to_dotted(spec.base_config)
    assert base["data.root"] == "/elsewhere" and base["patches.K"] == [8, 16]
    assert base["loss.onehot_target"] is False and base["patches.draw"] == "bernoulli"  # paper under what the file says
    assert spec.base["preset"] == ["official", "paper"]
    assert (spec.budget.trials, spec.budget.wall_hours, spec.name) == (40, 1.5, "other")
    p_h = spec.search["patches.p_h"]
    assert isinstance(p_h, FloatDomain) and p_h.ends == (0.2, 0.3)
    assert "loss.w_cls" not in spec.search and "loss.alpha" in spec.search


@pytest.mark.parametrize(
    ("set_", "said"),
    [
        ("data.rooot=1", "--set: data.rooot: unknown key; did you mean 'data.root'?"),
        ("budgte.trials=1", "--set budgte.trials: unknown key; did you mean 'budget.trials'?"),
        ("budget.trails=3", "--set budget.trails: unknown key; did you mean 'budget.trials'?"),
        ("budget.trials=forty", "--set budget.trials: Input should be a whole number, given 'forty'"),
        ("budget.trials=0", "--set budget.trials: Input should be greater than or equal to 1"),
        ("name=a/b", "--set name: is written in letters"),
        ("preset=", "--set preset: names no preset, and takes none away; name one, or leave it out"),
        ("preset=null", "--set preset: names no preset, and takes none away"),
        ("preset=[]", "--set preset: names no preset, and takes none away"),
        ("preset=scens", "--set preset: preset: 'scens' is unknown; did you mean 'scenes'?"),
        ("patches.p_h=2", "--set: patches.p_h: Input should be less than 1, given 2"),
        ("base.data.root=/x", "--set base.data.root: write it without `base.`: --set data.root=..."),
        ("budget.trials", "--set budget.trials: write name=value"),
        ("=3", "--set =3: write name=value"),
        ("search.patches.q={int: [1, 2]}", "--set search.patches.q: patches.q is not a name of the method"),
        ("search.patches.p_h.flaot=[0, 1]", "--set search.patches.p_h.flaot: unknown key; did you mean 'float'?"),
        ("patches.K=[1", "--set patches.K: not valid YAML"),
    ],
)
def test_a_bad_set_is_named_with_its_cure(set_: str, said: str) -> None:
    assert refusal(lambda: load_spec(PATCH, [set_])).startswith(said)


@pytest.mark.parametrize(
    ("set_", "said"),
    [
        ("data.root=~unknown/x", "--set data.root: ~unknown/x: there is no such home folder"),
        ("network={weights: ~unknown/x}", "--set network: network.weights: ~unknown/x: there is no such home"),
        ("table.title=T", "FILE: table.rows: is missing beside --set table.title; add it, or drop that"),
        ("table.rows=null", "FILE: table.title: is missing beside --set table.rows; add it, or drop that"),
        ("table.rows.a.maps=~unknown/x", "--set table.rows.a.maps: ~unknown/x: there is no such home folder"),
        ("table={title: T, rows: {a: {}}}", "FILE: search: a table runs its rows and searches nothing; drop it"),
    ],
)
def test_what_a_set_brings_about_is_said_of_it(tmp_path: Path, set_: str, said: str) -> None:
    path = spec_file(tmp_path)
    assert refusal(lambda: load_spec(path, [set_])).startswith(said.replace("FILE", str(path)))


def test_a_set_search_of_a_table_is_named(tmp_path: Path) -> None:
    path = spec_file(tmp_path, search={}, table={"title": "T", "rows": {"a": {}}})
    said = refusal(lambda: load_spec(path, ["search.loss.w_tcp={float: [1, 2]}"]))
    assert said.startswith("--set search.loss.w_tcp: a table runs its rows and searches nothing; drop it")


KEYS = (
    *sweep_names(),
    *(f"base.{name}" for name in known_names()),
    *(f"table.{name}" for name in Table.model_fields),
    *(f"table.rows.a.{name}" for name in Row.model_fields),
    *(f"table.rows.a.values.{name}" for name in known_names()),
)


@pytest.mark.parametrize("wrong", ["~unknown/x", {"x": {"y": 1}}], ids=["text", "mapping"])
def test_every_refusal_names_file_and_key(tmp_path: Path, wrong: Any) -> None:
    path, refused, unnamed = tmp_path / "sweep.yaml", 0, []
    for key in KEYS:
        raw: dict[str, Any] = {"name": "small", "base": {"preset": "official"}, "budget": {"trials": 3}}
        if key.startswith("table"):
            raw["table"] = {"title": "T", "rows": {"a": {}}}
        given = wrong
        for part in reversed(key.split(".")):
            given = {part: given}
        try:
            spec_from(merge(raw, given), [], path)
        except InputError as error:
            refused += 1
            if not str(error).startswith(f"{path}: ") or not any(
                part in str(error) for part in (key.rpartition(".")[2], "x: unknown")
            ):
                unnamed.append(f"{key}: {error}")
    assert not unnamed and refused > 400


def test_the_opening_comment_is_the_question(tmp_path: Path) -> None:
    path = spec_file(tmp_path)
    body = path.read_text()
    for head, question in (
        ("# Question: is more\n#           better?\n# Command:  x\n", "is more better?"),
        ("# Is more better?\n#\n# Something else.\n", "Is more better?"),
        ("", None),
    ):
        path.write_text(head + body)
        assert load_spec(path).question == question
    path.write_text("# Question: a?\nquestion: b?\n" + body)
    assert load_spec(path).question == "b?"
    assert load_spec(path, ["question=c?"]).question == "c?"
    path.write_text("# a\n" + body)
    assert load_spec(path).question == "a" and load_spec(PATCH).question is not None


LARGE = dict(whole_numbers(SweepSpec))


@pytest.mark.parametrize("name", list(LARGE))
@pytest.mark.parametrize("written", ["1000000000000", "1e12"])
def test_a_whole_number_of_a_sweep_has_an_upper_limit(tmp_path: Path, name: str, written: str) -> None:
    assert name.partition(".")[0] in refusal(lambda: load_spec(spec_file(tmp_path), [f"{name}={written}"]))
