"""Panels: the colours are those that were promised, and whatever a run holds can be drawn."""

import io
import json

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cpn.data.voc import IGNORE, palette
from cpn.plots.panel import ERRORS, PLACES, PanelRow, cam_panel, error_map, heat_over


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
    kinds = ["correct", "background", "false negative", "false positive", "wrong class", "ignored"]
    assert error_map(prediction, truth).tolist() == [[list(ERRORS[kind]) for kind in kinds]]
    assert len(set(ERRORS.values())) == len(ERRORS)


def test_a_map_over_an_image_is_half_of_each() -> None:
    image = np.full((1, 2, 3), 200, np.uint8)
    over = heat_over(image, np.array([[0.0, 1.0]]))
    assert over.tolist() == [[[134, 100, 142], [226, 216, 118]]]  # viridis from (68, 1, 84) to (253, 231, 36)
    assert np.array_equal(heat_over(image, np.array([[0.0, 1.0]]), 0.0), image)


def test_a_panel_shows_image_heat_mask_and_rgb() -> None:
    heat = np.ones((40, 60), np.float32)
    mask = np.full((40, 60), 3, np.uint8)
    pair = np.full((40, 60, 3), (1, 2, 3), np.uint8)
    picture = read(cam_panel([row(heat=heat, mask=mask, pair=pair)]))
    assert 900 <= picture.shape[1] <= 1100
    found = [shares(picture, colour) for colour in ((10, 200, 30), (253, 231, 36), palette()[3], (1, 2, 3))]
    assert min(found) > 0.05  # each of four cells in a picture with heads, legend and margins
    assert max(found) < 1.1 * min(found)


def test_missing_truth_and_column_leave_an_empty_cell() -> None:
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


@pytest.mark.parametrize("odd", ["a\nb", "a\x1b[2Jb", "\udcff", "\u200bb", "\0"], ids=ascii)
def test_any_name_is_drawn(odd: str) -> None:
    """A file's name may hold what no font draws."""
    one = PanelRow(odd, row().image, None, {odd: np.zeros((40, 60))}, odd)
    assert read(cam_panel([one], title=odd)).shape[1] == 1080


def test_a_panel_says_where_its_images_are() -> None:
    truth = np.ones((40, 60), np.uint8)
    with Image.open(io.BytesIO(cam_panel([row(), row()._replace(id="b", truth=truth)], title="two"))) as opened:
        (first, top, middle), (second, again, bottom) = json.loads(opened.info[PLACES])
        shown = np.asarray(opened.convert("RGB"))
    assert (first, second) == ("2007_000032", "b") and 0 < top < middle == again < bottom < len(shown)
    masks = [shares(shown[start:end], palette()[1]) for start, end in ((top, middle), (again, bottom))]
    assert masks[0] == 0 < masks[1]


def test_a_panel_without_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        cam_panel([])


def test_a_mask_with_a_label_that_has_no_name_is_an_error() -> None:
    names = ["background", "cat"]
    shown = np.full((40, 60), 1, np.uint8)
    shown[0, 0] = IGNORE
    assert cam_panel([row(mask=shown)], names)
    with pytest.raises(ValueError, match="column 'CAM' is a mask with label 200, and 2 have names"):
        cam_panel([row(CAM=np.full((40, 60), 200, np.uint8))], names)  # heat in 255 steps


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert cam_panel([row()]) == cam_panel([row()])
    assert b"matplotlib" not in cam_panel([row()]).lower()


def test_cells_that_do_not_fit_on_a_line_stand_below() -> None:
    heat = np.ones((40, 60), np.float32)
    columns = {f"map {i}": heat for i in range(5)}
    wide, tall = (read(cam_panel([row(**columns)], across=across)) for across in (None, 3))
    assert wide.shape[1] == tall.shape[1] and tall.shape[0] > wide.shape[0] + 100
    assert (tall == (253, 231, 36)).all(-1).sum() > 1.3 * (wide == (253, 231, 36)).all(-1).sum()  # larger cells


def test_words_stand_in_the_corner_or_in_place_of_a_picture() -> None:
    mask = np.full((40, 60), 3, np.uint8)
    plain = read(cam_panel([row(mask=mask)]))
    noted = read(cam_panel([row(mask=mask)._replace(notes={"mask": "IoU 56"})]))
    assert noted.shape == plain.shape
    assert 100 < (noted != plain).any(-1).sum() < 4000 and shares(noted, palette()[3]) > 0.8 * shares(
        plain, palette()[3]
    )
    empty = row()._replace(columns={"later": None}, notes={"later": "not run yet"})
    silent = row()._replace(columns={"later": None})
    assert not np.array_equal(read(cam_panel([empty])), read(cam_panel([silent])))
