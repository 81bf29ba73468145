from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cpn.config import with_values
from cpn.data.map_files import load_label, load_maps, save_label
from cpn.plots.panel import PanelRow
from cpn.plots.run_pictures import pseudo_mask
from cpn.propagation.walk_rule import WalkChoice
from cpn.stages import pictures
from cpn.stages.pictures import draw_deeplab, draw_random_walk
from tests.cpn.stages.made_stages import Made


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[PanelRow]]:
    """What a panel was drawn of; the picture itself is as always."""
    drawn: list[PanelRow] = []
    panel = pictures.cam_panel

    def watched(rows: list[PanelRow], *rest: Any) -> bytes:
        drawn.extend(rows)
        return panel(rows, *rest)

    monkeypatch.setattr(pictures, "cam_panel", watched)
    yield drawn


@pytest.fixture
def walked(made: Made, tmp_path: Path) -> Path:
    """The stage's folder as it is when its picture is drawn: with its labels."""
    for name in made.inputs.split.ids:
        save_label(tmp_path / f"{name}.png", load_label(made.folders["random_walk"] / f"{name}.png"))
    return tmp_path


def test_the_walks_panel_goes_from_cam_to_errors(made: Made, walked: Path, rows: list[PanelRow]) -> None:
    draw_random_walk(made.inputs, walked, beta=0.5)
    with Image.open(walked / "pictures" / "random_walk.png") as picture:
        assert picture.format == "PNG" and picture.width > 200
    assert rows
    for row in rows:
        assert list(row.columns) == ["CAM, beta 0.50", "CRF, alpha_low", "random walk", "errors"]
        maps, present = load_maps(made.folders["cam"] / f"{row.id}.npz")
        assert np.array_equal(row.columns["CAM, beta 0.50"], pseudo_mask(maps, present, 0.5))
        assert np.array_equal(row.columns["random walk"], load_label(walked / f"{row.id}.png"))
        assert row.notes.keys() == set(row.columns) - {"errors"} and row.truth is not None


def test_a_walk_that_is_not_used_has_another_head(made: Made, walked: Path, rows: list[PanelRow]) -> None:
    choice = WalkChoice(alpha=1.0, logt=2, radius=3, used=False)
    draw_random_walk(replace(made.inputs, walk=choice), walked, beta=0.5)
    assert all("pseudo label, not walked" in row.columns and "random walk" not in row.columns for row in rows)


def test_irns_panel_shows_its_confident_labels(made: Made, walked: Path, rows: list[PanelRow]) -> None:
    config = with_values(made.inputs.config, {"random_walk.kind": "irn"}, "test")
    folders = {**made.folders, "crf": walked}  # IRN's stage crf writes labels, not scores
    draw_random_walk(replace(made.inputs, config=config, folders=folders), walked, beta=0.5)
    assert all(np.array_equal(row.columns["IRN's labels"], load_label(walked / f"{row.id}.png")) for row in rows)


def test_deeplabs_panel_shows_it_with_and_without_crf(
    made: Made, tmp_path: Path, rows: list[PanelRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(_: object, image: np.ndarray, config: object) -> tuple[np.ndarray, np.ndarray]:
        plain = np.zeros(image.shape[:2], np.uint8)
        return plain, plain + 1

    monkeypatch.setattr(pictures, "predict", known)
    model = tmp_path / "model.safetensors"
    model.write_bytes((made.folders["deeplab"] / "model.safetensors").read_bytes())
    draw_deeplab(made.inputs, tmp_path)
    assert (tmp_path / "pictures" / "deeplab.png").is_file()
    val = made.inputs.pack.split("val")
    assert rows and {row.id for row in rows} <= set(val.ids)
    for row in rows:
        assert list(row.columns) == ["DeepLab", "with CRF", "errors with CRF"]
        assert not row.columns["DeepLab"].any() and (row.columns["with CRF"] == 1).all()
        assert row.truth is not None and np.array_equal(row.truth, val.mask(val.ids.index(row.id)))
