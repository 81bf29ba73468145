import numpy as np
import pytest
from numpy.typing import NDArray

from cpn.config.crf import CrfConfig
from cpn.config.deeplab import DeepLabConfig
from cpn.propagation.crf import crf_scores, dense_crf, refine_label, with_background

CONFIG = CrfConfig(sxy_bilateral=4, srgb_bilateral=40)


def scene(height: int = 14, width: int = 17) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A bright box on dark ground with noise, and blurred, noisy scores of three labels."""
    rng = np.random.default_rng(3)
    image = rng.normal(60, 12, (height, width, 3))
    image[3:10, 4:9] += 90
    image[5:12, 11:15, 0] += 120
    truth = np.zeros((height, width), int)
    truth[3:10, 4:9], truth[5:12, 11:15] = 1, 2
    scores = 0.35 * np.eye(3)[truth].transpose(2, 0, 1) + rng.uniform(0.05, 0.6, (3, height, width))
    return image.clip(0, 255).astype(np.uint8), (scores / scores.sum(0)).astype(np.float32)


def exact_mean_field(
    image: NDArray[np.uint8], probabilities: NDArray[np.float32], config: CrfConfig
) -> NDArray[np.float64]:
    """softmax(-U + sum_k w_k Kbar_k Q) with the full kernels, Kbar = D^-1/2 K D^-1/2, self included (method.md (g))."""
    labels, height, width = probabilities.shape
    rows, columns = np.mgrid[:height, :width]
    place = np.stack([rows.ravel(), columns.ravel()], 1).astype(float)
    colour = image.reshape(-1, 3).astype(float)

    def kernel(features: NDArray[np.float64]) -> NDArray[np.float64]:
        distance = ((features[:, None] - features[None]) ** 2).sum(-1)
        values = np.exp(-distance / 2)
        degree = values.sum(1) ** -0.5
        return degree[:, None] * values * degree[None]

    smooth = kernel(place / config.sxy_gaussian)
    appearance = kernel(np.hstack([place / config.sxy_bilateral, colour / config.srgb_bilateral]))
    unary = -np.log(np.clip(probabilities.reshape(labels, -1).astype(float), 1e-5, 1))
    q = np.exp(-unary) / np.exp(-unary).sum(0)
    for _ in range(config.iterations):
        score = -unary + config.w_gaussian * q @ smooth + config.w_bilateral * q @ appearance
        q = np.exp(score - score.max(0))
        q /= q.sum(0)
    return q.reshape(labels, height, width)


@pytest.mark.parametrize("iterations", [1, 10])
def test_agrees_with_the_exact_mean_field(iterations: int) -> None:
    image, scores = scene()
    config = CONFIG.model_copy(update={"iterations": iterations})
    refined, exact = dense_crf(image, scores, config), exact_mean_field(image, scores, config)
    assert (refined.argmax(0) == exact.argmax(0)).mean() >= 0.975
    # The permutohedral lattice approximates the kernels, yet a wrong width or weight shows after one iteration.
    assert np.abs(refined - exact).mean() < 0.004
    assert (refined.argmax(0) != scores.argmax(0)).mean() > 0.05


SETS = {
    "SEAM and AffinityNet's labels": CrfConfig(),
    "CPN's helper": CrfConfig(iterations=5, sxy_bilateral=50),
    "DeepLab's test": DeepLabConfig().crf,
    "the walk": CrfConfig(iterations=1),
    "IRN's labels": CrfConfig(sxy_bilateral=50, srgb_bilateral=5),
}
"""Every set of method.md (g): iterations, widths and weights of both kernels."""


def test_the_sets_of_the_method() -> None:
    assert all((c.sxy_gaussian, c.w_gaussian, c.w_bilateral) == (3, 3, 10) for c in SETS.values())
    told = [(c.iterations, c.sxy_bilateral, c.srgb_bilateral) for c in SETS.values()]
    assert told == [(10, 80, 13), (5, 50, 13), (1, 32, 13), (1, 80, 13), (10, 50, 5)]


@pytest.mark.parametrize("name", SETS)
def test_every_set_agrees_with_the_exact_mean_field(name: str) -> None:
    image, scores = scene(20, 26)
    refined, exact = dense_crf(image, scores, SETS[name]), exact_mean_field(image, scores, SETS[name])
    assert (refined.argmax(0) == exact.argmax(0)).mean() >= 0.975


def test_scores_are_neither_normalised_nor_taken_below_1e_5() -> None:
    """U = -log(clip(p, 1e-5, 1)): scores that sum to anything are energies as they stand (method.md (g))."""
    image, scores = scene()
    scores[1, :5] = 0
    config = CONFIG.model_copy(update={"w_gaussian": 0.0, "w_bilateral": 0.0})
    clipped = scores.clip(1e-5, 1)
    np.testing.assert_allclose(dense_crf(image, scores, config), clipped / clipped.sum(0), atol=1e-6)
    # Where no clipping interferes a common factor of all labels changes nothing.
    lower = (0.5 * scores.clip(0.01, 1)).astype(np.float32)
    np.testing.assert_allclose(dense_crf(image, lower, CONFIG), dense_crf(image, 2 * lower, CONFIG), atol=1e-5)


def test_one_iteration_by_hand() -> None:
    """Two pixels of one colour, far apart for the narrow kernel: Kbar = 1/2 everywhere in the wide one."""
    image = np.full((1, 2, 3), 90, np.uint8)
    scores = np.array([[[0.9, 0.4]], [[0.1, 0.6]]], np.float32)
    config = CrfConfig(iterations=1, w_gaussian=0, sxy_bilateral=1000, w_bilateral=2)
    energy = np.log(scores[:, 0]) + 2 * scores[:, 0].mean(axis=1, keepdims=True)
    expected = np.exp(energy) / np.exp(energy).sum(0)
    np.testing.assert_allclose(dense_crf(image, scores, config)[:, 0], expected, atol=2e-3)


def test_each_kernel_has_its_own_weight() -> None:
    image, scores = scene()
    nothing = dense_crf(image, scores, CONFIG.model_copy(update={"w_gaussian": 0.0, "w_bilateral": 0.0}))
    np.testing.assert_allclose(nothing, scores, atol=1e-5)
    for key in ("w_gaussian", "w_bilateral"):
        config = CONFIG.model_copy(update={"w_gaussian": 0.0, "w_bilateral": 0.0, key: 5.0})
        exact = exact_mean_field(image, scores, config)
        assert (dense_crf(image, scores, config).argmax(0) == exact.argmax(0)).mean() >= 0.975


def test_result_is_a_distribution_and_the_arguments_stay() -> None:
    image, scores = scene()
    image_before, scores_before = image.copy(), scores.copy()
    refined = dense_crf(image, scores, CONFIG)
    assert refined.dtype == np.float32 and refined.shape == scores.shape
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)
    assert np.array_equal(image, image_before) and np.array_equal(scores, scores_before)


def test_memory_order_does_not_matter() -> None:
    image, scores = scene()
    mirrored = dense_crf(image[:, ::-1], scores[:, :, ::-1], CONFIG)
    same = dense_crf(np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(scores[:, :, ::-1]), CONFIG)
    assert np.array_equal(mirrored, same)


def test_a_label_absent_everywhere_can_be_left_out() -> None:
    image, scores = scene()
    with_absent = np.concatenate([scores, np.zeros_like(scores[:1])])
    assert np.array_equal(dense_crf(image, scores, CONFIG).argmax(0), dense_crf(image, with_absent, CONFIG).argmax(0))


def test_a_single_label_comes_back_unchanged() -> None:
    image, scores = scene()
    assert np.array_equal(dense_crf(image, scores[:1], CONFIG), scores[:1])


def test_unfit_shapes_are_refused() -> None:
    image, scores = scene()
    with pytest.raises(ValueError, match="does not fit"):
        dense_crf(image[:-1], scores, CONFIG)
    with pytest.raises(ValueError, match="does not fit"):
        dense_crf(image.astype(np.float32), scores, CONFIG)


def test_background_by_hand() -> None:
    maps = np.array([[[0.5, 0.0]], [[0.25, 1.0]]], np.float32)
    np.testing.assert_allclose(with_background(maps, 2), [[[0.25, 0]], [[0.5, 0]], [[0.25, 1]]])
    assert np.array_equal(with_background(np.zeros((0, 1, 2), np.float32), 4), np.ones((1, 1, 2), np.float32))


def test_a_lower_alpha_gives_more_background() -> None:
    image, scores = scene()
    low, high = (crf_scores(image, 0.4 * scores[1:], alpha, CONFIG) for alpha in (CONFIG.alpha_low, CONFIG.alpha_high))
    assert low.shape == (3, *image.shape[:2])
    assert (low.argmax(0) == 0).sum() > (high.argmax(0) == 0).sum()


def test_an_image_without_classes_is_background() -> None:
    image, _ = scene()
    assert np.array_equal(
        crf_scores(image, np.zeros((0, *image.shape[:2]), np.float32), 4, CONFIG), np.ones((1, *image.shape[:2]))
    )


def test_refined_label_equals_the_crf_on_all_classes() -> None:
    rng = np.random.default_rng(0)
    image, scores = scene()
    truth, config = scores.argmax(0), CrfConfig(iterations=1, sxy_bilateral=8)
    logits = 1.5 * np.eye(8)[truth].transpose(2, 0, 1) + rng.normal(0, 1, (8, *truth.shape))
    logits[5:] -= 8
    probabilities = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
    refined = refine_label(image, probabilities, config)
    assert np.array_equal(refined, dense_crf(image, probabilities, config).argmax(0))
    uniform = np.full((7, *truth.shape), np.float32(1 / 7))
    assert refine_label(image, uniform, config).shape == truth.shape
