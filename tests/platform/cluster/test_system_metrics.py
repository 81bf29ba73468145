"""How busy the training machine is: few numbers, under MLflow's names, and true ones."""

import time
from platform.cluster.system_metrics import SystemMetrics


def test_a_busy_process_shows_as_busy() -> None:
    busy = SystemMetrics()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    told = busy()
    assert all(name.startswith("system/") for name in told) and len(told) <= 6
    assert told["system/worker_cpu_percentage"] > 5
    assert 0 < told["system/system_memory_usage_percentage"] <= 100
    assert 10 < told["system/worker_memory_megabytes"] < 100_000
    time.sleep(1)  # what threads of earlier tests still do has to be little of it
    assert busy()["system/worker_cpu_percentage"] < 50
