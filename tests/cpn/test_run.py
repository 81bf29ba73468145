import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cpn.run as module
from cpn.config import Config, config_from, run_key, with_values
from cpn.config.data import ScenesConfig
from cpn.core.checked import whole_png
from cpn.core.errors import InputError
from cpn.core.files import file_digest, read_json, write_bytes, write_json
from cpn.core.run_files import EPOCHS, MODEL, epoch_folder
from cpn.data.voc import Pack
from cpn.models.checkpoint import save_model
from cpn.plots.epoch_pictures import drawn_names
from cpn.plots.run_pictures import whole_run
from cpn.run import load_run, run, score, score_by_scale
from cpn.scoring.cam import image_counts
from cpn.scoring.counts import load_counts
from cpn.scoring.finished_run import damaged_files, finished_run
from cpn.scoring.metrics import BETAS, best_beta, iou, miou
from cpn.scoring.run_manifest import RunManifest
from cpn.scoring.scale_scores import row_names, score_list
from cpn.scoring.selection import epoch_sample, select_and_confirm
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.training.pretrained_proxy import standin_path

CPU = torch.device("cpu")
BASE: dict[str, Any] = {
    "data": {"train": "train", "crop": 32, "long_side": [28, 40], "workers": 0},
    "patches": {"kind": "grid", "K": [4, 8]},
    "network": {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8},
    "train": {"batch_size": 4, "epochs": 2},
    "cam": {"scales": [1.0, 0.5]},
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("run") / "scenes"
    write_scenes(root, ScenesConfig(train=12, val=1, size=32))
    return prepare(root, ["train"])


@pytest.fixture(scope="module")
def config() -> Config:
    return config_from(BASE, "test")


def start(config: Config, pack: Pack, folder: Path, **more: Any) -> dict[str, Any]:
    more.setdefault("report", lambda _: None)
    return run(config, pack, folder, cache=folder.parent / "cache", device=CPU, **more)


class Finished:
    """A finished run, made once for all tests that only look at it."""

    def __init__(self, folder: Path, result: RunManifest, heard: list[dict[str, float]]) -> None:
        self.folder, self.result, self.heard = folder, result, heard


@pytest.fixture(scope="module")
def finished(config: Config, pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished") / "run"
    write_bytes(folder / ".counts.npz.0123abcd.tmp", b"what a kill -9 amid scoring leaves")
    heard: list[dict[str, float]] = []
    return Finished(folder, start(config, pack, folder, report=heard.append), heard)


def test_the_manifest_is_complete(finished: Finished, config: Config, pack: Pack) -> None:
    result = finished.result
    assert result.to_json() == read_json(finished.folder / "result.json", sealed=True)
    assert result == finished_run(finished.folder)
    assert result.key == run_key(config, pack.fingerprint)
    assert config_from(result.config, "x") == config
    assert result.classes == pack.classes and result.fingerprint == pack.fingerprint
    assert list(result.history) == finished.heard and [e["epoch"] for e in finished.heard] == [1, 2]
    assert all(0 <= entry["miou_epoch"] <= 100 for entry in finished.heard) and result.seconds > 0
    metrics = result.metrics
    shares = {"miou", "miou_fixed_beta", "miou_confirm", "miou_train"}
    shares |= {"mask_free", "mask_free_confirm", "classification_map", "cp_agreement"}
    assert set(metrics) == shares | {"beta", "beta_train"}
    assert all(0 < metrics[name] < 100 for name in shares)
    assert metrics["beta"] in BETAS and metrics["beta_train"] in BETAS
    assert metrics["miou"] == max(result.curve.miou) >= metrics["miou_fixed_beta"]
    assert metrics["miou_train"] == max(result.curve.miou_train)
    assert result.curve.beta == BETAS and len(result.curve.miou) == len(BETAS)
    assert len(result.iou) == 7 and np.mean(result.iou) == pytest.approx(metrics["miou"])


def test_the_folder_holds_what_the_manifest_says(finished: Finished) -> None:
    files = {str(p.relative_to(finished.folder)) for p in finished.folder.rglob("*") if p.is_file()}
    digests = finished.result.digests
    assert files == {"result.json", *digests}
    assert {"model.safetensors", "counts.npz"} < set(digests)
    assert {"pictures/cam_panel.png", "pictures/beta_curve.png"} < set(digests)
    assert all(file_digest(finished.folder / name) == value for name, value in digests.items())
    assert not (finished.folder / "checkpoints").exists()


def test_metrics_are_those_of_the_kept_counts(finished: Finished, config: Config, pack: Pack) -> None:
    ids, counts = load_counts(finished.folder / "counts.npz")
    assert ids == pack.split("train").ids and counts.shape == (12, len(BETAS), 3, 7) and counts.dtype == np.int64
    network, again, classes = load_run(finished.folder / "model.safetensors")
    assert again == config and classes == pack.classes and not network.training
    np.testing.assert_array_equal(score(network, pack.split("train"), again.cam, 7), counts.sum(0))
    np.testing.assert_array_equal(image_counts(network, pack.split("train"), 3, again.cam, 7), counts[3])
    select, confirm = select_and_confirm(ids, config.cam)
    beta, best = best_beta(counts[select].sum(0))
    metrics = finished.result.metrics
    assert (metrics["beta"], metrics["miou"]) == (beta, pytest.approx(100 * best))
    assert metrics["miou_confirm"] == pytest.approx(100 * float(miou(counts[confirm].sum(0))[BETAS.index(beta)]))
    fixed = float(miou(counts[select].sum(0)[BETAS.index(config.cam.beta)]))
    assert metrics["miou_fixed_beta"] == pytest.approx(100 * fixed)
    assert metrics["miou_train"] == pytest.approx(100 * float(miou(counts.sum(0)).max()))
    assert finished.result.iou == pytest.approx((100 * iou(counts[select].sum(0)[BETAS.index(beta)])).tolist())


def test_rows_by_scale_are_those_of_scoring_by_scale(
    finished: Finished, config: Config, pack: Pack, tmp_path: Path
) -> None:
    network, _, classes = load_run(finished.folder / "model.safetensors")
    cam = config.cam.model_copy(update={"scales": (1.0, 1.5)})
    by_scale = score_by_scale(network, pack.split("train"), cam, 7, tmp_path / "counts.npz")
    ids, each = load_counts(tmp_path / "counts.npz")
    assert ids == pack.split("train").ids
    np.testing.assert_array_equal(by_scale, score_list(network, pack.split("train"), cam, 7, lambda *_: None))
    np.testing.assert_array_equal(each.sum(0), by_scale[-1])
    np.testing.assert_array_equal(score(network, pack.split("train"), cam, 7), each.sum(0))
    rows = finished.result.scales
    assert [row.scale for row in rows] == row_names(config.cam)
    assert rows[-1].miou == pytest.approx(finished.result.metrics["miou_train"])
    assert len(rows[-1].iou) == len(classes) + 1


def test_a_finished_run_is_not_done_again(
    finished: Finished, config: Config, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("cpn.run.train", refuse)
    monkeypatch.setattr("cpn.run.score", refuse)
    before = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*")}
    heard: list[dict[str, float]] = []
    assert start(config, pack, finished.folder, report=heard.append) == finished.result
    assert heard == finished.heard  # a listener misses nothing
    assert {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*")} == before


def test_the_folder_of_another_run_is_refused(finished: Finished, config: Config, pack: Pack) -> None:
    other = with_values(config, {"train.seed": 1}, "x")
    with pytest.raises(InputError) as refused:
        start(other, pack, finished.folder)
    assert finished.result.key in str(refused.value) and run_key(other, pack.fingerprint) in str(refused.value)


@pytest.mark.parametrize("when", [1, 2, "scoring"])
def test_a_killed_run_ends_as_an_uninterrupted_one(
    finished: Finished, config: Config, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int | str
) -> None:
    def kill(entry: dict[str, float]) -> None:
        if entry["epoch"] == when:
            raise KeyboardInterrupt

    def kill_pictures(*_: object) -> dict[str, bytes]:
        raise KeyboardInterrupt

    # Drawing takes seconds, and is tested by the finished run.
    monkeypatch.setattr("cpn.run.run_pictures", lambda *_: {"drawn": b"png"})
    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if when == "scoring":
            patch.setattr("cpn.run.run_pictures", kill_pictures)
        start(config, pack, folder, report=kill)
    assert finished_run(folder) is None and (folder / "checkpoints").is_dir()
    heard: list[dict[str, float]] = []
    torch.manual_seed(123)
    result = start(config, pack, folder, report=heard.append)
    assert [entry["epoch"] for entry in heard] == [1, 2]
    changing = {"seconds": 0.0, "history": (), "digests": {}}
    assert result is not None and result.model_copy(update=changing) == finished.result.model_copy(update=changing)
    for name in ("model.safetensors", "counts.npz"):
        assert result.digests[name] == finished.result.digests[name]
    assert [without_times(e) for e in result.history] == [without_times(e) for e in finished.heard]
    assert not (folder / "checkpoints").exists()


def without_times(entry: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in entry.items() if k not in ("time", "images_per_s", "data_wait_share")}


@pytest.mark.parametrize("damage", ["torn model", "torn manifest", "missing picture"])
def test_a_run_with_a_broken_file_is_not_finished(finished: Finished, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    assert finished_run(folder) is not None
    if damage == "torn model":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4])
    elif damage == "torn manifest":
        (folder / "result.json").write_text((folder / "result.json").read_text()[:-9])
    else:
        (folder / "pictures" / "cam_panel.png").unlink()
    assert finished_run(folder) is None and finished_run(tmp_path / "nowhere") is None


def test_a_number_that_was_changed_in_a_manifest_is_noticed(finished: Finished, tmp_path: Path) -> None:
    """miou + 40 in one file had made another sweep take over the run and confirm the wrong trial."""
    folder, lines = tmp_path / "run", []
    shutil.copytree(finished.folder, folder)
    text = (folder / "result.json").read_text()
    better = f'"miou": {finished.result.metrics["miou"] + 40}'
    (folder / "result.json").write_text(text.replace(f'"miou": {finished.result.metrics["miou"]}', better))
    assert finished_run(folder, lines.append) is None and damaged_files(folder) == ["result.json"]
    assert len(lines) == 1 and str(folder / "result.json") in lines[0]
    unsealed = {name: value for name, value in read_json(finished.folder / "result.json").items()}
    write_json(folder / "result.json", unsealed)
    assert finished_run(folder) is not None


def test_pictures_that_alone_are_damaged_are_drawn_again(finished: Finished, pack: Pack, tmp_path: Path) -> None:
    folder, lines = tmp_path / "run", []
    shutil.copytree(finished.folder, folder)
    (folder / "pictures" / "loss_terms.png").write_bytes(b"")
    assert damaged_files(folder) == ["pictures/loss_terms.png"]
    result = whole_run(folder, pack, lines.append)
    assert result is not None and damaged_files(folder) == [] and len(lines) == 1
    assert result.model_copy(update={"digests": {}}) == finished.result.model_copy(update={"digests": {}})
    (folder / "counts.npz").write_bytes(b"")
    assert damaged_files(folder, ("panel.npz",)) == [] and damaged_files(folder, ("counts.npz",)) == ["counts.npz"]
    assert whole_run(folder, pack, lines.append) is None and "counts.npz" in lines[-1]


def test_another_seed_is_another_run(
    finished: Finished, config: Config, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpn.run.run_pictures", lambda *_: {})
    result = start(with_values(config, {"train.seed": 1, "train.epochs": 1}, "x"), pack, tmp_path / "run")
    assert result.key != finished.result.key
    assert result.digests["model.safetensors"] != finished.result.digests["model.safetensors"]


def test_workers_other_than_the_first_write_nothing(config: Config, pack: Pack, tmp_path: Path) -> None:
    settings = with_values(config, {"train.epochs": 1}, "x")
    assert start(settings, pack, tmp_path / "run", rank=1, world=2) is None
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("objective", ["miou", "mask_free"])
def test_after_an_epoch_the_sample_alone_is_scored(
    config: Config, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: Any
) -> None:
    """The final metrics are those of all select images all the same."""
    sampled = with_values(config, {"cam.epoch_images": 2, "train.epochs": 1}, "test")
    seen: list[list[str]] = []
    name = {"miou": "score", "mask_free": "score_without_masks"}[objective]
    real = getattr(module, name)

    def recorded(network: Any, split: Any, *more: Any) -> Any:
        seen.append(list(split.ids))
        return real(network, split, *more)

    monkeypatch.setattr(module, name, recorded)
    found = start(sampled, pack, tmp_path / "sampled", objective=objective)
    ids = pack.split("train").ids
    assert seen[0] == [ids[i] for i in epoch_sample(ids, sampled.cam)] and len(seen[0]) == 2
    whole = start(with_values(config, {"train.epochs": 1}, "test"), pack, tmp_path / "whole", objective=objective)
    assert found.metrics == whole.metrics and found.key != whole.key


@pytest.mark.parametrize("objective", ["miou", "mask_free"])
def test_epochs_are_drawn_where_asked_and_change_nothing(
    config: Config, pack: Pack, tmp_path: Path, objective: Any
) -> None:
    plain = start(config, pack, tmp_path / "plain", objective=objective)
    drawn = start(config, pack, tmp_path / "drawn", objective=objective, draw_epochs=True)
    assert drawn.key == plain.key and drawn.metrics == plain.metrics
    assert file_digest(tmp_path / "drawn" / MODEL) == file_digest(tmp_path / "plain" / MODEL)
    assert not (tmp_path / "plain" / EPOCHS).exists()
    names = sorted(drawn_names(pack.split(config.data.score), config.cam))
    for epoch in (1, 2):
        found = sorted(epoch_folder(tmp_path / "drawn", epoch).iterdir())
        assert [path.stem for path in found] == names and all(whole_png(path) for path in found)
    assert damaged_files(tmp_path / "drawn") == [], "a run is whole without them"


def test_too_few_scored_images_are_refused_before_training(config: Config, pack: Pack, tmp_path: Path) -> None:
    everything = with_values(config, {"cam.confirm_share": 1 - 1e-9}, "x")
    with pytest.raises(InputError, match="data.score: the 12 images of list 'train' are too few to split"):
        start(everything, pack, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_checkpoint_is_no_run(tmp_path: Path, finished: Finished) -> None:
    save_model(tmp_path / "other.safetensors", torch.nn.Linear(1, 1), {"kind": "deeplab"})
    for path, words in (
        (tmp_path / "other.safetensors", "of kind 'deeplab', not of a CAM network"),
        (tmp_path, "is a folder; name the model.safetensors of a run"),
    ):
        with pytest.raises(InputError, match=words) as refused:
            load_run(path)
        assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_weights_that_are_not_there_are_one_line(config: Config, pack: Pack, tmp_path: Path) -> None:
    missing = with_values(config, {"network.weights": "scenes"}, "x")
    with pytest.raises(InputError) as refused:
        start(missing, pack, tmp_path / "run")
    assert str(standin_path(tmp_path / "cache")) in str(refused.value) and "\n" not in str(refused.value)
