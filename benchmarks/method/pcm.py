"""PCM as it is written down, and what it holds: the other side of topics pcm_memory and pcm_time."""

import ctypes
import gc
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CLASSES, CHANNELS = 21, 192


def naive(cam: "Tensor", features: "Tensor") -> "Tensor":
    """CPN Eq. 9-10 step by step: unit features, the (B, HW, HW) matrix, its ReLU, its column sums, the product."""
    from torch.nn import functional

    batch, classes, height, width = cam.shape
    flat = features.flatten(2)
    unit = flat / (flat.norm(dim=1, keepdim=True) + 1e-5)
    affinity = functional.relu(unit.transpose(1, 2) @ unit)
    affinity = affinity / (affinity.sum(dim=1, keepdim=True) + 1e-5)
    return (cam.flatten(2) @ affinity).reshape(batch, classes, height, width)


def inputs(batch: int, height: int, width: int) -> tuple["Tensor", "Tensor"]:
    """A Y0 (B, 21, H, W) in [0, 1], and features (B, 192, H, W) that want a gradient."""
    import torch

    torch.manual_seed(0)
    return torch.rand(batch, CLASSES, height, width), torch.randn(batch, CHANNELS, height, width, requires_grad=True)


def gradient(work: Callable[[Any, Any], Any], cam: "Tensor", features: "Tensor") -> "Tensor":
    """The gradient at the features of the sum of squares of the refined map."""
    import torch

    (derivative,) = torch.autograd.grad((work(cam, features) ** 2).sum(), features)
    return derivative


def give_back() -> None:
    """Free garbage, and give the memory that the allocator keeps back to the system: what `work` takes of it would not
    be seen.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; another libc keeps little
    if trim is not None:
        trim(0)


def most_held(work: Callable[[], Any]) -> float:
    """MiB that this process holds at most while `work` runs, beyond what it held before, looked at every ms."""
    import psutil

    process, most, done = psutil.Process(), 0, threading.Event()
    give_back()
    before = process.memory_info().rss

    def look() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, process.memory_info().rss)
            time.sleep(0.001)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    most = max(most, process.memory_info().rss)  # a busy machine may not have let the watcher look again
    return max(0, most - before) / 2**20
