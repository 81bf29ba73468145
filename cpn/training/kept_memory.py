"""Keep the memory of freed tensors in the process while a network trains on a CPU.

glibc gives freed memory at the top of its heap back to the system. A training step frees what the next one asks for
again: each page of it is then made and zeroed anew by the kernel, a sixth of a step's CPU time on scenes
(`python -m benchmarks train_step`). Nothing that is computed changes. Blocks above 32 MiB go back as ever.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's numbers for `mallopt` (malloc.h)."""
KEPT_BYTES = 2**31 - 1
"""What may lie free at the end of the heap: the most that mallopt takes."""
HEAP_BYTES = 32 * 2**20
"""Blocks up to this size lie in the heap: the most that mallopt takes."""
USUAL_BYTES = 128 * 1024
"""glibc's own value of both (mallopt(3))."""


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """While the block runs, freed memory stays with this process; afterwards it goes back to the system.

    Does nothing on another device than a CPU, whose memory torch keeps itself, or under another C library.
    """
    library = ctypes.CDLL(None)
    if device.type != "cpu" or not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(M_MMAP_THRESHOLD, HEAP_BYTES)
    library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_THRESHOLD, USUAL_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, USUAL_BYTES)
        library.malloc_trim(0)
