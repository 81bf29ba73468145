"""Patches and the complementary pair: labels, both draws, lam, the guard, and the partition of the image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cpn.errors import InputError
from cpn.patches import (
    PatchesConfig,
    complementary_pair,
    draw_hidden,
    grid_labels,
    hidden_mask,
    superpixel_labels,
)


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


def test_superpixels_are_numbered_without_gaps_and_follow_colour(image):
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


def test_superpixels_are_the_same_each_time_and_more_of_them_when_asked(image):
    assert np.array_equal(superpixel_labels(image, 60), superpixel_labels(image, 60))
    assert superpixel_labels(image, 200).max() > superpixel_labels(image, 20).max()


@pytest.mark.parametrize("colour", [0, 100, 255])
def test_superpixels_of_a_flat_image_cover_it(colour):
    labels = superpixel_labels(np.full((32, 32, 3), colour, np.uint8), 16)
    assert labels.max() + 1 == 16
    assert np.bincount(labels.ravel()).min() > 0


@pytest.mark.parametrize("seed", range(8))
def test_the_official_draw_takes_floor_n_plus_1_times_p_numbers_of_which_0_names_no_patch(seed):
    n, p_h = 9, 0.5
    numbers = np.random.default_rng(seed).integers(0, n + 1, size=5)
    hidden = draw_hidden(n, p_h, "with_replacement", np.random.default_rng(seed))
    assert set(np.flatnonzero(hidden) + 1) == set(numbers.tolist()) - {0}


def test_the_official_draw_hides_a_single_patch_half_of_the_time():
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
def test_the_pair_partitions_the_image_and_lam_is_the_visible_share(height, width, sizes, seed):
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


def test_grid_cells_are_hidden_with_probability_p_h_whatever_the_draw():
    picture = np.zeros((40, 40, 3), np.uint8)
    rng = np.random.default_rng(0)
    for draw in ("with_replacement", "bernoulli"):
        config = PatchesConfig(kind="grid", K=(2,), p_h=0.2, draw=draw)
        lams = [hidden_mask(picture, config, rng)[1] for _ in range(100)]
        assert np.mean(lams) == pytest.approx(0.8, abs=0.01)


def test_without_a_guard_everything_or_nothing_may_be_hidden_and_with_it_never():
    picture = np.zeros((4, 4, 3), np.uint8)
    rng = np.random.default_rng(0)
    free, guarded = (
        {hidden_mask(picture, PatchesConfig(kind="grid", K=(2, 4), guard=guard), rng)[1] for _ in range(200)}
        for guard in (False, True)
    )
    assert free == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert guarded == {0.25, 0.5, 0.75}


def test_a_guard_that_cannot_be_satisfied_is_refused_in_one_line():
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match="patches.guard: .*patches.K down") as caught:
        hidden_mask(picture, PatchesConfig(kind="grid", K=(4,), guard=True), np.random.default_rng(0))
    assert "\n" not in str(caught.value)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_the_guard_holds_for_superpixels(seed):
    rng = np.random.default_rng(seed)
    picture = np.zeros((8, 8, 3), np.uint8)
    _, lam = hidden_mask(picture, PatchesConfig(S_N=4, guard=True), rng)
    assert 0 < lam < 1


@pytest.mark.parametrize("wrong", [{"K": ()}, {"K": (0,)}, {"p_h": 0}, {"p_h": 1}, {"S_N": 0}, {"kind": "slic"}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        PatchesConfig(**wrong)


def test_a_list_from_yaml_is_a_tuple():
    assert PatchesConfig(K=[4, 7]).K == (4, 7)
