"""The fast forms against the exact ones: what differs between the runs, the arithmetic, and that the topic runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.method import fast_forms
from cpn.config import config_from, merge
from cpn.config.data import DataConfig
from cpn.core.errors import InputError
from cpn.data import transforms
from cpn.models.backbone import build_backbone
from cpn.models.checkpoint import save_model
from cpn.training.pretrained_proxy import standin_path


def test_the_interval_is_that_of_the_paired_differences() -> None:
    """1, 2 and 3: mean 2, standard deviation 1, t(.975, 2) = 4.3027."""
    values = [("fast", 0, 51.0), ("fast", 1, 60.0), ("fast", 2, 43.0)]
    values += [("SLIC on every crop", 0, 50.0), ("SLIC on every crop", 1, 58.0), ("SLIC on every crop", 2, 40.0)]
    found = fast_forms.compare("superpixels", [{"name": n, "seed": s, "miou": m} for n, s, m in values])
    half = 4.30265 / 3**0.5
    assert found["difference"] == 2 and found["seeds"] == 3 and found["exact"] == pytest.approx(148 / 3)
    assert [found["low"], found["high"]] == pytest.approx([2 - half, 2 + half], rel=1e-5)
    assert "| superpixels | 3 | 51.33 | 49.33 | +2.00 | -0.48 to +4.48 |" in fast_forms.table([found])


def test_the_runs_differ_in_what_is_asked_and_in_nothing_else() -> None:
    configs = {n: config_from(merge(fast_forms.BASE, v), "here") for n, v in fast_forms.RUNS.items()}
    fast = configs["fast"]
    assert fast.patches.slic_on == "image" and fast.train.precision == "fp32" and configs["PIL"] == fast
    crop, bf16 = configs["SLIC on every crop"], configs["bf16"]
    assert crop.patches.slic_on == "crop" and bf16.train.precision == "bf16"
    assert crop.model_copy(update={"patches": fast.patches}) == fast == bf16.model_copy(update={"train": fast.train})


def test_pil_draws_the_same_numbers_and_nearly_the_same_colours() -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8).repeat(3, 0).repeat(3, 1)
    config = DataConfig(crop=64, long_side=(56, 80))

    def shown() -> tuple[Any, Any, Any]:
        return transforms.augment_and_tell(image, config, np.random.default_rng(7))

    ours, _, view = shown()
    with fast_forms.pil_pictures():
        theirs, _, their_view = shown()
    again, _, _ = shown()
    difference = np.abs(ours.astype(int) - theirs)
    assert view == their_view and np.array_equal(ours, again)
    assert 0 < difference.mean() < 3


def test_the_topic_runs_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = standin_path(tmp_path / "cache")
    path.parent.mkdir()
    torch.manual_seed(0)
    save_model(path, build_backbone("scene"), {"kind": "standin"})
    words = ["fast_forms", "--quick", "--json", "--scenes", "12", "--forms", "pictures"]
    words += ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    main(words)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["form"] for row in found["forms"]] == ["pictures"] and len(found["rows"]) == 4
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.json")}
    assert len(kept) == 4 and sum(path.stem.endswith("-pil") for path in kept) == 2
    main(words)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["forms"] == found["forms"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    with pytest.raises(InputError, match="at least 2 seeds"):
        main(["fast_forms", "--seeds", "1"])
