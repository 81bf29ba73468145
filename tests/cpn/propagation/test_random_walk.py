import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cpn.config.random_walk import RandomWalkConfig
from cpn.propagation.random_walk import (
    block_mean,
    labels_by_setting,
    pair_indices,
    pair_offsets,
    pseudo_label,
    transition,
    upsample,
    walk,
)
from cpn.propagation.walk_rule import source_shape


def slow_dense(affinities: NDArray[np.floating], height: int, width: int, radius: int, beta: float) -> np.ndarray:
    """The transition matrix from its definition, one pair at a time."""
    matrix = np.eye(height * width)
    n = 0
    for y in range(height - radius + 1):
        for x in range(radius - 1, width - radius + 1):
            for p, (dy, dx) in enumerate(pair_offsets(radius)):
                i, j = y * width + x, (y + dy) * width + x + dx
                matrix[i, j] = matrix[j, i] = affinities[p, n] ** beta
            n += 1
    return matrix / matrix.sum(0, keepdims=True)


def random_affinities(height: int, width: int, radius: int, seed: int = 0) -> NDArray[np.float64]:
    rows, columns = source_shape(height, width, radius)
    return np.random.default_rng(seed).uniform(0.2, 1, (len(pair_offsets(radius)), rows * columns))


def test_offsets_by_hand() -> None:
    assert pair_offsets(2).tolist() == [[0, 1], [1, -1], [1, 0], [1, 1]]
    assert len(pair_offsets(5)) == 34


@given(st.integers(2, 8))
def test_offsets_are_half_of_the_disc(radius: int) -> None:
    offsets = {tuple(o) for o in pair_offsets(radius).tolist()}
    both = offsets | {(-dy, -dx) for dy, dx in offsets} | {(0, 0)}
    reach = range(-radius, radius + 1)
    assert both == {(dy, dx) for dy in reach for dx in reach if (dy**2 + dx**2) ** 0.5 < radius}
    assert len(both) == 2 * len(offsets) + 1


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 4))
def test_pairs_stay_inside_and_keep_their_offset(height: int, width: int, radius: int) -> None:
    sources, targets = pair_indices(height, width, radius)
    sy, sx = np.divmod(sources, width)
    ty, tx = np.divmod(targets, width)
    for (dy, dx), y, x in zip(pair_offsets(radius), ty, tx, strict=True):
        assert np.array_equal(y - sy, np.full(len(sources), dy)) and np.array_equal(x - sx, np.full(len(sources), dx))
    assert targets.size == 0 or (targets.min() >= 0 and targets.max() < height * width)


def test_transition_by_hand() -> None:
    # Two rows of three cells at radius 2: one source, cell 1, paired with cells 2, 3, 4 and 5.
    matrix = transition(np.array([[0.5], [1.0], [0.5], [0.0]]), 2, 3, 2, beta=1).toarray()
    np.testing.assert_allclose(matrix[:, 1], [0, 1 / 3, 0.5 / 3, 1 / 3, 0.5 / 3, 0])
    np.testing.assert_allclose(matrix[:, 2], [0, 0.5 / 1.5, 1 / 1.5, 0, 0, 0])
    assert matrix[0, 0] == 1 and matrix[5, 5] == 1


@pytest.mark.parametrize(("height", "width", "radius", "beta"), [(6, 7, 3, 8.0), (9, 12, 5, 2.5), (4, 3, 2, 1.0)])
def test_transition_equals_the_slow_one_and_columns_sum_to_one(
    height: int, width: int, radius: int, beta: float
) -> None:
    affinities = random_affinities(height, width, radius)
    matrix = transition(affinities, height, width, radius, beta)
    np.testing.assert_allclose(matrix.toarray(), slow_dense(affinities, height, width, radius, beta), atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=0), 1, atol=1e-12)


