"""Where masks are wrong, on cases computed by hand."""

import numpy as np
import pytest

from cpn.data.voc import IGNORE
from cpn.scoring.breakdown import (
    boundary_counts,
    boundary_errors,
    by_classes,
    by_size,
    class_shares,
    error_kinds,
    near_boundary,
)
from cpn.scoring.metrics import hard_counts

TRUTH = np.array([[0, 0, 1, 1], [0, 2, 2, IGNORE]], np.uint8)
LABEL = np.array([[0, 1, 1, 0], [0, 2, 1, 2]], np.uint8)
COUNTS = hard_counts(LABEL, TRUTH, 3)
"""7 labelled pixels, 3 wrong: one invented, one missed, one of the wrong class."""


def test_shares_of_the_union_add_up_to_one() -> None:
    shares = class_shares(COUNTS)
    assert np.allclose(shares.sum(axis=0), 1)
    assert np.allclose(shares[:, 0], [2 / 4, 1 / 4, 1 / 4])
    assert np.allclose(shares[:, 1], [1 / 4, 2 / 4, 1 / 4])
    assert np.allclose(shares[:, 2], [1 / 2, 0, 1 / 2])
    assert np.array_equal(class_shares(np.zeros((3, 2), np.int64)), np.zeros((3, 2)))


def test_the_kinds_of_error_add_up_to_the_wrong_pixels() -> None:
    seventh = pytest.approx(100 / 7)
    assert error_kinds(COUNTS) == {"false_positive": seventh, "false_negative": seventh, "wrong_class": seventh}


def test_regions_by_size_and_by_the_number_of_classes() -> None:
    two = np.zeros((10, 10), np.uint8)
    two[0, :4], two[1:4, :4] = 1, 2  # 4 % and 12 % of the image
    one = np.full((10, 10), 1, np.uint8)
    found = two.copy()
    found[0, :2] = 0
    counts = np.stack([hard_counts(found, two, 3), hard_counts(one, one, 3)])
    small, medium, large = by_size(counts)
    assert small == {"size": "small", "from": 0, "to": 5, "regions": 1, "iou": pytest.approx(50), "recall": 50}
    assert (medium["regions"], medium["iou"], large["regions"]) == (1, pytest.approx(100), 1)
    rows = by_classes(counts)
    assert [(row["classes"], row["images"], row["regions"]) for row in rows] == [
        ("1", 1, 1), ("2", 1, 2), ("3 or more", 0, 0),
    ]  # fmt: skip
    assert rows[1]["iou"] == pytest.approx(75) and rows[1]["recall"] == pytest.approx(100 * 14 / 16)
    assert rows[1]["false_negative"] == pytest.approx(2) and "iou" not in rows[2]


def test_near_a_boundary_is_within_a_square() -> None:
    truth = np.zeros((5, 9), np.uint8)
    truth[:, 6:] = 1
    assert near_boundary(truth, 2)[0].tolist() == [False] * 4 + [True] * 4 + [False]
    truth[:, 6:] = IGNORE
    assert near_boundary(truth, 2)[0].tolist() == [False] * 4 + [True] * 4 + [False]
    assert not near_boundary(np.full((5, 9), 3, np.uint8), 2).any(), "the image's edge is no boundary"


def test_errors_near_boundaries_and_elsewhere() -> None:
    truth = np.zeros((1, 9), np.uint8)
    truth[0, 6:] = 1
    truth[0, 8] = IGNORE
    label = np.array([[1, 0, 0, 0, 0, 0, 0, 1, 1]], np.uint8)
    counts = boundary_counts(label, truth, 1)
    assert counts.tolist() == [[3, 1], [5, 1]], "columns 5, 6 and 7 are near; the ignored one does not count"
    said = boundary_errors(counts)
    assert said == {"pixels": 5, "near": pytest.approx(100 / 3), "elsewhere": 20, "share_of_errors": 50}
