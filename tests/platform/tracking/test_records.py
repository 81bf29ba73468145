"""What is said about sweeps, trials and stages: which runs, names, tags, parameters and metric keys."""

from pathlib import Path
from platform.base.yaml_files import dump_yaml
from platform.cluster.system_metrics import SystemMetrics
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from platform.search.study import State, TrialRow
from platform.search.sweep_summary import SweepSummary
from platform.tracking.in_mlflow.promotion_history import Decision
from platform.tracking.in_mlflow.saved_views import saved_views
from platform.tracking.records import FINAL_KEYS, LATER, ONCE, Records, iou_keys, run_name
from typing import Any, cast

import pytest

from cpn.config import Config, config_from, to_dotted, with_values
from cpn.scoring.metrics import BETAS
from cpn.scoring.run_manifest import RunManifest
from cpn.stages.stage_manifest import StageManifest

COMMAND = "python -m platform.sweep s.yaml"
MOST_KEYS = 20
"""Metric keys of one epoch: more, and nobody reads the run's page."""


class Heard:
    """Stands for the Recorder and keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name not in (
            "start",
            "metrics",
            "tags",
            "note",
            "artifact",
            "end",
            "register",
            "dataset",
            "describe",
            "views",
            "series",
        ):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))

    def of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]

    def metrics_at(self) -> dict[tuple[str, int], dict[str, float]]:
        """Uid and step -> all values told there."""
        told: dict[tuple[str, int], dict[str, float]] = {}
        for (uid, step, values, *_), _kwargs in self.of("metrics"):
            told.setdefault((uid, step), {}).update(values)
        for (uid, points), _kwargs in self.of("series"):
            for step, values, _time in points:
                told.setdefault((uid, step), {}).update(values)
        return told

    def all_tags(self, uid: str) -> dict[str, str]:
        return {k: v for (who, tags), _ in self.of("tags") if who == uid for k, v in tags.items()}


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    path = tmp_path / "s.yaml"
    search = {"patches.p_h": {"float": [0.1, 0.5]}, "cam.beta": {"curve": True}}
    base = {"preset": ["official", "scenes"]}
    dump_yaml(path, {"name": "small", "base": base, "search": search, "budget": {"trials": 4}})
    return load_spec(path)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def records(heard: Heard, spec: SweepSpec) -> Records:
    return Records(cast(Any, heard), spec, "f00d", {"command": COMMAND, "commit": "abc"}, "/data/VOC2012")


def row(state: State = State.COMPLETE, role: str = "search", **more: Any) -> TrialRow:
    return TrialRow(3, "small-0003", state, {"patches.p_h": 0.25}, 5, role, **more)


def epoch(number: int) -> dict[str, float]:
    terms = {f"loss_{term}": 0.5 for term in ("cls", "amp", "tcp", "tcp_refined", "cpcr", "total")}
    terms |= dict.fromkeys(SystemMetrics()(), 12.5)
    more = {"lr": 1e-3, "images_per_s": 30.0, "data_wait_share": 0.1, "peak_memory_mib": 900.0, "progress": 0.5}
    return {"epoch": float(number), "time": 1000.0 + number, "miou_epoch": 40.0 + number, **terms, **more}


def result() -> RunManifest:
    values = {
        "key": "k",
        "digests": {},
        "history": [epoch(1), epoch(2)],
        "classes": ["cat", "dog"],
        "metrics": {"miou": 55.0, "miou_fixed_beta": 54.0, "miou_confirm": 53.0, "miou_train": 54.5, "beta": 0.44},
        "iou": [80.0, 40.0, 45.0],
        "curve": {"beta": list(BETAS), "miou": [1.0] * len(BETAS)},
    }
    return RunManifest.model_validate(values)


def test_the_start_of_a_sweep_leaves_its_saved_views(records: Records, heard: Heard, spec: SweepSpec) -> None:
    records.sweep_started()
    assert heard.of("views") == [((saved_views(spec),), {})]


def test_the_parent_holds_the_sweep_as_it_was_asked_for(records: Records, heard: Heard, spec: SweepSpec) -> None:
    records.sweep_started()
    ((uid,), told) = heard.of("start")[0]
    assert uid == records.parent == "small.sweep" and told["name"] == "sweep small" and told.get("parent") is None
    assert told["tags"]["kind"] == "sweep" and told["tags"]["data_fingerprint"] == "f00d"
    assert told["tags"]["commit"] == "abc" and told["tags"]["command"].endswith("s.yaml")
    assert heard.of("dataset") == [(("small.sweep", "VOC2012", "f00d", "/data/VOC2012"), {})]
    assert COMMAND in heard.of("note")[0][0][1] and "| `patches.p_h` | float 0.1 to 0.5 |" in heard.of("note")[0][0][1]
    params = told["params"]
    assert params["search.patches.p_h"].startswith("{'float': (0.1, 0.5)") and "curve" in params["search.cam.beta"]
    assert params["budget.trials"] == 4 and params["confirm.top_k"] == 5 and params["promote.when"] == "always"
    assert params["base.patches.p_h"] == spec.base_config.patches.p_h and "base.data.root" not in params
    assert len(params) == len(set(params))


def test_a_trial_is_a_child_with_its_whole_configuration(records: Records, heard: Heard, spec: SweepSpec) -> None:
    config = with_values(spec.base_config, {"patches.p_h": 0.25}, "-")
    records.trial_started(row(State.RUNNING), config, "key1")
    ((uid,), told) = heard.of("start")[0]
    assert uid == "small-0003" and told["parent"] == "small.sweep"
    assert told["params"]["patches.p_h"] == 0.25 and told["params"]["train.seed"] == config.train.seed
    assert not [name for name in told["params"] if name.split(".")[0] in ("deeplab", "crf")]
    tags = told["tags"]
    assert (tags["kind"], tags["role"], tags["reference"], tags["run_key"]) == ("trial", "search", "false", "key1")
    assert tags["data_fingerprint"] == "f00d" and "confirms" not in tags
    assert {tags[name] for name in LATER} == {"false"}
    assert heard.of("dataset") == [(("small-0003", "VOC2012", "f00d", "/data/VOC2012"), {})]


def test_patches_are_named_and_recorded_whole(records: Records, heard: Heard, spec: SweepSpec) -> None:
    """What is in no key at its default is told all the same: a search may draw it."""
    for values, name in (
        ({"patches.S_N": 30}, "0003 cpn superpixel S_N=30 p_h=0.5"),
        ({"patches.S_N_range": [10, 160]}, "0003 cpn superpixel S_N=10-160 p_h=0.5"),
        ({"patches.kind": "grid"}, "0003 cpn grid K=8,16 p_h=0.5"),
    ):
        records.trial_started(row(), with_values(spec.base_config, values, "-"), "k")
        told = heard.of("start")[-1][1]
        assert told["name"] == name and told["params"]["patches.hidden_value"] == "mean"
        assert told["params"]["patches.S_N_range"] == values.get("patches.S_N_range")


def test_reference_and_confirm_runs_are_told_apart(records: Records, heard: Heard, spec: SweepSpec) -> None:
    records.trial_started(row(role="reference"), spec.base_config, "k")
    records.trial_started(row(role="confirm", attrs={"of": "small-0001"}), spec.base_config, "k")
    (_, first), (_, second) = heard.of("start")
    assert (first["tags"]["reference"], first["tags"]["kind"]) == ("true", "trial")
    assert (second["tags"]["kind"], second["tags"]["confirms"]) == ("confirm", "small-0001")
    assert second["tags"]["reused"] == "false" and not {"confirmed", "promoted"} & set(second["tags"])


def test_an_epoch_is_few_keys_at_its_own_step_and_time(records: Records, heard: Heard) -> None:
    records.trial_reported("small-0003", {**epoch(4), "training_iteration": 9, "trial_id": "x", "values": {}})
    (uid, step, values, time), _ = heard.of("metrics")[0]
    assert (uid, step, time) == ("small-0003", 4, 1004.0)
    wanted = {"miou_epoch", "loss_total", "lr", "images_per_s", "system/cpu_utilization_percentage"}
    assert wanted <= set(values) and len(values) <= MOST_KEYS
    assert next(iter(values)) == "miou_epoch", "MLflow lists metrics as they are first told"
    assert not {"training_iteration", "trial_id", "values", "epoch", "time", "progress"} & set(values)


def test_a_report_without_numbers_says_nothing(records: Records, heard: Heard) -> None:
    records.trial_reported("small-0003", {"epoch": 0, "run_key": "k"})
    assert heard.calls == []


def test_a_finished_trial_has_its_curve_and_its_files(records: Records, heard: Heard, tmp_path: Path) -> None:
    for name in ("beta_curve", "cam_panel"):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{name}.png").touch()
    records.trial_ended(row(miou=55.0), result(), tmp_path)
    told = heard.metrics_at()
    assert told[("small-0003", 1)]["miou_epoch"] == 41.0
    last = told[("small-0003", ONCE)]
    assert {key: last[key] for key in FINAL_KEYS if key in last} == result().metrics
    assert ONCE == 0 and not set(FINAL_KEYS) & set(told[("small-0003", 2)]), "a line with a single dot"
    assert (last["iou/background"], last["iou/cat"], last["iou/dog"]) == (80.0, 40.0, 45.0)
    curve = [step for (_, step), values in told.items() if "curve_miou" in values]
    assert sorted(curve) == [round(100 * beta) for beta in BETAS] and len(set(curve)) == len(BETAS)
    assert {str(args[1].relative_to(tmp_path)) for args, _ in heard.of("artifact")} == {
        "pictures", "result.json", "model.safetensors",
    }  # fmt: skip
    ((_, note),) = [args for args, _ in heard.of("note")]
    full = "[the CAM panel in full](run:small-0003/artifacts/pictures/cam_panel.png)"
    assert note.startswith(f"miou 55.0, miou_confirm 53.0 at beta 0.44 · {full}\n")
    assert note.index("artifact:small-0003/pictures/cam_panel.png") < note.index("pictures/beta_curve.png")
    assert heard.of("end") == [(("small-0003", "FINISHED", 1002.0), {})] and heard.calls[-1][0] == "end"
    assert heard.all_tags("small-0003") == {"state": "COMPLETE", "pruned": "false"}


@pytest.mark.parametrize(
    ("state", "more", "status", "tags"),
    [
        (State.PRUNED, {"reason": "after epoch 4: 3 of 4 others were better"}, "FINISHED",
         {"state": "PRUNED", "pruned": "true", "reason": "after epoch 4: 3 of 4 others were better"}),
        (State.FAIL, {"reason": "loss is nan"}, "FAILED",
         {"state": "FAIL", "pruned": "false", "reason": "loss is nan"}),
        (State.RUNNING, {}, "KILLED", {"state": "RUNNING", "pruned": "false"}),
        (State.COMPLETE, {"attrs": {"reused_from": "key1", "would_prune_at": 4}}, "FINISHED",
         {"state": "COMPLETE", "pruned": "false", "reused": "true", "reused_from": "key1", "would_prune_at": "4"}),
    ],
)  # fmt: skip
def test_how_a_trial_ended_is_a_status_and_tags(
    records: Records,
    heard: Heard,
    tmp_path: Path,
    state: State,
    more: dict[str, Any],
    status: str,
    tags: dict[str, str],
) -> None:
    records.trial_ended(row(state, **more), None, tmp_path)
    assert heard.of("end") == [(("small-0003", status, None), {})]
    assert heard.all_tags("small-0003") == tags and heard.of("metrics") == [] and heard.of("artifact") == []


def test_saying_it_twice_says_the_same(records: Records, heard: Heard, spec: SweepSpec, tmp_path: Path) -> None:
    """A restart tells everything again; the Recorder leaves the same rows for the same calls."""

    def tell() -> list[Any]:
        heard.calls.clear()
        records.sweep_started()
        records.trial_started(row(), spec.base_config, "k")
        records.trial_ended(row(miou=55.0), result(), tmp_path)
        records.promoted("small-0003", "d1", "beats the reference by 1.0", "k", checkpoint=tmp_path, backbone=None,
                         why="better", decision=Decision())  # fmt: skip
        return list(heard.calls)

    first = tell()
    assert len(first) > 15 and tell() == first


def test_a_confirmed_trial_has_its_mean_and_says_so(records: Records, heard: Heard) -> None:
    records.confirmed("small-0003", [50.0, 53.0], [48.5, 54.5])
    assert heard.all_tags("small-0003") == {"confirmed": "true", "confirmed_seeds": "2"}
    told = {"miou_confirm_mean": 51.5, "miou_confirm_low": 48.5, "miou_confirm_high": 54.5}
    assert heard.metrics_at() == {("small-0003", 2): told}
    records.confirmed("small-0004", [50.0])
    assert heard.metrics_at()["small-0004", 1] == {"miou_confirm_mean": 50.0}, "one seed alone has no interval"


def test_the_winner_becomes_champion(records: Records, heard: Heard, tmp_path: Path) -> None:
    decision = Decision(kind="promotion")
    records.promoted("small-0003", "d1", "no improvement shown", "key1", checkpoint=tmp_path / "m", backbone=None,
                     why="it looks better", decision=decision)  # fmt: skip
    args, more = heard.of("register")[0]
    version = {"digest": "d1", "run_key": "key1", "verdict": "no improvement shown"}
    assert args == ("cpn-small", "small-0003", "model", version, "champion", "it looks better")
    assert more == {"checkpoint": tmp_path / "m", "backbone": None, "decision": decision}
    assert heard.all_tags("small-0003") == {"promoted": "true", "verdict": "no improvement shown"}


def test_a_stage_is_a_run_under_the_parent(records: Records, heard: Heard, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    manifest = StageManifest.model_validate(
        {"stage": "deeplab", "key": "k", "history": [epoch(1)], "metrics": {"miou_val": 60.0}, "finished": 2000.0}
    )
    records.stage_started("small.deeplab-k", "deeplab", {"deeplab.epochs": 3})
    records.stage_ended("small.deeplab-k", "deeplab", manifest, tmp_path)
    ((uid,), told) = heard.of("start")[0]
    assert uid == "small.deeplab-k" and told["parent"] == "small.sweep" and told["params"] == {"deeplab.epochs": 3}
    assert told["tags"]["kind"] == "stage" and told["tags"]["stage"] == "deeplab"
    at = heard.metrics_at()
    assert at[("small.deeplab-k", 0)] == at[("small.sweep", 0)] == {"deeplab/miou_val": 60.0}
    assert at[("small.deeplab-k", 1)]["loss_total"] == 0.5
    assert [args[1].name for args, _ in heard.of("artifact")] == ["manifest.json", "pictures"]
    assert heard.of("end") == [(("small.deeplab-k", "FINISHED", 2000.0), {})]


def test_the_end_of_a_sweep(records: Records, heard: Heard, tmp_path: Path) -> None:
    summary = {"metrics": {"miou": 55.0, "deeplab/miou_val": None}, "verdict": "not tested", "winner": "small-0003"}
    summary["note"] = "**not tested**\n\nWinner: `small-0003`"
    records.sweep_ended(SweepSummary.model_validate(summary), [tmp_path / "summary.md"])
    assert heard.metrics_at() == {("small.sweep", 0): {"miou": 55.0}}
    assert heard.of("metrics")[0][1] == {"revise": True}
    tags = {"verdict": "not tested", "winner": "small-0003", "objective": "miou"}
    assert heard.all_tags("small.sweep") == tags
    ((parent, note),) = [args for args, _ in heard.of("note")]
    ((experiment,),) = [args for args, _ in heard.of("describe")]
    assert parent == "small.sweep" and note.startswith("**not tested**\n\n[CAM panel](run:small-0003/")
    assert "run:small.sweep/artifacts/summary.md" in note and "| `patches.p_h` | float 0.1 to 0.5 |" in note
    assert "model:" not in note and experiment.startswith("not tested; small-0003 was promoted · ")
    assert "[CAM panel](run:small-0003/" in experiment
    assert heard.calls[-1][0] == "end"


def test_what_is_said_of_pruning_and_of_mask_free_are_tags(records: Records, heard: Heard) -> None:
    records.pruning_off("pruning is switched off at 50%")
    summary = {"metrics": {}, "verdict": "not tested", "winner": "small-0003", "without_masks": "correlation 0.9"}
    records.sweep_ended(SweepSummary.model_validate({**summary, "note": "**note**"}), [])
    tags = heard.all_tags("small.sweep")
    assert tags["pruning_off"] == "pruning is switched off at 50%" and tags["mask_free_agrees"] == "correlation 0.9"


@pytest.mark.parametrize(
    ("values", "role", "attrs", "name"),
    [
        ({"patches.S_N": 212, "patches.p_h": 0.4712}, "search", {}, "0003 cpn superpixel S_N=212 p_h=0.47"),
        ({"patches.kind": "grid", "patches.K": [8, 16]}, "search", {}, "0003 cpn grid K=8,16 p_h=0.5"),
        ({"patches.S_N": 40}, "confirm", {"of": "small-0001"}, "0001 cpn superpixel S_N=40 p_h=0.5 seed=0"),
        ({"patches.S_N": 40}, "reference", {}, "0003 reference: cpn superpixel S_N=40 p_h=0.5"),
        ({"train.objective": "classification", "train.seed": 1001}, "cam_baseline", {"of": "cam_baseline"},
         "cam_baseline seed=1001"),
        ({"train.objective": "seam"}, "search", {}, "0003 seam"),
        ({"train.objective": "pair_classification"}, "search", {}, "0003 control_pair"),
    ],
)  # fmt: skip
def test_run_names(values: dict[str, Any], role: str, attrs: dict[str, Any], name: str) -> None:
    config = with_values(config_from({}, "-"), values, "-")
    assert run_name(row(role=role, attrs=attrs), config) == name


def test_every_objective_has_a_name() -> None:
    kinds = Config.model_fields["train"].annotation.model_fields["objective"].annotation.__args__  # type: ignore
    names = {run_name(row(), with_values(config_from({}, "-"), {"train.objective": kind}, "-")) for kind in kinds}
    assert len(names) == len(kinds) and to_dotted(config_from({}, "-"))["train.objective"] in kinds


@pytest.mark.parametrize(
    ("classes", "keys"),
    [
        (["cat", "potted plant", "n02-1.5:a"], ["cat", "potted plant", "n02-1.5:a"]),
        (["cup (small)", "men's", "salt & pepper", "c++", "red, green"],
         ["cup _small_", "men_s", "salt _ pepper", "c__", "red_ green"]),
        (["a(b", "a)b", "a_b", "a_b no. 2"], ["a_b", "a_b no. 2", "a_b no. 3", "a_b no. 2 no. 2"]),
        (["a/b", "..", ".", "%", "été", "x" * 400, "x" * 401],
         ["a_b", "_", "_ no. 2", "_ no. 3", "été", "x" * 200, "x" * 200 + " no. 2"]),
    ],
)  # fmt: skip
def test_no_class_loses_its_metric_for_its_name(classes: list[str], keys: list[str]) -> None:
    from mlflow.utils.validation import _validate_metric

    found = iou_keys(classes)
    assert found == [f"iou/{key}" for key in keys] and len(set(found)) == len(classes)
    for key in found:
        _validate_metric(key, 1.0, 0, 0)