def test_walk_equals_dense_squaring() -> None:
    height, width, radius, logt = 9, 11, 4, 6
    affinities = random_affinities(height, width, radius).astype(np.float32)
    dense = slow_dense(affinities.astype(np.float64), height, width, radius, 8)
    for _ in range(logt):
        dense = dense @ dense
    scores = np.random.default_rng(1).uniform(0, 1, (3, height, width))
    walked = walk(scores, transition(affinities, height, width, radius, 8), 2**logt)
    np.testing.assert_allclose(walked.reshape(3, -1), scores.reshape(3, -1) @ dense, rtol=1e-5)
    assert np.abs(walked - scores).max() > 0.1


def test_walk_keeps_constants_and_the_mass_weighted_by_degree() -> None:
    height, width, radius = 8, 9, 3
    matrix = transition(random_affinities(height, width, radius), height, width, radius, 4)
    constant = walk(np.full((2, height, width), 0.7), matrix, 64)
    np.testing.assert_allclose(constant, 0.7, rtol=1e-12)
    # Affinities are symmetric, so that degree_j = 1 / T_jj and sum_j degree_j score_j is what no step changes.
    degree = 1 / matrix.diagonal()
    scores = np.random.default_rng(2).uniform(0, 1, (2, height, width))
    mass, after = ((s.reshape(2, -1) * degree).sum(1) for s in (scores, walk(scores, matrix, 64)))
    np.testing.assert_allclose(after, mass, rtol=1e-10)
    assert walk(scores, matrix, 5).min() >= scores.min() and walk(scores, matrix, 5).max() <= scores.max()


def test_walk_does_not_cross_a_zero_edge() -> None:
    height, width, radius = 6, 8, 2
    sources, targets = pair_indices(height, width, radius)
    left = np.arange(height * width) % width < 4
    affinities = (left[sources][None] == left[targets]).astype(float)
    scores = np.zeros((1, height, width))
    scores[0, 2, 2] = 1
    walked = walk(scores, transition(affinities, height, width, radius, 8), 64)
    assert walked[0, :, :4].sum() > 0.5 and walked[0, :, 4:].max() == 0


def test_a_map_too_small_for_pairs_stays() -> None:
    scores = np.random.default_rng(0).uniform(0, 1, (2, 4, 20))
    matrix = transition(np.zeros((34, 0)), 4, 20, 5, 8)
    assert np.array_equal(walk(scores, matrix, 64), scores)


def test_affinities_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="6 x 7 cells"):
        transition(random_affinities(7, 7, 3), 6, 7, 3, 8)


def test_block_mean_pads_with_zero() -> None:
    scores = np.array([[[1.0, 3.0, 5.0], [1.0, 3.0, 7.0], [8.0, 0.0, 4.0]]])
    np.testing.assert_allclose(block_mean(scores, 2), [[[2, 3], [2, 1]]])


def test_upsample_by_hand() -> None:
    np.testing.assert_allclose(upsample(np.array([[[0.0, 1.0]]]), 2, 1, 3), [[[0, 0.25, 0.75]]])


