"""Many refinements beside one training: the row `photos` is the run, and no row is moved by the others."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.photos.refinement_losses import QUICK_ROWS, ROWS, base_config, config_of, rows_for
from cpn.config.data import ScenesConfig
from cpn.run import run
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

TINY = {
    "data": {"crop": 49, "long_side": [49, 49]},
    "patches": {"S_N": 8},
    "train": {"batch_size": 4, "epoch_images": 16},
    "cam": {"long_side": 49, "scales": [1.0], "flip": False},
}


def test_every_row_changes_what_it_says() -> None:
    base = base_config("data", "train", 3, 0, {})
    rows = rows_for(base, quick=False)
    configs = {row.name: config_of(row, base) for row in rows}
    trained = [(str(configs[row.name]), row.lr_factor) for row in rows if row.trained]
    assert len(set(trained)) == len(trained) >= 13  # no row twice
    assert not base.network.prcm and configs["photos"] == base and not base.loss.normalise_refined
    assert configs["official losses"].loss.normalise_refined and configs["official losses"].loss.amp_weight == 1
    assert configs["official losses, tcp_refined false"].loss.tcp_refined is False
    assert configs["photos, ohem_ratio null"].loss.ohem_ratio is None
    assert configs["photos, PRCM, prcm_scale 0.3"].network.prcm_scale == 0.3
    dropped = {row.name for row in ROWS} - {row.name for row in rows}
    assert f"official losses, x_scale {base.network.x_scale}" in dropped
    assert f"photos, amp_weight {base.loss.amp_weight:g}" in dropped
    for row in ROWS:
        same = config_of(row, base) == configs["official losses" if row.official else "photos"]
        assert row.name not in dropped or same  # none is lost
    assert tuple(row.name for row in rows_for(base, quick=True)) == QUICK_ROWS


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_row_photos_is_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path / "scenes", ScenesConfig(train=8, val=2, size=48))
    words = ["refinement_losses", "--data", str(tmp_path / "scenes"), "--keep", str(tmp_path / "keep"), "--quick"]
    main([*words, "--over", json.dumps(TINY), "--json"])
    printed = capsys.readouterr().out.splitlines()
    rows = {row["row"]: row for row in json.loads(printed[-1])["rows"]}
    assert set(rows) == set(QUICK_ROWS) and rows["untrained"]["minus_untrained"] == [0]
    assert len({rows[name]["miou"][0] for name in QUICK_ROWS}) == 3
    assert rows["photos"]["minus_untrained"][0] == rows["photos"]["miou"][0] - rows["untrained"]["miou"][0]

    pack = prepare(tmp_path / "scenes", out=tmp_path / "keep" / "data")
    config = base_config(pack.root, "trainaug", 1, 0, TINY)
    heard: list[dict[str, float]] = []
    cache, cpu = tmp_path / "keep" / "cache", torch.device("cpu")
    run(config, pack, tmp_path / "whole", cache=cache, device=cpu, report=heard.append)
    assert heard[-1]["miou_epoch"] == pytest.approx(rows["photos"]["miou"][0], abs=0.02)
