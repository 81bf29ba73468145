"""Complementary patches on a loop that is not ours: the page's own code, the same batches for both, and the judge."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.photos.addon import make_classifier, terms_of_the_page, train
from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.data.voc import open_pack
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes


@pytest.mark.slow
def test_both_are_judged_and_the_terms_change_the_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path / "scenes", ScenesConfig(train=16, val=2, size=48))
    words = ["addon", "--data", str(tmp_path / "scenes"), "--keep", str(tmp_path / "keep"), "--quick", "--crop", "33"]
    main([*words, "--weights", "none", "--json"])
    [row] = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert row["against"] == "without" and row["cpu_seconds"]["with"] > row["cpu_seconds"]["without"] > 0
    assert [one["set"] for one in row["sets"]] == ["all", "hold-out"]
    assert {path.name for path in (tmp_path / "keep/addon").iterdir()} == {"0_with", "0_without"}


def test_a_training_repeats_itself_and_the_terms_move_it(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", ScenesConfig(train=8, val=2, size=48))
    split = open_pack(prepare(tmp_path / "scenes").root).split("train")
    heads = []
    for terms in (None, None, terms_of_the_page()):
        network, _ = train(make_classifier(6, None, 0), split, terms, 1, 33, 0)
        heads.append(network.head.weight.detach())
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_too_few_images_are_said(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", ScenesConfig(train=4, val=2, size=32))
    with pytest.raises(InputError, match="4 images are fewer than a batch of 8; give more"):
        main(["addon", "--data", str(tmp_path / "scenes"), "--keep", str(tmp_path / "keep")])
