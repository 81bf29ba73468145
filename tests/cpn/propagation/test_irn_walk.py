import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cpn.propagation.irn_walk import (
    irn_affinities,
    irn_pseudo_label,
    irn_walk,
    path_affinities,
    path_cells,
    strided_maps,
)
from cpn.propagation.random_walk import pair_offsets
from cpn.propagation.walk_rule import source_shape

Array = NDArray[np.float64]


def slow_affinity(edge: Array, first: tuple[int, int], second: tuple[int, int]) -> float:
    """1 - the largest edge among the cells between two cells that are less than one cell off their line."""
    (y0, x0), (y1, x1) = first, second
    length = float(np.hypot(y1 - y0, x1 - x0))
    largest = 0.0
    for y in range(edge.shape[0]):
        for x in range(edge.shape[1]):
            off = abs((y1 - y0) * (x - x0) - (x1 - x0) * (y - y0)) / length
            between = min(y0, y1) <= y <= max(y0, y1) and min(x0, x1) <= x <= max(x0, x1)
            if between and off < 1 - 1e-9:
                largest = max(largest, float(edge[y, x]))
    return 1 - largest


def slow_matrix(edge: Array, radius: int, beta: float) -> Array:
    """The transition matrix from its definition, one pair at a time, over all pairs inside the map."""
    height, width = edge.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    matrix = np.eye(len(places))
    for i, one in enumerate(places):
        for j, two in enumerate(places):
            if i != j and (one[0] - two[0]) ** 2 + (one[1] - two[1]) ** 2 < radius**2:
                matrix[i, j] = slow_affinity(edge, one, two) ** beta
    return matrix / matrix.sum(axis=0)


def random_edge(height: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(0, 0.6, (height, width)) ** 2


def test_paths_by_hand() -> None:
    assert path_cells(0, 2) == [(0, 0), (0, 1), (0, 2)]
    assert path_cells(1, 1) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert path_cells(1, -1) == [(0, -1), (0, 0), (1, -1), (1, 0)]
    # (0, 1) and (1, 1) lie 1/sqrt 5 off the line to (1, 2), (0, 2) and (1, 0) 2/sqrt 5.
    assert path_cells(1, 2) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert (0, 2) not in path_cells(2, 2) and len(path_cells(2, 2)) == 7
    # (1, 3) is exactly one cell off the line to (3, 4), which is five cells long: no longer on the path.
    assert (1, 3) not in path_cells(3, 4) and (1, 2) in path_cells(3, 4)


@given(st.integers(-9, 9), st.integers(-9, 9))
def test_a_path_holds_both_ends_and_is_the_same_from_either(dy: int, dx: int) -> None:
    if (dy, dx) == (0, 0):
        return
    path = path_cells(dy, dx)
    assert {(0, 0), (dy, dx)} <= set(path) and len(path) == len(set(path))
    assert {(y + dy, x + dx) for y, x in path_cells(-dy, -dx)} == set(path)


@pytest.mark.parametrize(("height", "width", "radius"), [(6, 7, 3), (5, 9, 5), (2, 3, 4), (1, 1, 5)])
def test_affinities_equal_the_slow_ones_and_stop_at_the_border(height: int, width: int, radius: int) -> None:
    edge = random_edge(height, width)
    affinities = irn_affinities(edge, radius)
    offsets = pair_offsets(radius).tolist()
    assert affinities.shape == (len(offsets), height, width) and affinities.dtype == np.float64
    for p, (dy, dx) in enumerate(offsets):
        for y in range(height):
            for x in range(width):
                inside = y + dy < height and 0 <= x + dx < width
                expected = slow_affinity(edge, (y, x), (y + dy, x + dx)) if inside else 0
                assert affinities[p, y, x] == pytest.approx(expected, abs=1e-12)


def test_training_pairs_are_the_inner_ones_in_the_same_order() -> None:
    edge, radius = random_edge(7, 11, seed=1), 3
    rows, columns = source_shape(7, 11, radius)
    pairs = path_affinities(torch.from_numpy(np.stack([edge, edge / 2])), radius)
    inner = irn_affinities(edge, radius)[:, :rows, radius - 1 : radius - 1 + columns]
    np.testing.assert_allclose(pairs[0].numpy(), inner.reshape(len(inner), -1))
    np.testing.assert_allclose(1 - pairs[1].numpy(), (1 - pairs[0].numpy()) / 2)


def test_affinity_gradients() -> None:
    edge = torch.from_numpy(random_edge(5, 6)[None]).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: path_affinities(e, 3), edge)
    path_affinities(edge, 2)[0, 0, 0].backward()
    # The pair of (0, 1) and (0, 2): the larger edge alone takes the blame.
    larger = 1 + int(edge[0, 0, 2] > edge[0, 0, 1])
    expected = torch.zeros_like(edge)
    expected[0, 0, larger] = -1
    assert edge.grad is not None and torch.equal(edge.grad, expected)


