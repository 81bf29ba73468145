"""The panel's images: from the data alone, each for its reason, none twice."""

import numpy as np
import pytest

from cpn.config.data import ScenesConfig
from cpn.data.voc import IGNORE, Pack
from cpn.plots.panel_choice import mask_facts, panel_choice
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("choice") / "scenes"
    write_scenes(root, ScenesConfig(train=40, val=3, size=32))
    return prepare(root, ["train", "val"])


def test_a_compact_and_a_ragged_mask() -> None:
    square = np.zeros((12, 12), np.uint8)
    square[2:6, 2:6] = 3
    comb = np.zeros((12, 12), np.uint8)
    comb[2:10:2, 2:6] = 3
    share, outline, classes = mask_facts(square)
    assert (share, outline, classes) == (16 / 144, 4.0, 1)
    assert mask_facts(comb)[0] == share and mask_facts(comb)[1] > 2 * outline
    square[0] = IGNORE
    assert mask_facts(square)[0] == 16 / 132


def test_each_image_stands_there_for_its_reason(pack: Pack) -> None:
    scored = pack.split("train")
    chosen = panel_choice(scored)
    assert list(chosen.values()) == [
        "large object", "middling object", "thin or ragged", "small object", "several classes",
    ]  # fmt: skip
    facts = {why: mask_facts(scored.mask(index)) for index, why in chosen.items()}  # type: ignore[arg-type]
    assert facts["large object"][0] > facts["middling object"][0] > facts["small object"][0] > 0
    assert facts["several classes"][2] >= 2 and facts["thin or ragged"][1] > facts["large object"][1]


def test_the_order_of_the_list_does_not_matter(pack: Pack) -> None:
    scored = pack.split("train")
    turned = scored.subset(list(reversed(scored.ids)))
    ids = [{split.ids[i]: why for i, why in panel_choice(split).items()} for split in (scored, turned)]
    assert ids[0] == ids[1]


def test_few_images_stand_there_once(pack: Pack) -> None:
    assert sorted(panel_choice(pack.split("val"))) == [0, 1, 2]


def test_without_masks_labels_decide(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = pack.split("train")
    monkeypatch.setattr(type(scored), "masked", property(lambda _: False))
    chosen = panel_choice(scored)
    counts = [int(scored.labels[index].sum()) for index in chosen]
    assert len(chosen) == 5 and counts == sorted(counts) and counts[0] < counts[-1]
