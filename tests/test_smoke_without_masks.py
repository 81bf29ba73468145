"""A two-trial sweep with all stages on a data set that has no pixel mask at all, and one where both values exist."""

import json
import shutil
from pathlib import Path

import pytest

from cpn.config.data import ScenesConfig
from cpn.prepare import main as prepare_main
from cpn.sources.scenes import write_scenes
from tests.test_smoke import SPEC, start


def sweep(folder: Path, *more: str) -> tuple[int, str]:
    """Run the sweep in `folder`; its exit code and what it said."""
    process = start(folder, *more)
    output, _ = process.communicate(timeout=500)
    return process.returncode, output


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_sweep_without_masks_goes_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "bare"
    write_scenes(root, ScenesConfig(train=16, val=10, seed=3))
    shutil.rmtree(root / "SegmentationClass")
    prepare_main([str(root), "--lists", "train", "val"])
    assert "train: 16 images" in capsys.readouterr().out
    spec = SPEC.replace("{scenes: {train: 16, val: 6, seed: 3}}", "{root: ROOT, train: train, score: val}")
    assert "ROOT" in spec
    (tmp_path / "smoke.yaml").write_text(spec.replace("ROOT", str(root)))

    code, output = sweep(tmp_path)  # by miou: refused before anything is started
    assert code == 2 and "list 'val' has no masks" in output and "--set objective=mask_free" in output
    assert "starting Ray" not in output

    code, output = sweep(tmp_path, "--set", "objective=mask_free", "--set", "name=bare")
    assert code == 0, output
    assert "pseudo labels are made, and not scored" in output and "Traceback" not in output
    assert "mask_free (val, select)" in output and "no masks" in output and "mask_free, which is no mIoU" in output
    summary = json.loads((tmp_path / "sweeps/bare/summary.json").read_text())
    assert summary["trials"] == {"complete": 2, "pruned": 0, "fail": 0} and summary["objective"] == "mask_free"
    assert summary["unscored"] == ["random_walk", "deeplab"] and summary["without_masks"] is None
    assert 0 < summary["metrics"]["mask_free"] <= 100 and "miou" not in summary["metrics"]
    assert summary["metrics"]["mask_free_confirm_cam_baseline"] is not None
    assert summary["metrics"]["random_walk/miou_train"] is None
    assert len(list(tmp_path.glob("sweeps/stages/random_walk-*/*.png"))) == 16
    assert list(tmp_path.glob("sweeps/stages/deeplab-*/model.safetensors"))


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.extra
@pytest.mark.timeout(900)
def test_the_rank_correlation_with_miou_is_said(tmp_path: Path) -> None:
    (tmp_path / "smoke.yaml").write_text(SPEC)
    small = ["budget.trials=3", "promote.when=better", "confirm.top_k=0"]
    code, output = sweep(tmp_path, *(word for value in small for word in ("--set", value)))
    assert code == 0, output
    assert "mask_free against miou: rank correlation" in output and "over 3 trials" in output
    plots = {path.name for path in (tmp_path / "sweeps/smoke/plots").iterdir()}
    assert {"history.png", "slices.png"} <= plots
    other = [*small, "objective=mask_free", "name=other"]
    code, output = sweep(tmp_path, *(word for value in other for word in ("--set", value)))
    assert code == 0, output
    assert "mask_free against miou: rank correlation" in output and "where classification is easy" in output
    first, second = (json.loads((tmp_path / f"sweeps/{n}/summary.json").read_text()) for n in ("smoke", "other"))
    assert second["leaderboard"][0]["miou"] == second["metrics"]["mask_free"] != first["metrics"]["miou"]
    code, output = sweep(tmp_path, "--set", "objective=mask_free")  # the same name with another objective
    assert code == 2 and "metric was 'miou', is 'mask_free'" in output
