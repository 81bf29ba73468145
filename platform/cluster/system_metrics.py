"""How busy the machine is that trains: a few numbers at the end of each epoch, under the names that MLflow gives them.

They are those of the worker of rank 0 and its machine, since that is where an epoch is reported from; what the driver's
machine does is not in them. MLflow shows keys that begin with `system/` on a tab of their own.
"""

import psutil

_MEGABYTE = 1e6


class SystemMetrics:
    """Shares are means since the last call, or since this was made. A call takes about a millisecond."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()
        psutil.cpu_percent()

    def __call__(self) -> dict[str, float]:
        """CPU of the machine and of this process (100 is one core), memory of both, and GPU where there is one."""
        memory = psutil.virtual_memory()
        return {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_percentage": memory.percent,
            "system/worker_cpu_percentage": self._process.cpu_percent(),
            "system/worker_memory_megabytes": self._process.memory_info().rss / _MEGABYTE,
            **gpu(),
        }


def gpu() -> dict[str, float]:
    """Memory in use on the GPU that this process trains on, by everybody; nothing without one."""
    import torch

    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {
        "system/gpu_0_memory_usage_megabytes": (total - free) / _MEGABYTE,
        "system/gpu_0_memory_usage_percentage": 100 * (total - free) / total,
    }
