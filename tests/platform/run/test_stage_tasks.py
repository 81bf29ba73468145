"""The tasks of later stages."""

from platform.run import stage_tasks

import pytest


def test_a_training_has_the_threads_of_the_machine_it_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were the driver's count on any node."""
    monkeypatch.setattr(stage_tasks.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(stage_tasks.os, "sched_getaffinity", lambda pid: {0, 5, 6})
    assert stage_tasks.threads_here() == 3
    assert not any("thread" in name for name in stage_tasks.Plan.__dataclass_fields__)
