"""Patches and the complementary pair: labels, both draws, lam, the guard, and the partition of the image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cpn.config.patches import PatchesConfig
from cpn.core.errors import InputError
from cpn.data.patches import complementary_pair, draw_hidden, draw_S_N, grid_labels, hidden_mask, superpixel_labels


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Smooth colours with one sharp red square, 40 x 56."""
    rows, columns = np.mgrid[0:40, 0:56]
    picture = np.stack([rows * 3, columns * 4, rows + columns], axis=2).astype(np.uint8)
    picture[8:20, 10:30] = (255, 0, 0)
    return picture


def test_grid_labels_by_hand_with_cut_cells():
    expected = [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    labels = grid_labels(3, 5, 2)
    assert labels.tolist() == expected
    assert labels.dtype == np.int32


def test_a_cell_larger_than_the_image_is_one_patch():
    assert not grid_labels(4, 6, 448).any()


def test_superpixels_have_no_gaps_and_follow_colour(image):
    labels = superpixel_labels(image, 60)
    assert labels.dtype == np.int32 and labels.shape == (40, 56)
    assert sorted(np.unique(labels)) == list(range(labels.max() + 1))
    assert 30 <= labels.max() + 1 <= 90
    red = np.zeros((40, 56), dtype=bool)
    red[8:20, 10:30] = True
    assert not set(labels[red]) & set(labels[~red]), "no superpixel crosses the border of the red square"


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_superpixels_see_every_colour_channel(channel):
    picture = np.full((32, 32, 3), 120, np.uint8)
    picture[:, 19:, channel] = 250
    labels = superpixel_labels(picture, 16)
    assert not set(labels[:, :19].ravel()) & set(labels[:, 19:].ravel())


def test_superpixels_repeat_and_more_come_when_asked(image):
    assert np.array_equal(superpixel_labels(image, 60), superpixel_labels(image, 60))
    assert superpixel_labels(image, 200).max() > superpixel_labels(image, 20).max()


@pytest.mark.parametrize("colour", [0, 100, 255])
def test_superpixels_of_a_flat_image_cover_it(colour):
    labels = superpixel_labels(np.full((32, 32, 3), colour, np.uint8), 16)
    assert labels.max() + 1 == 16
    assert np.bincount(labels.ravel()).min() > 0


@pytest.mark.parametrize("seed", range(8))
def test_the_official_draw_takes_floor_n_plus_1_times_p(seed):
    n, p_h = 9, 0.5
    numbers = np.random.default_rng(seed).integers(0, n + 1, size=5)
    hidden = draw_hidden(n, p_h, "with_replacement", np.random.default_rng(seed))
    assert set(np.flatnonzero(hidden) + 1) == set(numbers.tolist()) - {0}


def test_the_official_draw_hides_one_patch_half_the_time():
    # One number from {0, 1}: 0 names no patch.
    rng = np.random.default_rng(0)
    assert np.mean([draw_hidden(1, 0.5, "with_replacement", rng)[0] for _ in range(1000)]) == pytest.approx(
        0.5, abs=0.06
    )


def test_the_official_draw_hides_39_percent_and_bernoulli_p_h():
    rng = np.random.default_rng(0)
    shares = {
        draw: float(np.mean([draw_hidden(200, 0.5, draw, rng).mean() for _ in range(2000)]))
        for draw in ("with_replacement", "bernoulli")
    }
    # 1 - (1 - 1/201)^100 = 0.393; the standard error of both means is below 0.001.
    assert shares["with_replacement"] == pytest.approx(1 - (1 - 1 / 201) ** 100, abs=0.004)
    assert shares["bernoulli"] == pytest.approx(0.5, abs=0.004)


@given(n=st.integers(1, 60), p_h=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_the_official_draw_never_hides_more_than_it_draws(n, p_h, seed):
    hidden = draw_hidden(n, p_h, "with_replacement", np.random.default_rng(seed))
    assert hidden.shape == (n,) and hidden.dtype == bool
    assert hidden.sum() <= math.floor((n + 1) * p_h)


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    sizes=st.lists(st.integers(1, 24), min_size=1, max_size=3),
    seed=st.integers(0, 999),
)
def test_the_pair_partitions_the_image_by_lam(height, width, sizes, seed):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    hidden, lam = hidden_mask(picture, PatchesConfig(kind="grid", K=tuple(sizes)), rng)
    assert lam == pytest.approx((height * width - hidden.sum()) / (height * width))
    images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) + 0.1
    first, second = complementary_pair(images, torch.from_numpy(hidden)[None])
    assert torch.equal(first + second, images)
    assert torch.equal((first != 0).all(dim=1)[0], torch.from_numpy(~hidden))
    assert torch.equal((second != 0).all(dim=1)[0], torch.from_numpy(hidden))


