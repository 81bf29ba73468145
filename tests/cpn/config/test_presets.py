import math
from pathlib import Path
from typing import Any

import pytest
import torch

from cpn.config import Config, config_from, to_dotted, with_values
from cpn.config.data import ScenesConfig
from cpn.config.presets import PRESETS
from cpn.data.voc import Pack
from cpn.models.network import build_network
from cpn.run import load_run, run
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

OFFICIAL_AND_PAPER: dict[str, tuple[Any, Any]] = {
    "patches.draw": ("with_replacement", "bernoulli"),
    "patches.S_N": (200, 200),
    "patches.K": ([56, 112], [56, 112]),
    "patches.p_h": (0.5, 0.5),
    "patches.slic_on": ("image", "image"),
    "patches.guard": (False, False),
    "patches.S_N_range": (None, None),
    "patches.hidden_value": ("mean", "mean"),
    "patches.lambda_by": ("pixels", "pixels"),
    "network.prcm_transposed": (False, True),
    "train.sgd_momentum": (0.0005, 0.9),
    "loss.amp_weight": (1.0, 0.0),
    "loss.onehot_target": (True, False),
    "loss.ohem_scope": ("image", "batch"),
    "loss.background": ("after_lambda", "before_lambda"),
    "loss.norm": ("min_max", "max"),
    "loss.alpha": (1.0, 1.0),
}


SYSTEMS: dict[str, dict[str, Any]] = {
    "cam_baseline": {"train.objective": "classification", "cam.map": "plain", "network.pcm": False},
    "seam": {"train.objective": "seam", "network.pcm": True, "network.prcm": False, "cam.map": "refined"},
    "seam_prcm": {"train.objective": "seam", "network.pcm": True, "network.prcm": True, "cam.map": "refined"},
    "cpn_grid": {"train.objective": "cpn", "patches.kind": "grid", "cam.map": "refined"},
    "cpn_superpixel": {"train.objective": "cpn", "patches.kind": "superpixel", "cam.map": "refined"},
    "table2_row1": {"train.objective": "classification", "cam.map": "plain"},
    "table2_row2": {"train.objective": "cpn", "loss.w_cpcr": 0.0, "network.pcm": True, "network.prcm": False},
    "table2_row3": {"loss.w_cpcr": 1.0, "loss.ohem_ratio": None, "network.pcm": True, "network.prcm": False},
    "table2_row4": {"loss.w_cpcr": 1.0, "loss.ohem_ratio": 0.2, "network.pcm": True, "network.prcm": False},
    "table2_row5": {"loss.w_cpcr": 1.0, "loss.ohem_ratio": 0.2, "network.pcm": True, "network.prcm": True},
    "control_pair": {"train.objective": "pair_classification", "cam.map": "plain", "network.pcm": False},
    "control_pcm": {"train.objective": "classification", "cam.map": "refined", "network.pcm": True},
}


@pytest.mark.parametrize("name", OFFICIAL_AND_PAPER)
def test_the_table_of_official_and_paper(name: str) -> None:
    official, paper = OFFICIAL_AND_PAPER[name]
    assert to_dotted(config_from({"preset": "official"}, "test"))[name] == official
    assert to_dotted(config_from({"preset": "paper"}, "test"))[name] == paper


def test_paper_differs_from_official_in_the_table_alone() -> None:
    official, paper = (to_dotted(config_from({"preset": p}, "test")) for p in ("official", "paper"))
    differing = {name for name, (one, other) in OFFICIAL_AND_PAPER.items() if one != other}
    assert {name for name in official if official[name] != paper[name]} == differing


def test_official_is_what_the_sections_default_to() -> None:
    assert config_from({"preset": "official"}, "test") == config_from({}, "test") == Config()


