"""PCM as it is written down: against a case by hand, and against ours."""

import pytest
import torch

from benchmarks.method.pcm import gradient, inputs, most_held, naive
from benchmarks.method.pcm_memory import map_difference
from cpn.models.correlation import pcm


def test_two_pixels_by_hand() -> None:
    # Unit features (1, 0) and (.6, .8): affinities [[1, .6], [.6, 1]], columns sum to 1.6.
    features = torch.tensor([[[[2.0, 3.0]], [[0.0, 4.0]]]])
    refined = naive(torch.tensor([[[[1.0, 0.0]]]]), features)
    assert refined.flatten().tolist() == pytest.approx([1 / 1.6, 0.6 / 1.6], abs=1e-4)


def test_ours_is_the_same_and_so_are_its_gradients() -> None:
    cam, features = inputs(2, 7, 5)
    torch.testing.assert_close(pcm(cam, features), naive(cam, features), rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient(pcm, cam, features), gradient(naive, cam, features), rtol=0, atol=1e-5)
    assert map_difference((1, 9, 8)) < 1e-5


def test_what_is_held_is_seen_and_the_watch_ends() -> None:
    held: list[torch.Tensor] = []
    assert 40 < most_held(lambda: held.append(torch.ones(2**24))) < 200  # 64 MiB


def test_memory_that_the_allocator_keeps_is_not_overlooked() -> None:
    pieces = [torch.ones(2**15) for _ in range(1500)]  # 128 KiB each: on the heap, below one that stays
    last = pieces.pop()
    pieces.clear()
    held: list[torch.Tensor] = []
    assert most_held(lambda: held.append(torch.ones(2**24))) > 40
    assert last.numel() == 2**15


def test_a_failure_passes_through_and_ends_the_watch() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        most_held(fail)
