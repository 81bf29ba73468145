"""Ray's part in this process, and every trial and task on a machine of its own: a scratch folder no other has seen."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from platform.cluster.tune_searcher import StudySearcher
from platform.cluster.worker import TrialSetup, train_on_worker
from platform.search.study import Study
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cpn.core import object_storage


class Machines:
    """Trials and tasks run at once, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
        import ray
        import ray.train
        import ray.train.torch

        self._patch, self._place, self._count = monkeypatch, place, itertools.count()
        self.said: list[str] = []
        """The tasks that were run, by name; a trial by its uid."""
        monkeypatch.setattr(ray, "remote", lambda **_: lambda task: SimpleNamespace(remote=_bound(self.run, task)))
        monkeypatch.setattr(ray, "get", lambda done: done[0])
        monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs, []))
        context = SimpleNamespace(get_world_size=lambda: 1, get_world_rank=lambda: 0)
        monkeypatch.setattr(ray.train, "get_context", lambda: context)
        monkeypatch.setattr(ray.train, "get_preemption_info", lambda: None)
        monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
        monkeypatch.setattr(torch, "set_num_threads", lambda count: None)

    def run(self, task: Callable[..., Any], *args: Any) -> list[Any]:
        """Run a task; its result in a list, which stands for a reference."""
        with self._patch.context() as patch:
            patch.setenv(object_storage.SCRATCH, str(self._place / f"machine{next(self._count)}"))
            self.said.append(task.__name__)
            return [task(*args)]

    def run_trials(
        self, study: Study, setup: TrialSetup, *, limit: int | None, listener: Any, reuse: Any, claim: Any, **_: Any
    ) -> None:
        """Tune's and Train's part: each trial that the Searcher hands out."""
        import ray.train

        searcher = StudySearcher(study, limit, None, reuse, listener.ended, claim)
        while isinstance(given := searcher.suggest(name := f"tune{next(self._count)}"), dict):
            uid, reports = str(given["uid"]), list[Mapping[str, Any]]()

            def report(entry: Mapping[str, Any], uid: str = uid, name: str = name, reports: Any = reports) -> None:
                reports.append(entry)
                searcher.on_trial_result(name, entry)
                listener.reported(uid, entry)

            listener.started(uid)
            with self._patch.context() as patch:
                patch.setattr(ray.train, "report", report)
                self.run(train_on_worker, {"uid": uid, "values": given["values"], "setup": setup})
            self.said[-1] = uid
            searcher.on_trial_complete(name, reports[-1])
            listener.ended(uid)


def _bound(run: Callable[..., Any], task: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: run(task, *args)
