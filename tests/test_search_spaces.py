"""Every search space loads, says its question, command and cost, and draws configurations that the method accepts."""

import shlex
from platform.config.spec import load_spec
from platform.config.table_spec import row_config, shown_rows
from platform.plan.dry_run import print_plan
from platform.reports.html.paper_report import header as heads
from platform.search.distributions import draw

import optuna
import pytest

from cpn.config import to_dotted, with_values
from tests.conftest import CHECKOUT

SPACES = sorted((CHECKOUT / "search_spaces").glob("*.yaml"))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_it_loads_and_every_draw_is_a_configuration(path) -> None:  # type: ignore[no-untyped-def]
    spec = load_spec(path)
    from platform.config.space.domains import drawn

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        with_values(spec.base_config, draw(study.ask(), drawn(spec.search)), path.name)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_its_header_says_question_command_and_cost(path) -> None:  # type: ignore[no-untyped-def]
    header = path.read_text().split("name:")[0]
    for head in ("# Question:", "# Command:", "# Cost:", "# Paper:"):
        assert head in header
    words = shlex.split(heads(path)["Command"])
    assert words[:4] == ["python", "-m", "platform.sweep", f"search_spaces/{path.name}"]
    load_spec(path, words[5::2])
    assert set(words[4::2]) <= {"--set"}, "a line to paste, and nothing else"


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_it_goes_to_scene_size_by_one_preset(path, capsys) -> None:  # type: ignore[no-untyped-def]
    """And its dry run goes through without VOC."""
    spec = load_spec(path, ["preset=scenes"])
    assert spec.base_config.data.root is None and spec.base_config.data.scenes is not None
    print_plan(spec, "the command")
    said = capsys.readouterr().out
    assert "synthetic scenes" in said and said.splitlines()[-1] == "nothing was started; next: the command"


BEYOND = {
    "beyond_s_n_range": {"patches.S_N_range"},
    "beyond_hidden_value": {"patches.hidden_value"},
    "beyond_lambda": {"patches.lambda_by"},
    "beyond_momentum": {"train.sgd_momentum", "train.lr"},
    "beyond_prcm": {"network.prcm", "network.prcm_transposed"},
    "beyond_ohem": {"loss.ohem_ratio", "loss.w_cpcr"},
}


@pytest.mark.parametrize("size", ["preset=official", "preset=scenes"])
@pytest.mark.parametrize("name", BEYOND)
def test_beyond_the_paper_rows_differ_only_as_asked(name: str, size: str) -> None:
    """At both sizes, `preset=official` leaving everything as it is."""
    path = CHECKOUT / "search_spaces" / f"{name}.yaml"
    spec = load_spec(path, [size])
    assert spec.table is not None and spec.table.against is not None
    rows = {key: row_config(spec.base, key, row, name) for key, row in spec.table.rows.items()}
    flat = {key: to_dotted(config) for key, config in rows.items()}
    against = flat[spec.table.against]
    assert all(row.scenes_name for row in spec.table.rows.values() if row.scenes) or name == "beyond_momentum"
    differ = {key: {n for n in against if against[n] != values[n]} for key, values in flat.items()}
    assert set().union(*differ.values()) == BEYOND[name]
    assert len(set(rows.values())) == len(rows), "no two rows are the same run"
    if "train.sgd_momentum" in BEYOND[name]:
        assert {config.train.optimizer for config in rows.values()} == {"sgd"}, "AdamW knows no such momentum"


def test_each_backbone_has_the_baseline_then_tcp_then_cpcr() -> None:
    """The second and third row of a backbone differ from the one above by the losses, and what no baseline reads."""
    spec = load_spec(CHECKOUT / "search_spaces" / "beyond_backbone.yaml")
    assert spec.table is not None and spec.table.against == "row above"
    flat = [to_dotted(row_config(spec.base, key, row, "beyond_backbone")) for key, row in spec.table.rows.items()]
    names = [values["network.backbone"] for values in flat]
    assert names == ["resnet38"] * 3 + ["resnet50"] * 3 + ["efficientnet_lite0"] * 3
    unread = {"network.x_scale", "network.prcm"}  # the baseline has no refinement
    for baseline, tcp, cpcr in (flat[start : start + 3] for start in (0, 3, 6)):
        first = {name for name in tcp if tcp[name] != baseline[name]} - unread
        assert first == {"train.objective", "network.pcm", "loss.w_cpcr", "cam.map", "cam.beta"}
        assert {name for name in tcp if cpcr[name] != tcp[name]} - unread == {"loss.w_cpcr", "loss.ohem_ratio"}
        assert (tcp["loss.w_tcp"], tcp["loss.w_cpcr"], cpcr["loss.w_cpcr"]) == (1, 0, 1)


def test_the_joint_search_has_the_runs_of_the_hand_and_no_more() -> None:
    """One for each setting of Fig. 6, Fig. 7 and Table 4 in our files, beside the reference, all of full length."""
    spec, hand = load_spec(CHECKOUT / "search_spaces" / "beyond_joint.yaml"), 0
    on_scenes = 0
    for name in ("fig6", "fig7", "table4"):
        table = load_spec(CHECKOUT / "search_spaces" / f"{name}.yaml").table
        assert table is not None
        hand += len(table.rows)
        there = load_spec(CHECKOUT / "search_spaces" / f"{name}.yaml", ["preset=scenes"])
        on_scenes += len(shown_rows(table, there.base_config))
    assert f"--set budget.trials={1 + on_scenes}" in heads(CHECKOUT / "search_spaces" / "beyond_joint.yaml")["Note"]
    assert spec.budget.trials == 1 + hand == 20 and spec.pruning.kind == "none"
    assert set(spec.search) == {"patches.kind", "patches.S_N", "patches.K", "patches.p_h", "cam.beta"}
    assert spec.reference["patches.S_N"] == 200 and spec.reference["patches.p_h"] == 0.5
