"""How busy the machine is that trains, under the names that MLflow gives such numbers: CPU at the end of each epoch,
the GPU minute by minute.

They are those of the worker of rank 0 and its machine, since that is where an epoch is reported from; what the driver's
machine does is not in them. MLflow shows keys that begin with `system/` on a tab of their own.
"""

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

_MEGABYTE = 1e6
MINUTE = 60.0
PATIENCE_S = 20.0
"""Seconds that the driver's tool is given; where nothing keeps the driver loaded it takes a few."""


class SystemMetrics:
    """Shares are means since the last call, or since this was made. A call takes about a millisecond."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()
        psutil.cpu_percent()

    def __call__(self) -> dict[str, float]:
        """CPU of the machine and of this process (100 is one core), and memory of both."""
        memory = psutil.virtual_memory()
        return {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_percentage": memory.percent,
            "system/worker_cpu_percentage": self._process.cpu_percent(),
            "system/worker_memory_megabytes": self._process.memory_info().rss / _MEGABYTE,
        }


class Minutes:
    """What `read` says each minute, by a thread, until `stop`; without `read` nothing is said."""

    def __init__(self, read: Callable[[], dict[str, float]] | None, every_s: float = MINUTE) -> None:
        self._read, self._every = read, every_s
        self._samples: list[dict[str, float]] = []
        self._sampled = False
        self._lock, self._stopped = threading.Lock(), threading.Event()
        if read is not None:
            threading.Thread(target=self._run, name="gpu", daemon=True).start()

    def __call__(self) -> dict[str, list[dict[str, float]]]:
        """Return the samples since the last call as `minutes`, each with its `time`.

        A first one is read at once where no minute has passed, so that short runs have one; no other call waits.
        """
        if not self._sampled:
            self._take()
        with self._lock:
            samples, self._samples = self._samples, []
        return {"minutes": samples} if samples else {}

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            self._take()

    def _take(self) -> None:
        if self._read is not None and (values := self._read()):
            with self._lock:
                self._sampled = True
                self._samples.append({"time": time.time(), **values})


def gpu_reader(device: "torch.device") -> Callable[[], dict[str, float]] | None:
    """Return what reads the memory in use on the GPU `device`, by everybody, and how busy it is; None for another
    device.

    How busy it is says the driver's own nvidia-smi, about the seconds before; where that is missing, or does not know
    (a part of a card), memory alone is read.
    """
    import torch

    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    index = torch.cuda.current_device() if device.index is None else device.index
    tool, card = shutil.which("nvidia-smi"), f"GPU-{torch.cuda.get_device_properties(index).uuid}"

    def read() -> dict[str, float]:
        free, total = torch.cuda.mem_get_info(index)
        values = {
            "system/gpu_0_memory_usage_megabytes": (total - free) / _MEGABYTE,
            "system/gpu_0_memory_usage_percentage": 100 * (total - free) / total,
        }
        busy = None if tool is None else utilization(tool, card)
        return values if busy is None else {"system/gpu_0_utilization_percentage": busy, **values}

    return read


def utilization(tool: str, card: str) -> float | None:
    """Percent of the time that `card` computes, by nvidia-smi at `tool`; None where it does not say."""
    command = [tool, f"--id={card}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
        return float(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
