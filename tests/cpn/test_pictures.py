"""Pictures: the colours are those that were promised, and whatever a run holds can be drawn."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cpn.pictures import (
    ERRORS,
    PanelRow,
    beta_curve,
    cam_panel,
    class_iou,
    error_map,
    loss_terms,
    overlay,
    scale_curves,
)
from cpn.voc import IGNORE, palette

BETAS = np.arange(61) * 0.02


def read(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def shares(picture: NDArray[np.uint8], colour: tuple[int, ...] | NDArray[np.uint8]) -> float:
    """The share of a picture's pixels that have a colour."""
    return float((picture == np.asarray(colour)).all(-1).mean())


def row(height: int = 40, width: int = 60, **columns: NDArray[np.generic]) -> PanelRow:
    image = np.full((height, width, 3), (10, 200, 30), np.uint8)
    return PanelRow("2007_000032", image, None, columns)


def test_each_kind_of_error_has_its_colour() -> None:
    prediction = np.array([[1, 0, 0, 1, 2, 1]], np.uint8)
    truth = np.array([[1, 0, 1, 0, 1, IGNORE]], np.uint8)
    kinds = ["right", "background", "object missed", "object invented", "wrong class", "ignored"]
    assert error_map(prediction, truth).tolist() == [[list(ERRORS[kind]) for kind in kinds]]
    assert len(set(ERRORS.values())) == len(ERRORS)


def test_overlay_mixes_objects_and_leaves_the_rest() -> None:
    image = np.full((1, 3, 3), 100, np.uint8)
    mask = np.array([[0, 1, IGNORE]], np.uint8)
    mixed = overlay(image, mask, strength=0.5)
    assert mixed[0, 0].tolist() == mixed[0, 2].tolist() == [100, 100, 100]
    assert mixed[0, 1].tolist() == [114, 50, 50]  # half of (128, 0, 0) and half of grey 100
    assert (image == 100).all()


def test_a_panel_shows_image_heat_mask_and_rgb() -> None:
    heat = np.ones((40, 60), np.float32)
    mask = np.full((40, 60), 3, np.uint8)
    pair = np.full((40, 60, 3), (1, 2, 3), np.uint8)
    picture = read(cam_panel([row(heat=heat, mask=mask, pair=pair)]))
    assert 900 <= picture.shape[1] <= 1100
    found = [shares(picture, colour) for colour in ((10, 200, 30), (253, 231, 36), palette()[3], (1, 2, 3))]
    assert min(found) > 0.05  # each of four cells in a picture with heads, legend and margins
    assert max(found) < 1.1 * min(found)


def test_a_missing_truth_and_a_missing_column_leave_an_empty_cell() -> None:
    mask = np.full((40, 60), 3, np.uint8)
    full = PanelRow("a", row().image, mask, {"mask": mask})
    two = read(cam_panel([full, full]))
    one = read(cam_panel([full, row()]))
    assert one.shape == two.shape
    assert shares(one, palette()[3]) == pytest.approx(shares(two, palette()[3]) / 2, rel=0.05)


def test_the_legend_names_the_classes_that_are_there() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[:5, :5], mask[-5:, -5:] = 2, IGNORE
    bare = read(cam_panel([row(mask=mask)]))
    named = read(cam_panel([row(mask=mask)], ["background", "fox", "cat"]))
    errors = read(cam_panel([row(errors=np.zeros((40, 60, 3), np.uint8))]))
    assert named.shape[0] > bare.shape[0]
    assert (named == palette()[2]).all(-1).sum() > (bare == palette()[2]).all(-1).sum()
    assert (named == palette()[1]).all(-1).sum() == 0
    assert shares(errors, ERRORS["wrong class"]) > 0


@pytest.mark.parametrize("shape", [(500, 100), (100, 500), (1, 1), (333, 500)])
def test_a_panel_of_any_shape_keeps_its_width(shape: tuple[int, int]) -> None:
    long_id = PanelRow("x" * 300, row(*shape).image, None, {"a head of many words that has to wrap": np.zeros(shape)})
    assert read(cam_panel([long_id, row()], title="several shapes")).shape[1] == 1080


def test_a_panel_without_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        cam_panel([])


def test_the_beta_curve_marks_the_best_beta() -> None:
    miou = np.exp(-((BETAS - 0.44) ** 2))
    picture = read(beta_curve(BETAS, miou, 0.44, "train, select images"))
    marked = np.argwhere((picture == (0xD5, 0x5E, 0x00)).all(-1))
    left = read(beta_curve(BETAS, miou, 0.2, "train, select images"))
    assert len(marked) > 30
    assert np.median(np.argwhere((left == (0xD5, 0x5E, 0x00)).all(-1))[:, 1]) < np.median(marked[:, 1])
    other = {"cam_baseline": 0.5 * miou}
    assert shares(read(beta_curve(BETAS, miou, 0.44, "train", others=other)), (0x8C, 0x8C, 0x8C)) > 0


def test_scales_have_a_curve_each_and_the_last_is_thick() -> None:
    lines = {name: 0.5 + 0.1 * place - (BETAS - 0.4) ** 2 for place, name in enumerate(("0.5", "1", "2", "all"))}
    blue, orange = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
    picture = read(scale_curves(BETAS, lines, "train, refined map"))
    dot = np.argwhere((picture == orange).all(-1))
    assert picture.shape[1] == 950 and 0 < np.median(dot[:, 0]) < 0.4 * len(picture)  # the last is the highest here
    single = read(scale_curves(BETAS, {"1": lines["1"]}, "train"))
    assert shares(single, blue) == pytest.approx(shares(picture, blue), rel=0.5)
    other = read(scale_curves(BETAS, {**lines, "0.5": lines["2"] - 0.3}, "train, refined map"))
    assert not np.array_equal(other, picture)


def test_bars_grow_with_the_iou_and_an_absent_class_has_none() -> None:
    blue = (0x00, 0x72, 0xB2)
    small = shares(read(class_iou(["background", "fox"], np.array([0.5, 0.2]), "train")), blue)
    large = shares(read(class_iou(["background", "fox"], np.array([0.5, 0.8]), "train")), blue)
    assert large == pytest.approx(4 * small, rel=0.1)
    assert shares(read(class_iou(["background", "fox"], np.array([0.5, np.nan]))), blue) == 0


def test_loss_terms_are_one_plot_each() -> None:
    history = [{"epoch": e, "lr": 0.1, **{f"loss_{k}": 1.0 / e for k in ("cls", "amp", "total")}} for e in (1, 2, 3)]
    one_line = read(loss_terms(history))
    more = read(loss_terms([{**entry, "loss_tcp": -1.0} for entry in history]))
    assert more.shape[0] > one_line.shape[0]
    assert shares(one_line, (0xD5, 0x5E, 0x00)) > 0  # the total
    for odd in ([], [{"loss_cls": float("nan")}], [{"lr": 1.0}]):
        assert read(loss_terms(odd)).shape[1] == 1000


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert cam_panel([row()]) == cam_panel([row()])
    assert b"matplotlib" not in cam_panel([row()]).lower()
