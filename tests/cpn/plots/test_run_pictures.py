"""The panel of a run: what is kept of it draws the same picture, and cam_baseline is filled in from its own panel."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cpn.config import Config, config_from, with_values
from cpn.config.data import ScenesConfig
from cpn.data.voc import IGNORE, Pack
from cpn.models.network import build_network
from cpn.plots.panel_images import panel_images
from cpn.plots.run_pictures import PanelImage, draw_panel, iou_words, load_panel, save_panel
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

NAMES = ["background", *"abcdef"]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("panel") / "scenes"
    write_scenes(root, ScenesConfig(train=8, val=1, size=32))
    return prepare(root, ["train"])


def panel_of(pack: Pack, **values: object) -> tuple[list[PanelImage], Config]:
    config = with_values(config_from({"preset": ["official", "scenes"]}, "-"), {"data.crop": 32, **values}, "-")
    torch.manual_seed(0)
    network = build_network(config.network, 7).eval()
    return panel_images(network, pack.split("train"), config, 0.5), config


def test_a_panel_is_read_as_it_was_written(pack: Pack, tmp_path: Path) -> None:
    panel, _ = panel_of(pack)
    save_panel(tmp_path / "panel.npz", panel)
    read = load_panel(tmp_path / "panel.npz")
    assert [(image.id, image.why) for image in read] == [(image.id, image.why) for image in panel] and len(read) == 5
    for one, other in zip(panel, read, strict=True):
        assert one.arrays.keys() == other.arrays.keys() == {"I_h", "I_hb", "CAM", "refined CAM", "mask"}
        assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)
    scored = pack.split("train")
    assert draw_panel(read, scored, NAMES, 0.5, True) == draw_panel(panel, scored, NAMES, 0.5, True)


def test_cam_baseline_has_a_cell_that_is_filled_later(pack: Pack) -> None:
    panel, _ = panel_of(pack)
    other, _ = panel_of(pack, **{"train.objective": "classification", "network.pcm": False, "cam.map": "plain"})
    scored = pack.split("train")
    before, after, alone = (
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        for png in (
            draw_panel(panel, scored, NAMES, 0.5, True),
            draw_panel(panel, scored, NAMES, 0.5, True, other),
            draw_panel(other, scored, NAMES, 0.5, False),
        )
    )
    assert before.shape == after.shape
    changed = (before != after).any(-1)
    assert 0.02 < changed.mean() < 0.2
    rows, columns = np.nonzero(changed)
    assert np.ptp(columns) < 250, "one column of cells, no other"
    assert alone.shape == before.shape, "two lines of cells, three in each without the pair"


def test_iou_in_words() -> None:
    truth = np.array([[0, 0, 1, 1, IGNORE]], np.uint8)
    assert iou_words(np.array([[0, 0, 1, 1, 2]], np.uint8), truth) == "IoU 100"
    assert iou_words(np.array([[0, 1, 1, 1, 0]], np.uint8), truth, "x: ") == "x: IoU 58"  # (1/2 + 2/3) / 2
    thin = np.array([[0, 1, IGNORE, IGNORE]], np.uint8)
    assert iou_words(np.zeros_like(thin), thin, "x: ") == "x: no IoU: more void than object"
    assert iou_words(truth, None) == "" and iou_words(truth, np.full_like(truth, IGNORE)) == ""
