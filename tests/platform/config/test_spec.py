"""A specification is right, or it is refused in one line before anything starts."""

from collections.abc import Callable
from pathlib import Path
from platform.base.yaml_files import dump_yaml
from platform.config.space.domains import ChoiceDomain, CurveDomain, FloatDomain, IntDomain
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from platform.search.distributions import told_params
from typing import Any

import pytest
from pydantic import ValidationError

from cpn.config import to_dotted
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


def test_a_number_is_a_name_in_the_file_too(tmp_path: Path) -> None:
    assert load_spec(spec_file(tmp_path, name=2024)).name == "2024"
    assert "should be a valid string" in refusal(lambda: load_spec(spec_file(tmp_path, name=True)))


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("loss.onehot_target", ["yes", "no"], [True, False]),
        ("loss.onehot_target", ["true", "off"], [True, False]),
        ("loss.onehot_target", [1, 0], [True, False]),
        ("train.batch_size", ["2", "4"], [2, 4]),
        ("train.lr", ["0.1", 0.01], [0.1, 0.01]),
        ("loss.alpha", [1, 2.5], [1, 2.5]),
        ("cam.scales", [[1], [0.5, 1]], [[1.0], [0.5, 1.0]]),
        ("patches.kind", ["grid", "superpixel"], ["grid", "superpixel"]),
    ],
    ids=str,
)
def test_choices_are_what_their_names_hold(tmp_path: Path, name: str, written: list[Any], meant: list[Any]) -> None:
    """Otherwise the reference's own value is none of them, and it silently leaves the search."""
    base = {name.split(".")[0]: {name.split(".")[1]: meant[0]}}
    spec = load_spec(spec_file(tmp_path, base=base, search={name: {"choice": written}}))
    choices = spec.search[name].choice  # type: ignore[union-attr]
    assert choices == meant and [type(value) for value in choices] == [type(value) for value in meant]
    assert name in told_params(spec.search, spec.reference)


def test_a_condition_on_such_a_choice_means_the_same(tmp_path: Path) -> None:
    given = {"loss.onehot_target": {"choice": ["yes", "no"]}, "train.batch_size": {"choice": ["2", "4"]}}
    when = {"loss.onehot_target": "yes", "train.batch_size": ["2"]}
    search = {**given, "loss.w_tcp": {"float": [0.1, 10], "when": when}}
    base = {"loss": {"onehot_target": True}, "train": {"batch_size": 2}}
    spec = load_spec(spec_file(tmp_path, base=base, search=search))
    assert spec.search["loss.w_tcp"].when == {"loss.onehot_target": True, "train.batch_size": [2]}  # type: ignore[union-attr]
    assert "loss.w_tcp" in spec.reference


def test_two_choices_that_mean_the_same_are_refused(tmp_path: Path) -> None:
    search = {"train.batch_size": {"choice": ["2", 2]}}
    assert "train.batch_size: the choice 2 stands twice" in refusal(
        lambda: load_spec(spec_file(tmp_path, search=search))
    )


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError):
        load_spec(PATCH).budget.trials = 3  # type: ignore[misc]


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


def test_an_empty_search_runs_only_the_reference(tmp_path: Path) -> None:
    spec = load_spec(spec_file(tmp_path, search={}, budget={}))
    assert spec.trial_limit == 1


