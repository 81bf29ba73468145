"""Freed memory stays with a process that trains on a CPU, and goes back at the end."""

import resource
from collections.abc import Callable
from contextlib import nullcontext

import psutil
import pytest
import torch

from cpn.training.kept_memory import kept_memory

BLOCK = 40 * 2**20
"""Bytes above what glibc keeps by itself."""


def faults(work: Callable[[], object]) -> int:
    """Pages that the kernel had to make for `work`."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def work() -> None:
    """Write a block five times, freed each time."""
    for _ in range(5):
        torch.ones(BLOCK // 4)


@pytest.mark.parametrize("kept", [False, True])
def test_pages_are_made_once(kept: bool) -> None:
    pages = BLOCK // resource.getpagesize()
    with kept_memory(torch.device("cpu")) if kept else nullcontext():
        work()  # the first time they are made either way
        made = faults(work)
    assert made < pages if kept else made >= pages


def test_memory_goes_back_at_the_end() -> None:
    before = psutil.Process().memory_info().rss
    with kept_memory(torch.device("cpu")):
        work()
        assert psutil.Process().memory_info().rss > before + BLOCK // 2
    assert psutil.Process().memory_info().rss < before + BLOCK // 2


def test_another_device_is_left_alone() -> None:
    pages = BLOCK // resource.getpagesize()
    with kept_memory(torch.device("meta")):
        work()
        assert faults(work) >= pages
