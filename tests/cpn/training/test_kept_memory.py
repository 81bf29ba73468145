"""Freed memory stays with a process that trains on a CPU, and goes back at the end."""

import json
import resource
import subprocess
import sys

import pytest

BLOCK = 40 * 2**20
"""Bytes above what glibc keeps by itself."""
PROGRAM = """
import json, resource, sys, psutil, torch
from cpn.training.kept_memory import kept_memory

def work():  # write a block five times, freed each time
    for _ in range(5):
        torch.ones(int(sys.argv[2]) // 4)

held = lambda: psutil.Process().memory_info().rss
at_first = held()
with kept_memory(torch.device(sys.argv[1])):
    work()  # the first time its pages are made either way
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    within = held()
print(json.dumps({"pages": pages, "within": within - at_first, "after": held() - at_first}))
"""
"""In a process of its own: what ran before decides where blocks lie, and so what is left free."""


@pytest.mark.parametrize(("device", "kept"), [("cpu", True), ("meta", False)])
def test_pages_are_made_once_and_go_back(device: str, kept: bool) -> None:
    """On the CPU. Another device than a CPU is left alone."""
    words = [sys.executable, "-c", PROGRAM, device, str(BLOCK)]
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert (found["pages"] < BLOCK // resource.getpagesize()) == kept
    assert (found["within"] > BLOCK // 2) == kept
    assert found["after"] < BLOCK // 2
