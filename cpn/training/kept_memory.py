"""Keep the memory of freed tensors in the process while a network trains on a CPU.

glibc gives blocks above 32 MiB back to the system as soon as they are freed, and smaller ones at the top of its heap.
A training step frees what the next one asks for again: each page of it is then made and zeroed anew by the kernel, a
sixth of a step's CPU time on scenes (`python -m benchmarks train_step`). Nothing that is computed changes.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""glibc's numbers for `mallopt` (malloc.h)."""
KEPT_BYTES = 2**31 - 1
"""What may lie free at the end of the heap: the most that mallopt takes."""
USUAL_BYTES, USUAL_BLOCKS = 128 * 1024, 65536
"""glibc's own values (mallopt(3))."""


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """While the block runs, freed memory stays with this process; afterwards it goes back to the system.

    Does nothing on another device than a CPU, whose memory torch keeps itself, or under another C library.
    """
    library = ctypes.CDLL(None)
    if device.type != "cpu" or not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(M_MMAP_MAX, 0)
    library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_MAX, USUAL_BLOCKS)
        library.mallopt(M_TRIM_THRESHOLD, USUAL_BYTES)
        library.malloc_trim(0)