def test_a_map_too_small_for_training_pairs_has_none() -> None:
    assert path_affinities(torch.zeros(2, 4, 4), 5).shape == (2, 34, 0)


def test_walk_by_hand() -> None:
    # Three cells in a row, the middle one half an edge: every pair has affinity 1/2, every column sums to 2.
    walked = irn_walk(np.array([[[1.0, 0, 0]]]), np.array([[0, 0.5, 0]]), radius=3, beta=1, logt=0)
    np.testing.assert_allclose(walked, [[[0.5, 0.25, 0.25]]])
    # Beta 2: affinities 1/4, columns 3/2. The edge takes half of the middle cell's own score away first.
    walked = irn_walk(np.array([[[0.0, 3, 0]]]), np.array([[0, 0.5, 0]]), radius=3, beta=2, logt=0)
    np.testing.assert_allclose(walked, [[[0.25, 1, 0.25]]])


def test_without_edges_a_step_sums_the_disc_over_sizes() -> None:
    cams = np.random.default_rng(0).uniform(0, 1, (2, 6, 8))
    walked = irn_walk(cams, np.zeros((6, 8)), radius=3, beta=10, logt=0)
    rows, columns = np.mgrid[:6, :8]
    for y, x in ((0, 0), (3, 4), (5, 2)):
        disc = (rows - y) ** 2 + (columns - x) ** 2 < 9
        np.testing.assert_allclose(walked[:, y, x], cams[:, disc].mean(axis=1))


@pytest.mark.parametrize(
    ("height", "width", "radius", "beta", "logt"), [(5, 6, 3, 10.0, 3), (4, 7, 5, 4.0, 8), (3, 2, 5, 1.0, 0)]
)
def test_walk_equals_the_squared_dense_matrix(height: int, width: int, radius: int, beta: float, logt: int) -> None:
    edge = random_edge(height, width, seed=3)
    cams = np.random.default_rng(4).uniform(0, 1, (3, height, width))
    matrix = slow_matrix(edge, radius, beta)
    for _ in range(logt):
        matrix = matrix @ matrix
    expected = (cams * (1 - edge)).reshape(3, -1) @ matrix
    walked = irn_walk(cams, edge, radius, beta, logt)
    np.testing.assert_allclose(walked.reshape(3, -1), expected, rtol=1e-9)
    float32 = irn_walk(cams.astype(np.float32), edge.astype(np.float32), radius, beta, logt)
    np.testing.assert_allclose(float32, walked, rtol=1e-4)


def test_defaults_are_the_released_ones() -> None:
    edge, cams = random_edge(6, 7), np.random.default_rng(1).uniform(0, 1, (1, 6, 7))
    assert np.array_equal(irn_walk(cams, edge), irn_walk(cams, edge, radius=5, beta=10, logt=8))


@pytest.mark.parametrize("radius", [2, 5])
def test_nothing_crosses_a_wall_however_thin_or_slanted(radius: int) -> None:
    for wall in ([(y, 4) for y in range(8)], [(y, y + 1) for y in range(8)]):
        edge = np.zeros((8, 10))
        for y, x in wall:
            edge[y, x] = 1
        cams = np.zeros((1, 8, 10))
        cams[0, 7, 0] = 1
        walked = irn_walk(cams, edge, radius=radius)
        behind = np.array([[any(wy == y and x >= wx for wy, wx in wall) for x in range(10)] for y in range(8)])
        assert walked[0][behind].max() == 0 and walked[0][~behind].min() > 0


