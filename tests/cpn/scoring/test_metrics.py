"""Metrics: the stored numbers, a hand-computed case, and the beta curve against the brute-force loop."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpn.core.errors import InputError
from cpn.data.voc import IGNORE
from cpn.scoring.metrics import BETAS, best_beta, curve_counts, hard_counts, iou, miou

REFERENCE = Path(__file__).parents[2] / "reference" / "miou_eval.npz"
IMAGES = "abcd"


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(REFERENCE, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_the_stored_hard_predictions(stored):
    counts = sum(hard_counts(stored[f"pred_{i}"], stored[f"gt_{i}"], 21) for i in IMAGES)
    np.testing.assert_allclose(100 * iou(counts), stored["iou_percent"], rtol=1e-9)
    assert 100 * float(miou(counts)) == pytest.approx(float(stored["miou_percent"]), rel=1e-9)


def test_the_stored_curve(stored):
    counts = sum(
        curve_counts(stored[f"cams_{i}"], stored[f"camkeys_{i}"] + 1, stored[f"gt_{i}"], 21, stored["thresholds"])
        for i in IMAGES
    )
    np.testing.assert_allclose(100 * iou(counts), stored["curve_iou_then_miou"][:, :21], rtol=1e-9)
    np.testing.assert_allclose(100 * miou(counts), stored["curve_iou_then_miou"][:, 21], rtol=1e-9)


def brute_force(maps, present, truth, classes, betas):
    """argmax of [beta, maps] for each beta in turn, then counting class by class."""
    names = np.array([0, *present])
    counts = np.zeros((len(betas), 3, classes), dtype=np.int64)
    for step, beta in enumerate(betas):
        stacked = np.concatenate([np.full((1, *truth.shape), beta, dtype=maps.dtype), maps])
        prediction = names[stacked.argmax(axis=0)]
        valid = truth != IGNORE
        for c in range(classes):
            counts[step, 0, c] = ((prediction == c) & (truth == c) & valid).sum()
            counts[step, 1, c] = ((prediction == c) & valid).sum()
            counts[step, 2, c] = ((truth == c) & valid).sum()
    return counts


@settings(max_examples=60)
@given(
    classes=st.integers(2, 6),
    many=st.integers(0, 3),
    levels=st.sampled_from([4, 10, 50, 1000]),
    precision=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 9999),
)
def test_the_curve_equals_the_loop_to_the_integer(classes, many, levels, precision, seed):
    # Few levels on the grid of betas: ties between classes and with the background are the rule.
    rng = np.random.default_rng(seed)
    present = np.sort(rng.permutation(np.arange(1, classes))[:many])
    maps = (rng.integers(0, levels + 1, (len(present), 6, 7)) / levels).astype(precision)
    truth = rng.integers(0, classes, (6, 7)).astype(np.uint8)
    truth[rng.random((6, 7)) < 0.2] = IGNORE
    counts = curve_counts(maps, present, truth, classes)
    assert counts.dtype == np.int64
    assert np.array_equal(counts, brute_force(maps, present, truth, classes, BETAS))


@settings(max_examples=30)
@given(betas=st.lists(st.floats(-2, 5), min_size=1, max_size=9).map(sorted), seed=st.integers(0, 9999))
def test_maps_of_any_scale_and_any_ascending_betas(betas, seed):
    rng = np.random.default_rng(seed)
    maps = rng.normal(1, 2, (2, 5, 5)).astype(np.float32)
    truth = rng.integers(0, 4, (5, 5)).astype(np.uint8)
    counts = curve_counts(maps, np.array([1, 3]), truth, 4, betas)
    assert np.array_equal(counts, brute_force(maps, [1, 3], truth, 4, betas))


def test_counts_by_hand():
    prediction = np.array([[0, 1], [1, 2]])
    truth = np.array([[0, 1], [2, IGNORE]], np.uint8)
    counts = hard_counts(prediction, truth, 3)
    assert counts.tolist() == [[1, 1, 0], [1, 2, 0], [1, 1, 1]]
    np.testing.assert_allclose(iou(counts), [1, 0.5, 0], atol=1e-9)
    assert float(miou(counts)) == pytest.approx(0.5)


def test_a_class_never_seen_counts_as_zero():
    counts = hard_counts(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 4)
    np.testing.assert_allclose(iou(counts), [1, 0, 0, 0], atol=1e-9)
    assert float(miou(counts)) == pytest.approx(0.25)


def test_ties_go_to_the_background_then_to_the_first_map():
    maps = np.array([[[0.5, 0.3, 0.6]], [[0.2, 0.3, 0.6]]], np.float32)
    truth = np.array([[0, 1, 2]], np.uint8)
    counts = curve_counts(maps, np.array([1, 2]), truth, 3, [0.2, 0.3, 0.5])
    # Predictions by beta: 1 1 1; 1 0 1; 0 0 1. The tie of the two classes at the last pixel goes to the first map.
    assert counts[:, 1].tolist() == [[0, 3, 0], [1, 2, 0], [2, 1, 0]]
    assert counts[:, 0].tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_a_beta_is_compared_in_the_precision_of_the_maps():
    # 0.2 in float32 is a little above 0.2 in float64; the released evaluation sees a tie there.
    maps, truth = np.full((1, 1, 1), 0.2, np.float32), np.zeros((1, 1), np.uint8)
    assert curve_counts(maps, np.array([1]), truth, 2, [0.2])[0, 1].tolist() == [1, 0]


def test_an_image_without_labels_is_background_at_every_beta():
    truth = np.array([[0, 1], [1, IGNORE]], np.uint8)
    counts = curve_counts(np.zeros((0, 2, 2), np.float32), np.zeros(0, int), truth, 2, [0.0, 0.5])
    assert counts.tolist() == [[[1, 0], [3, 0], [1, 2]]] * 2


def test_counts_add_up_over_images_and_leading_axes(stored):
    each = np.stack([hard_counts(stored[f"pred_{i}"], stored[f"gt_{i}"], 21) for i in IMAGES])
    sample = each[[0, 0, 3]].sum(axis=0)
    assert float(miou(sample)) == pytest.approx(float(miou(2 * each[0] + each[3])))
    assert iou(each).shape == (4, 21) and miou(each).shape == (4,)
    assert float(miou(each)[2]) == float(miou(each[2]))


def test_betas_run_from_0_to_1_2_in_steps_of_a_fiftieth():
    assert len(BETAS) == 61 and BETAS[0] == 0 and BETAS[-1] == 1.2
    assert np.allclose(np.diff(BETAS), 0.02)


def test_best_beta_is_the_first_of_equals():
    counts = np.zeros((4, 3, 2), np.int64)
    counts[:, 1:] = 10
    counts[1:3, 0] = 5
    beta, value = best_beta(counts, [0.1, 0.2, 0.3, 0.4])
    assert beta == 0.2
    assert value == pytest.approx(5 / 15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: hard_counts(np.zeros((2, 2), int), np.full((2, 2), 9, np.uint8), 3),
            "class 9, but the data set has 3",
        ),
        (lambda: hard_counts(np.full((2, 2), 3), np.zeros((2, 2), np.uint8), 3), "outside 0..2"),
        (lambda: hard_counts(np.full((2, 2), -1), np.zeros((2, 2), np.uint8), 3), "outside 0..2"),
        (lambda: hard_counts(np.zeros((2, 3), int), np.zeros((3, 2), np.uint8), 3), "shape"),
        (lambda: curve(present=[0]), "outside 1..2"),
        (lambda: curve(present=[3]), "outside 1..2"),
        (lambda: curve(present=[1, 2]), "do not fit"),
        (lambda: curve(betas=[0.5, 0.4]), "ascend"),
        (lambda: curve(value=np.nan), "not a number"),
        (lambda: best_beta(np.zeros((3, 3, 2), np.int64), [0.1]), "3 betas, but 1"),
    ],
)
def test_wrong_input_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def curve(present=(1,), betas=(0.1, 0.2), value=0.5):
    maps, truth = np.full((1, 2, 2), value, np.float32), np.zeros((2, 2), np.uint8)
    return curve_counts(maps, np.array(present), truth, 3, betas)