@pytest.mark.parametrize(
    ("set_", "said"),
    [
        ("data.rooot=1", "--set: data.rooot: unknown key; did you mean 'data.root'?"),
        ("budgte.trials=1", "--set budgte.trials: unknown key; did you mean 'budget.trials'?"),
        ("budget.trails=3", "--set budget.trails: unknown key; did you mean 'budget.trials'?"),
        ("budget.trials=forty", "--set budget.trials: Input should be a valid integer, given 'forty'"),
        ("budget.trials=0", "--set budget.trials: Input should be greater than or equal to 1"),
        ("name=a/b", "--set name: String should match"),
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
    ("changes", "said"),
    [
        ({"name": "a b"}, "name: String should match pattern"),
        ({"base": 3}, "base: has to hold `key: value` lines"),
        ({"search": {"train.seed": {"int": [0, 9]}}}, "search.train.seed: the best of several seeds is luck"),
        ({"base": {"loss": {"w_tpc": 1}}}, "base: loss.w_tpc: unknown key; did you mean 'loss.w_tcp'?"),
        ({"base": {"patches": {"p_h": "half"}}}, "base: patches.p_h: Input should be a valid number"),
        ({"base": {"preset": "offical"}}, "base: preset: 'offical' is unknown; did you mean 'official'?"),
        ({"budgte": {}}, "budgte: unknown key; did you mean 'budget'?"),
        ({"budget": {"trials": "64"}}, "budget.trials: Input should be a valid integer, given '64'"),
        ({"budget": {"trials": True}}, "budget.trials: Input should be a valid integer, given True"),
        ({"budget": {}}, "budget: the sweep would never end; give budget.trials"),
        ({"pruning": {"grace": 0.3}}, "pruning.grace: Input should be greater than or equal to 0.5, given 0.3"),
        ({"resources": {"concurrent": "aut"}}, "resources.concurrent: write a whole number of at least 1, or auto"),
        (
            {"resources": {"gpus_per_worker": -1}},
            "resources.gpus_per_worker: Input should be greater than or",
        ),
        ({"promote": {"when": "never"}}, "promote.when: Input should be 'always' or 'better', given 'never'"),
        ({"search_options": {"sampler": "tpee"}}, "search_options.sampler: Input should be 'tpe'"),
    ],
)
def test_a_bad_section_is_named_with_its_cure(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = spec_file(tmp_path, **changes)
    assert refusal(lambda: load_spec(path)).startswith(f"{path}: {said}")


GRID = {"patches.kind": "grid"}
BOTH = {"patches.kind": {"choice": ["superpixel", "grid"]}}


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"loss.w_tpc": {"float": [1, 2]}}, "loss.w_tpc: unknown key; did you mean 'loss.w_tcp'?"),
        ({"patches.S_N": {"float": [5, 80]}}, "patches.S_N: float for a field of whole numbers; write {int: [5, 80]}"),
        ({"patches.S_N": {"int": [50, 8]}}, "patches.S_N: low 50 is above high 8; write [8, 50]"),
        ({"patches.S_N": {"int": [0, 8], "log": True}}, "patches.S_N: log needs low > 0, not 0"),
        (
            {"patches.S_N": {"int": [0, 8]}},
            "patches.S_N: 0 is not possible there (Input should be greater",
        ),
        ({"patches.S_N": {"int": [2.5, 8]}}, "patches.S_N.int.0: Input should be a valid integer, given 2.5"),
        ({"patches.S_N": {"int": [2]}}, "patches.S_N.int.1: is missing; add it"),
        ({"patches.S_N": {"int": [2, 3], "lgo": True}}, "patches.S_N.lgo: unknown key; did you mean 'log'?"),
        ({"patches.S_N": {"integer": [2, 3]}}, "patches.S_N: not a domain; write {float: [low, high]}"),
        ({"patches.S_N": [2, 3]}, "patches.S_N: not a domain"),
        ({"patches.p_h": {"float": [0.1, 1.5]}}, "patches.p_h: 1.5 is not possible there"),
        ({"patches.p_h": {"float": [0.1, 0.5], "step": 0.3}}, "patches.p_h: high 0.5 is not low 0.1 plus whole steps"),
        (
            {"patches.p_h": {"float": [0.1, 0.5], "step": 0.1, "log": True}},
            "patches.p_h: log and step exclude",
        ),
        ({"patches.kind": {"choice": ["superpixel", "gird"]}}, "patches.kind: 'gird' is not possible there"),
        ({"patches.kind": {"choice": []}}, "patches.kind.choice: List should have at least 1 item"),
        ({"patches.kind": {"choice": ["grid", "grid"]}}, "patches.kind: the choice 'grid' stands twice"),
        (
            {"patches.K": {"choice": [[4, 7]], "when": GRID}},
            "patches.K: `when` names patches.kind, which is not",
        ),
        (
            {"patches.kind": {"choice": ["superpixel"]}, "patches.K": {"choice": [[4, 7]], "when": GRID}},
            "patches.K: `when` wants patches.kind to be 'grid', which it never is",
        ),
        (
            {"loss.w_cls": {"float": [1, 2]}, "patches.p_h": {"float": [0.1, 0.2], "when": {"loss.w_cls": 1}}},
            "patches.p_h: `when` names loss.w_cls, which is no choice or int",
        ),
        (
            {
                "patches.kind": {"choice": ["superpixel", "grid"], "when": {"patches.S_N": 5}},
                "patches.S_N": {"int": [5, 6], "when": {"patches.kind": "superpixel"}},
            },
            "patches.kind: its `when` leads back to itself",
        ),
        ({"cam.beta": {"choice": [0.3]}}, "cam.beta: beta is read off the curve; write {curve: true}"),
        ({"patches.p_h": {"curve": True}}, "patches.p_h: only cam.beta has a curve"),
        ({"data.root": {"choice": ["a", "b"]}}, "data.root: changes no trial's miou; set it in base instead"),
        ({"crf.iterations": {"int": [1, 10]}}, "crf.iterations: changes no trial's miou"),
    ],
)
def test_a_bad_search_is_named_with_its_cure(tmp_path: Path, search: dict[str, Any], said: str) -> None:
    path = spec_file(tmp_path, search=search)
    assert refusal(lambda: load_spec(path)).startswith(f"{path}: search.{said}")


def test_a_conditional_domain_is_accepted(tmp_path: Path) -> None:
    path = spec_file(tmp_path, search={**BOTH, "patches.K": {"choice": [[4, 7], [7, 14]], "when": GRID}})
    assert list(load_spec(path).search) == ["patches.kind", "patches.K"]


def test_more_than_one_fault_is_counted(tmp_path: Path) -> None:
    path = spec_file(tmp_path, pruning={"grace": 0.1, "audit": 2})
    assert refusal(lambda: load_spec(path)).endswith("(and 1 more)")


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