@settings(max_examples=20)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(2, 5), st.integers(0, 99))
def test_walk_stays_within_the_scores_and_turns_with_the_map(height: int, width: int, radius: int, seed: int) -> None:
    edge = random_edge(height, width, seed)
    cams = np.random.default_rng(seed).uniform(0, 1, (2, height, width))
    walked = irn_walk(cams, edge, radius, 3, 2)
    inside = cams * (1 - edge)
    assert walked.min() >= inside.min() - 1e-12 and walked.max() <= inside.max() + 1e-12
    mirrored = irn_walk(cams[..., ::-1], edge[:, ::-1], radius, 3, 2)[..., ::-1]
    np.testing.assert_allclose(mirrored, walked, rtol=1e-9)
    upside_down = irn_walk(cams[:, ::-1], edge[::-1], radius, 3, 2)[:, ::-1]
    np.testing.assert_allclose(upside_down, walked, rtol=1e-9)


def test_arguments_stay_and_other_sizes_are_refused() -> None:
    edge, cams = random_edge(4, 5), np.ones((1, 4, 5))
    before = edge.copy()
    irn_walk(cams, edge)
    assert np.array_equal(edge, before) and (cams == 1).all()
    for wrong in (np.ones((1, 5, 4)), np.ones((4, 5))):
        with pytest.raises(ValueError, match=r"do not lie on the cells of an edge map \(4, 5\)"):
            irn_walk(wrong, edge)


def test_strided_maps_by_hand() -> None:
    # Cells of 4 pixels; bilinear without antialiasing is the mean of the middle two in each direction.
    maps = np.zeros((2, 8, 6), np.float32)
    maps[0, 1:3, 1:3] = 0.8
    maps[1, 5, :] = 0.5
    assert strided_maps(maps).shape == (2, 2, 2)
    np.testing.assert_allclose(strided_maps(maps[:, :, :4])[0], [[0.8 / 0.80001], [0]], rtol=1e-6)
    np.testing.assert_allclose(strided_maps(maps[:, :, :4])[1], [[0], [0.25 / 0.25001]], rtol=1e-6)
    assert not strided_maps(np.zeros((1, 5, 5), np.float32)).any()


def object_scene() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """30 x 42 pixels with an object of 16 x 24; the map knows its left end; edges ring it, of 8 x 11 cells."""
    truth = np.zeros((30, 42), bool)
    truth[8:24, 8:32] = True
    maps = np.zeros((1, 30, 42), np.float32)
    maps[0, 8:24, 8:16] = 1
    edge = np.zeros((8, 11), np.float32)
    edge[1, 1:9] = edge[6, 1:9] = edge[1:7, 1] = edge[1:7, 8] = 1
    return maps, edge, truth


def test_pseudo_label_fills_up_to_the_edges() -> None:
    maps, edge, truth = object_scene()
    label = irn_pseudo_label(maps, np.array([7]), edge, radius=3)
    assert label.shape == (30, 42) and label.dtype == np.uint8 and set(np.unique(label)) == {0, 7}
    # Bilinear upsampling blurs by a cell, so the object's rim may differ.
    assert (label[10:22, 10:30] == 7).all() and (label[~truth] == 7).mean() < 0.15
    assert (maps[0] > 0.25).sum() == truth.sum() / 3


def test_the_threshold_is_a_share_of_the_images_largest_score() -> None:
    maps, edge, _ = object_scene()
    sizes = [(irn_pseudo_label(maps, np.array([1]), edge, threshold=t) == 1).sum() for t in (0.0, 0.25, 0.99, 1.0)]
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] == 0, "a tie with the background is background"
    weak = irn_pseudo_label(maps * 0.5, np.array([1]), edge)
    assert np.array_equal(weak, irn_pseudo_label(maps, np.array([1]), edge))


def test_the_best_class_wins() -> None:
    maps, edge, _ = object_scene()
    other = np.zeros_like(maps)
    other[0, 8:24, 24:32] = 1
    label = irn_pseudo_label(np.concatenate([maps, other]), np.array([3, 20]), edge, logt=2)
    assert label[16, 10] == 3 and label[16, 28] == 20 and set(np.unique(label)) == {0, 3, 20}


def test_nothing_to_spread_is_background() -> None:
    maps, edge, _ = object_scene()
    assert not irn_pseudo_label(maps[:0], np.zeros(0, int), edge).any()
    assert not irn_pseudo_label(maps, np.array([1]), np.ones_like(edge)).any()
    assert not irn_pseudo_label(np.zeros_like(maps), np.array([1]), edge).any()