def test_the_pair_by_hand():
    images = torch.arange(1.0, 13.0).reshape(1, 3, 2, 2)
    hidden = torch.tensor([[[True, False], [False, False]]])
    first, second = complementary_pair(images, hidden)
    assert first[0, :, 0, 0].tolist() == [0, 0, 0]
    assert first[0, 0].tolist() == [[0, 2], [3, 4]]
    assert second[0, 0].tolist() == [[1, 0], [0, 0]]
    assert images[0, 0, 0, 0] == 1, "the argument is not written into"


@pytest.mark.parametrize("draw", ["with_replacement", "bernoulli"])
def test_superpixels_are_hidden_whole(image, draw):
    config = PatchesConfig(S_N=40, draw=draw)
    hidden, lam = hidden_mask(image, config, np.random.default_rng(1))
    labels = superpixel_labels(image, 40)
    for label in range(labels.max() + 1):
        assert len(set(hidden[labels == label].tolist())) == 1
    assert 0 < lam < 1


def test_the_same_generator_state_draws_the_same_mask(image):
    config = PatchesConfig(kind="grid", K=(4, 8))
    first, second, other = (hidden_mask(image, config, np.random.default_rng(seed))[0] for seed in (5, 5, 6))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_cell_sizes_are_drawn_uniformly_for_each_image():
    picture = np.zeros((8, 8, 3), np.uint8)
    rng = np.random.default_rng(0)
    # With one cell the mask is constant, with 64 cells almost never.
    constant = []
    for _ in range(400):
        hidden, _ = hidden_mask(picture, PatchesConfig(kind="grid", K=(1, 8)), rng)
        constant.append(hidden.all() or not hidden.any())
    assert np.mean(constant) == pytest.approx(0.5, abs=0.1)


def test_grid_cells_are_hidden_with_probability_p_h():
    picture = np.zeros((40, 40, 3), np.uint8)
    rng = np.random.default_rng(0)
    for draw in ("with_replacement", "bernoulli"):
        config = PatchesConfig(kind="grid", K=(2,), p_h=0.2, draw=draw)
        lams = [hidden_mask(picture, config, rng)[1] for _ in range(100)]
        assert np.mean(lams) == pytest.approx(0.8, abs=0.01)


def test_only_a_guard_keeps_from_hiding_all_or_nothing():
    picture = np.zeros((4, 4, 3), np.uint8)
    rng = np.random.default_rng(0)
    free, guarded = (
        {hidden_mask(picture, PatchesConfig(kind="grid", K=(2, 4), guard=guard), rng)[1] for _ in range(200)}
        for guard in (False, True)
    )
    assert free == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert guarded == {0.25, 0.5, 0.75}


def test_an_impossible_guard_is_refused_in_one_line():
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match="patches.guard: .*patches.K down") as caught:
        hidden_mask(picture, PatchesConfig(kind="grid", K=(4,), guard=True), np.random.default_rng(0))
    assert "\n" not in str(caught.value)


@settings(max_examples=10)
@given(seed=st.integers(0, 999))
def test_the_guard_holds_for_superpixels(seed):
    rng = np.random.default_rng(seed)
    picture = np.zeros((8, 8, 3), np.uint8)
    _, lam = hidden_mask(picture, PatchesConfig(S_N=4, guard=True), rng)
    assert 0 < lam < 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"K": ()},
        {"K": (0,)},
        {"p_h": 0},
        {"p_h": 1},
        {"S_N": 0},
        {"kind": "slic"},
        {"S_N_range": (0, 5)},
        {"S_N_range": (5, 8001)},
        {"S_N_range": (5,)},
        {"S_N_range": (6, 5)},
        {"hidden_value": "black"},
        {"lambda_by": "area"},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        PatchesConfig(**wrong)


def test_without_a_range_no_S_N_is_drawn():
    rng = np.random.default_rng(3)
    assert draw_S_N(PatchesConfig(S_N=77), rng) == 77
    assert rng.random() == np.random.default_rng(3).random()


def test_S_N_is_uniform_in_the_logarithm():
    """Of 1 to 3: P(1) = ln 2 / ln 4, P(2) = ln 1.5 / ln 4, P(3) = ln (4/3) / ln 4."""
    rng = np.random.default_rng(0)
    drawn = np.bincount([draw_S_N(PatchesConfig(S_N_range=(1, 3)), rng) for _ in range(4000)], minlength=5) / 4000
    assert drawn == pytest.approx([0, 0.5, 0.2925, 0.2075, 0], abs=0.025)