class Edges:
    """Affinity 1 within equal colours, 0 across: a perfect affinity network of stride 2."""

    stride = 2

    def image_affinities(self, image: NDArray[np.uint8], radius: int) -> NDArray[np.float32]:
        height, width = -(-image.shape[0] // 2), -(-image.shape[1] // 2)
        cells = image[::2, ::2, 0].reshape(-1)
        sources, targets = pair_indices(height, width, radius)
        return (cells[sources][None] == cells[targets]).astype(np.float32)


def object_scene() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """19 x 23 pixels, an object of 8 x 10 of which the map knows the left part well."""
    image = np.full((19, 23, 3), 30, np.uint8)
    image[4:12, 6:16] = 200
    maps = np.zeros((1, 19, 23), np.float32)
    maps[0, 4:12, 6:16] = 0.2
    maps[0, 4:12, 6:10] = 0.9
    return image, maps


def test_pseudo_label_fills_the_object() -> None:
    image, maps = object_scene()
    label = pseudo_label(image, maps, np.array([7]), Edges(), RandomWalkConfig(radius=2, logt=6))
    assert label.shape == (19, 23) and label.dtype == np.uint8
    assert set(np.unique(label)) == {0, 7}
    truth = image[..., 0] == 200
    # Bilinear upsampling blurs by half a cell, so the object's rim may differ.
    assert (label[5:11, 7:15] == 7).all() and (label[~truth] == 7).mean() < 0.1
    assert (maps[0] > (1 - maps[0]) ** 6).sum() == 32, "before the walk only the left part wins"


def test_alpha_moves_the_background() -> None:
    image, maps = object_scene()
    sizes = [
        (pseudo_label(image, maps, np.array([1]), Edges(), RandomWalkConfig(radius=2, alpha=a)) == 1).sum()
        for a in (0.5, 6.0)
    ]
    assert sizes[0] < sizes[1]


def test_no_class_present_is_background() -> None:
    image, _ = object_scene()
    label = pseudo_label(image, np.zeros((0, 19, 23), np.float32), np.zeros(0, int), Edges(), RandomWalkConfig())
    assert not label.any() and label.shape == (19, 23)


def test_crf_has_the_last_word_only_when_it_is_on() -> None:
    image, maps = object_scene()
    seen = []

    def refine(picture: NDArray[np.uint8], scores: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append((picture.shape, scores.shape))
        return scores[::-1]

    off = pseudo_label(image, maps, np.array([3]), Edges(), RandomWalkConfig(radius=2), refine)
    assert not seen
    on = pseudo_label(image, maps, np.array([3]), Edges(), RandomWalkConfig(radius=2, crf=True), refine)
    assert seen == [((19, 23, 3), (2, 19, 23))]
    assert (on != off).mean() > 0.9
    with pytest.raises(ValueError, match=r"random_walk\.crf"):
        pseudo_label(image, maps, np.array([3]), Edges(), RandomWalkConfig(crf=True))


def test_logt_counts_doublings() -> None:
    image = np.full((12, 40, 3), 30, np.uint8)
    image[2:8, 4:36] = 200
    maps = np.where(image[None, ..., 0] == 200, 0.2, 0).astype(np.float32)
    maps[0, 2:8, 4:12] = 0.9
    far = [
        pseudo_label(image, maps, np.array([1]), Edges(), RandomWalkConfig(radius=2, logt=logt))[4, 32]
        for logt in (2, 8)
    ]
    assert far == [0, 1], "14 cells away: out of reach of 4 steps, not of 256"


def test_every_setting_in_one_pass_is_each_by_itself() -> None:
    image, maps = object_scene()
    rng = np.random.default_rng(0)
    maps = np.concatenate([maps, rng.uniform(0, 0.6, maps.shape).astype(np.float32)])
    present = np.array([7, 3])
    alphas, logts = (0.5, 1.0, 6.0), (0, 1, 3)
    labels = list(labels_by_setting(image, maps, present, Edges(), 8.0, 2, alphas, logts))
    pairs = [(alpha, logt) for logt in logts for alpha in alphas]
    for label, (alpha, logt) in zip(labels, pairs, strict=True):
        config = RandomWalkConfig(radius=2, alpha=alpha, logt=logt)
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(label, pseudo_label(image, maps, present, Edges(), config))
    assert len({label.tobytes() for label in labels}) > 4
    empty = labels_by_setting(image, maps[:0], present[:0], Edges(), 8.0, 2, alphas, logts)
    assert [label.any() for label in empty] == [False] * 9


def test_auto_is_no_number_to_walk_with() -> None:
    image, maps = object_scene()
    for name in ("alpha", "logt", "radius"):
        with pytest.raises(ValueError, match="auto is no number"):
            pseudo_label(image, maps, np.array([1]), Edges(), RandomWalkConfig.model_validate({name: "auto"}))