@pytest.mark.parametrize("below", [None, "scenes"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_alone_and_over_scenes(name: str, below: str | None) -> None:
    config = config_from({"preset": [below, name] if below else name}, "test")
    # Every value that the preset names is there: nothing is silently overridden or dropped.
    flat = to_dotted(config)
    for section, values in PRESETS[name].items():
        for key, value in values.items():
            if not isinstance(value, dict):
                assert flat[f"{section}.{key}"] == value
    assert with_values(Config(), flat, "test") == config


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_systems_are_what_their_names_say(name: str) -> None:
    flat = to_dotted(config_from({"preset": name}, "test"))
    assert {key: flat[key] for key in SYSTEMS[name]} == SYSTEMS[name]


def test_the_control_is_the_pair_and_nothing_else() -> None:
    baseline, pair = (to_dotted(config_from({"preset": p}, "test")) for p in ("cam_baseline", "control_pair"))
    assert {name for name in pair if pair[name] != baseline[name]} == {"train.objective"}


def test_the_steps_of_table_2() -> None:
    """Row 2 -> 3: CPCR with a plain mean; 3 -> 4: OHEM; 4 -> 5: PRCM. Each step changes what its column says alone."""
    rows = [to_dotted(config_from({"preset": f"table2_row{row}"}, "test")) for row in (2, 3, 4, 5)]
    changed = [{n for n in a if a[n] != b[n]} for a, b in zip(rows, rows[1:], strict=False)]
    assert changed == [{"loss.w_cpcr", "loss.ohem_ratio"}, {"loss.ohem_ratio"}, {"network.prcm"}]


def test_scenes_need_no_data_set_and_no_files_but_the_stand_in() -> None:
    config = config_from({"preset": "scenes"}, "test")
    assert config.data.root is None and config.data.scenes is not None
    assert config.network.backbone == "scene" and config.network.weights == "scenes"
    assert config.data.crop <= 64 and max(config.patches.K) < config.data.crop


CPN_TERMS = {"cls", "amp", "tcp", "tcp_refined", "cpcr", "total"}
TERMS = {
    "cam_baseline": {"cls", "total"},
    "control_pair": {"cls", "total"},
    "control_pcm": {"cls", "total"},
    "table2_row1": {"cls", "total"},
    "seam": {"cls", "amp", "er", "ecr", "total"},
    "seam_prcm": {"cls", "amp", "er", "ecr", "total"},
}
"""What a system's training reports; every other one has CPN_TERMS."""
REFINING = {
    **dict.fromkeys(("cam_baseline", "control_pair", "control_pcm", "table2_row1"), set()),
    **dict.fromkeys(("seam", "table2_row2", "table2_row3", "table2_row4"), {"f8_3", "f8_4", "f9"}),
}
"""The refining layers that a system trains; every other one trains all four."""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("systems") / "scenes"
    write_scenes(root, ScenesConfig(train=16, val=1, size=64))
    return prepare(root, ["train"])


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_trains_and_is_scored_from_end_to_end(
    name: str, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs of `official` losses on scenes, as a trial takes them: every term finite, the right layers moved."""
    monkeypatch.setattr("cpn.run.run_pictures", lambda *_: {})  # they take longer than all the rest
    small = {
        "data": {"train": "train", "crop": 64, "long_side": [56, 80], "workers": 0},
        "patches": {"S_N": 40, "K": [8, 16]},
        "network": {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8},
        "train": {"epochs": 2},
        "cam": {"scales": [1.0]},
    }
    config = config_from({"preset": name, **small}, "test")
    result = run(config, pack, tmp_path / "run", cache=tmp_path, device=torch.device("cpu"), report=lambda _: None)
    for entry in result.history:
        losses = {key.removeprefix("loss_"): entry[key] for key in entry if key.startswith("loss_")}
        assert losses.keys() == TERMS.get(name, CPN_TERMS) and all(math.isfinite(value) for value in losses.values())
        rest = [key for key in losses if key != "total"]
        assert losses["total"] == pytest.approx(sum(losses[key] for key in rest), rel=1e-5), "official weights are 1"
    if name == "table2_row2":
        assert all(entry["loss_cpcr"] == 0 < entry["loss_tcp_refined"] for entry in result.history)
    for metric in ("miou", "miou_fixed_beta", "miou_confirm", "miou_train"):
        assert 0 < result.metrics[metric] <= 100, metric
    torch.manual_seed(config.train.seed)
    before = build_network(config.network, len(pack.classes) + 1).state_dict()
    after, _, _ = load_run(tmp_path / "run" / "model.safetensors")
    moved = {key.split(".")[0] for key, value in after.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"backbone", "fc8"} | REFINING.get(name, {"f8_3", "f8_4", "f9", "f10"})


def test_each_system_brings_a_background_score_of_its_own() -> None:
    """A common fixed beta is unfair: the best one differs by system, and SEAM never scans beyond .59."""
    beta = {name: config_from({"preset": name}, "test").cam.beta for name in SYSTEMS}
    plain = {name for name in SYSTEMS if SYSTEMS[name].get("cam.map") == "plain"}
    assert {beta[name] for name in plain} == {0.44} and beta["seam"] == beta["seam_prcm"] < 0.6
    assert beta["control_pcm"] == 0.56, "an untrained PCM spreads maps less than a trained one"
    others = beta.keys() - plain - {"seam", "seam_prcm", "control_pcm"}
    assert {beta[name] for name in others} == {Config().cam.beta}
