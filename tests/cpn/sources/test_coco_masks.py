import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpn.core.errors import InputError
from cpn.data.voc import IGNORE
from cpn.sources.coco_masks import (
    Annotation,
    annotation_mask,
    image_mask,
    polygon_mask,
    read_annotation,
    runs_mask,
    unpack_runs,
)
from tests.conftest import CHECKOUT

REFERENCE = json.loads((CHECKOUT / "tests/reference/coco_masks.json").read_text())
"""Masks as COCO's own tools give them."""


def entry(segmentation: object, **more: object) -> dict[str, object]:
    return {"id": 7, "image_id": 3, "category_id": 1, "segmentation": segmentation, **more}


def square(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def packed(runs: list[int]) -> str:
    """Compressed run lengths, written from the description of the format."""
    text = ""
    for at, run in enumerate(runs):
        value = run - runs[at - 2] if at > 2 else run
        while True:
            digit, value = value & 31, value >> 5
            more = not (value == 0 and not digit & 16) and not (value == -1 and digit & 16)
            text += chr(48 + digit + (32 if more else 0))
            if not more:
                break
    return text


def inside(polygon: list[tuple[float, float]], x: float, y: float) -> bool:
    """Whether a point lies in a polygon: a ray to the right crosses its sides an odd number of times."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            crossings += 1
    return crossings % 2 == 1


def test_runs_by_hand() -> None:
    # Columns of 2: 1 outside, 3 inside, 2 outside.
    assert runs_mask([1, 3, 2], 2, 3).astype(int).tolist() == [[0, 1, 0], [1, 1, 0]]
    assert runs_mask([0, 6], 2, 3).all() and not runs_mask([6], 2, 3).any()


def test_packed_runs_by_hand() -> None:
    assert unpack_runs("5") == [5]
    assert unpack_runs("l1") == [60]  # 60 = 28 + 32, of which 28 is chr(48 + 28 + 32) and 1 is chr(48 + 1)
    assert unpack_runs("123O") == [1, 2, 3, 2 - 1]  # chr(48 + 31) is -1, the difference to the run two before
    assert unpack_runs("") == []


@given(st.lists(st.integers(0, 5000), max_size=12))
def test_packing_and_unpacking_are_inverse(runs: list[int]) -> None:
    assert unpack_runs(packed(runs)) == runs


def test_packed_runs_as_cocos_tools_write_them() -> None:
    small = REFERENCE["runs"]
    rows = runs_mask(unpack_runs(small["counts"]), 9, 13).astype(int)
    assert ["".join(map(str, row)) for row in rows] == small["rows"]
    large = REFERENCE["large"]
    mask = runs_mask(unpack_runs(large["counts"]), 50, 70)
    assert mask.sum() == large["area"] and mask[5:45, 8:60].sum() == large["area"] and not mask[20:30, 30:33].any()


@pytest.mark.parametrize(("text", "message"), [("5l", "are cut off"), ("5é", "'é' does not"), ("5/", "'/' does not")])
def test_packed_runs_that_are_damaged(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        unpack_runs(text, "annotation 7")


def test_a_polygon_covers_the_pixels_whose_centre_lies_in_it() -> None:
    mask = polygon_mask(np.array(square(1, 1, 3, 4)).reshape(-1, 2), 5, 6)
    expected = np.zeros((5, 6), bool)
    expected[1:4, 1:3] = True
    assert (mask == expected).all()
    assert polygon_mask(np.array([[1.2, 1.2], [4.2, 1.2], [1.2, 4.2]]), 5, 6).sum() == 6  # x + y < 5.4
    assert not polygon_mask(np.array([[1.6, 1.6], [2.4, 1.6], [2.4, 2.4]]), 5, 6).any()  # thinner than any centre
    assert not polygon_mask(np.array([[0.0, 0.0], [5.0, 5.0]]), 5, 6).any()
    assert polygon_mask(np.array(square(-9, -9, 99, 99)).reshape(-1, 2), 5, 6).all()


@given(st.lists(st.tuples(st.integers(-30, 150), st.integers(-30, 150)), min_size=3, max_size=9))
def test_polygons_against_a_count_of_crossings(points: list[tuple[int, int]]) -> None:
    # Odd hundredths: no centre lies on a side's end.
    polygon = [(x / 10 + 0.013, y / 10 + 0.017) for x, y in points]
    mask = polygon_mask(np.array(polygon), 12, 10)
    for row in range(12):
        for column in range(10):
            x, y = column + 0.5, row + 0.5
            nearest = min(distance(x, y, a, b) for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True))
            assert nearest < 1e-9 or mask[row, column] == inside(polygon, x, y)


def distance(x: float, y: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    length = (b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2
    along = 0.0 if length == 0 else ((x - a[0]) * (b[0] - a[0]) + (y - a[1]) * (b[1] - a[1])) / length
    along = min(1.0, max(0.0, along))
    return math.hypot(x - a[0] - along * (b[0] - a[0]), y - a[1] - along * (b[1] - a[1]))


def test_polygons_are_close_to_cocos_own_masks() -> None:
    cases = REFERENCE["polygons"]
    height, width = cases["height"], cases["width"]
    areas = []
    for case in cases["masks"]:
        theirs = runs_mask(unpack_runs(case["counts"]), height, width)
        ours = polygon_mask(np.array(case["polygon"]).reshape(-1, 2), height, width)
        assert (ours != theirs).sum() <= 11
        areas.append((ours.sum(), theirs.sum()))
    ours_total, theirs_total = np.sum(areas, axis=0)
    assert len(areas) == 12 and abs(ours_total - theirs_total) <= 0.002 * theirs_total  # no bias


def test_parts_of_an_object_are_joined_even_where_they_overlap() -> None:
    annotation = read_annotation(entry([square(0, 0, 3, 3), square(2, 2, 5, 5)]))
    assert annotation_mask(annotation, 6, 6).sum() == 9 + 9 - 1


@pytest.mark.parametrize("runs", [[2, 2, 2], "222"])
def test_runs_plain_and_packed(runs: list[int] | str) -> None:
    annotation = read_annotation(entry({"counts": runs, "size": [2, 3]}, iscrowd=1))
    assert annotation.crowd and annotation_mask(annotation, 2, 3).astype(int).tolist() == [[0, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (entry([[1, 2, 3, 4, 5]]), "annotation 7 of image 3: a polygon of 5 numbers is cut off, x and y come in pairs"),
        (entry([[1, 2, "x", 4, 5, 6]]), "a polygon is a list of numbers"),
        (entry([[1, 2, float("nan"), 4, 5, 6]]), "a polygon is a list of numbers, none of them NaN or infinite"),
        (entry([[1, 2, float("inf"), 4, 5, 6]]), "a polygon is a list of numbers, none of them NaN or infinite"),
        (entry([], iscrowd="0"), "annotation 7 of image 3: iscrowd is '0': write 0 for one object, 1 for a crowd"),
        (entry([], iscrowd="no"), "iscrowd is 'no': write 0"),
        (entry([], iscrowd=2), "iscrowd is 2: write 0"),
        (entry([], iscrowd=0.5), "iscrowd is 0.5: write 0"),
        (entry([], iscrowd=True), "iscrowd is True: write 0"),
        (entry([], iscrowd=None), "iscrowd is None: write 0"),
        (entry([], iscrowd=[]), "iscrowd is .*: write 0"),
        (entry([], bbox=[1, 1, 0, 5]), "no polygon of three points, and its bbox is .1, 1, 0, 5.: write polygons, or"),
        (entry([[1, 2, 3, 4]], bbox=[1, 1, -2, 5]), "no polygon of three points, and its bbox is .1, 1, -2, 5."),
        (entry([], bbox=[1, 1, float("nan"), 5]), "and its bbox is .1, 1, nan, 5."),
        (entry([], bbox=[1, 1, 5]), "and its bbox is .1, 1, 5."),
        (entry(None, bbox="1,1,5,5"), "and its bbox is '1,1,5,5'"),
        (entry([1, 2, 3, 4, 5, 6]), "a polygon is a list of numbers"),
        (entry([[[1, 2], [3, 4], [5, 6]]]), "a polygon is a list of numbers"),
        (entry(5), "neither polygons nor run lengths"),
        (entry({"counts": [1, 2]}), "neither polygons nor run lengths"),
        (entry({"counts": 5, "size": [1, 2]}), "neither polygons nor run lengths"),
        ({**entry([]), "category_id": "person"}, "id, image_id and category_id have to be whole numbers"),
    ],
)
def test_entries_that_are_wrong(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_annotation(values)


@pytest.mark.parametrize(
    ("runs", "size", "message"),
    [
        ([2, 2, 2], [3, 2], r"its mask is of size \(3, 2\), the image \(height, width\) \(2, 3\)"),
        ([2, 2], [2, 3], "its runs do not add up to the 6 pixels"),
        ([8, -2], [2, 3], "its runs do not add up to the 6 pixels"),
        ("22", [2, 3], "its runs do not add up to the 6 pixels"),
        ([2.0, 4], [2, 3], "its run 2.0 is no whole number of pixels"),
        ([2, "4"], [2, 3], "its run '4' is no whole number of pixels"),
        ([2, None, 4], [2, 3], "its run None is no whole number of pixels"),
        ("l", [2, 3], "its compressed run lengths are cut off"),
    ],
)
def test_runs_that_do_not_fit(runs: list[int] | str, size: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        annotation_mask(read_annotation(entry({"counts": runs, "size": size})), 2, 3)


def annotations(*parts: tuple[list[float], bool]) -> list[Annotation]:
    return [read_annotation(entry([polygon], iscrowd=int(crowd))) for polygon, crowd in parts]


def test_the_smaller_object_is_on_top_whatever_the_order() -> None:
    big, small = (square(0, 0, 6, 6), False), (square(2, 2, 4, 4), False)
    expected = np.full((6, 6), 1)
    expected[2:4, 2:4] = 2
    assert (image_mask(annotations(big, small), [1, 2], 6, 6) == expected).all()
    assert (image_mask(annotations(small, big), [2, 1], 6, 6) == expected).all()


def test_a_crowd_is_ignored_and_below_all_objects() -> None:
    crowd, big, small = (square(1, 1, 3, 3), True), (square(2, 2, 6, 6), False), (square(4, 4, 5, 5), False)
    mask = image_mask(annotations(small, crowd, big), [9, 5, 254], 7, 7)
    assert mask.dtype == np.uint8 and mask[1, 1] == IGNORE and mask[2, 2] == 254 and mask[4, 4] == 9 and mask[0, 0] == 0
    assert (mask == IGNORE).sum() == 3


def test_an_image_without_pixels_of_anything_is_background() -> None:
    assert not image_mask(annotations(([0.0, 0.0, 0.2, 0.0, 0.2, 0.2], False)), [3], 4, 4).any()
    assert not image_mask([], [], 4, 4).any()