@given(ends=st.lists(st.integers(1, 8000), min_size=2, max_size=2).map(sorted), seed=st.integers(0, 999))
def test_S_N_lies_in_its_range_ends_included(ends, seed):
    rng = np.random.default_rng(seed)
    low, high = ends
    assert low <= draw_S_N(PatchesConfig(S_N_range=(low, high)), rng) <= high
    assert draw_S_N(PatchesConfig(S_N_range=(high, high)), rng) == high


def test_each_crop_gets_a_number_of_superpixels_of_its_own(image, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "cpn.data.patches.superpixel_labels", lambda _, n: asked.append(n) or superpixel_labels(image, n)
    )
    for config in (PatchesConfig(S_N_range=(10, 90)), PatchesConfig(S_N=40)):
        for seed in range(6):
            hidden_mask(image, config, np.random.default_rng(seed))
    assert len(set(asked[:6])) > 3 and all(10 <= n <= 90 for n in asked[:6]) and asked[6:] == [40] * 6


def test_lambda_by_patches_counts_cut_cells_whole():
    """Cells 0 0 1 1 2 in two rows, 3 3 4 4 5 in one: lambda is a number of sixths, the pixels are fifteenths."""
    picture, labels = np.zeros((3, 5, 3), np.uint8), grid_labels(3, 5, 2)
    for seed in range(20):
        hidden, lam = hidden_mask(
            picture, PatchesConfig(kind="grid", K=(2,), lambda_by="patches"), np.random.default_rng(seed)
        )
        same, by_pixels = hidden_mask(picture, PatchesConfig(kind="grid", K=(2,)), np.random.default_rng(seed))
        assert np.array_equal(hidden, same), "lambda draws nothing"
        assert lam == pytest.approx(len(np.unique(labels[~hidden])) / 6)
        assert by_pixels == pytest.approx((15 - hidden.sum()) / 15)


def test_lambda_by_patches_counts_the_superpixels_that_are_seen():
    """Patches 0 and 2 have 3 pixels and 1, number 1 none: lambda is 0, 1/2 or 1, never a third or a quarter."""
    labels, config = np.array([[0, 0, 0, 2]]), PatchesConfig(draw="bernoulli", lambda_by="patches")
    for seed in range(20):
        hidden, lam = hidden_mask(np.zeros((1, 4, 3), np.uint8), config, np.random.default_rng(seed), labels)
        assert lam == 1 - int(hidden[0, 0]) / 2 - int(hidden[0, 3]) / 2


@given(cell=st.integers(1, 6), rows=st.integers(1, 5), columns=st.integers(1, 5), seed=st.integers(0, 999))
def test_both_lambdas_are_one_where_a_cell_divides_the_image(cell, rows, columns, seed):
    picture = np.zeros((cell * rows, cell * columns, 3), np.uint8)
    by_patches, by_pixels = (
        hidden_mask(picture, PatchesConfig(kind="grid", K=(cell,), lambda_by=by), np.random.default_rng(seed))[1]
        for by in ("patches", "pixels")
    )
    assert by_patches == pytest.approx(by_pixels)


def test_a_lost_pixel_shows_the_filling():
    images = torch.arange(1.0, 13.0).reshape(1, 3, 2, 2)
    filling, hidden = -images, torch.tensor([[[True, False], [False, False]]])
    first, second = complementary_pair(images, hidden, filling)
    assert first[0, 0].tolist() == [[-1, 2], [3, 4]]
    assert second[0, 0].tolist() == [[1, -2], [-3, -4]]
    assert torch.equal(images, -filling), "the arguments are not written into"


@given(seed=st.integers(0, 999), height=st.integers(1, 9), width=st.integers(1, 9))
def test_the_pair_adds_up_to_image_and_filling(seed, height, width):
    generator = torch.Generator().manual_seed(seed)
    images, filling = torch.randn(2, 2, 3, height, width, generator=generator)
    hidden = torch.rand(2, height, width, generator=generator) < 0.5
    first, second = complementary_pair(images, hidden, filling)
    assert torch.equal(first + second, images + filling)
    nothing = complementary_pair(images, hidden, torch.zeros_like(images))
    assert all(torch.equal(a, b) for a, b in zip(nothing, complementary_pair(images, hidden), strict=True))


def test_a_list_from_yaml_is_a_tuple():
    assert PatchesConfig(K=[4, 7]).K == (4, 7)
