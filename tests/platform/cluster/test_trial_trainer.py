"""What a trial starts of Ray Train; whole trials run in test_tune_searcher.py and tests/test_smoke.py."""

import asyncio
import threading
from platform.cluster import trial_trainer
from platform.cluster.trial_trainer import ReportDirectly, StartCleaner, TrialTrainer
from typing import Any

import pytest
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # its own settings


def test_of_rays_callbacks_one_is_replaced_and_one_left_out() -> None:
    stock = [type(callback) for callback in TorchTrainer(print)._create_default_callbacks()]
    assert stock.count(DatasetsCallback) == stock.count(PlacementGroupCleanerCallback) == 1
    stock.remove(DatasetsCallback)
    ours = [type(callback) for callback in TrialTrainer(print)._create_default_callbacks()]
    assert ours == [StartCleaner if kind is PlacementGroupCleanerCallback else kind for kind in stock]


def test_what_rank_0_reports_is_given_on() -> None:
    heard: list[dict[str, Any]] = []
    first, second = {"epoch": 1}, {"epoch": 9}
    ReportDirectly(heard.append).after_report(None, [first, second], None)
    assert heard == [{"epoch": 1}] and heard[0] is not first


def test_the_controller_runs_where_fit_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    class Controller:
        def __init__(self, **parts: Any) -> None:
            assert parts == {"part": 1}

        async def run(self) -> None:
            await asyncio.sleep(0)
            self.thread = threading.get_ident()

        def get_result(self) -> int:
            return self.thread

    monkeypatch.setattr(trial_trainer, "TrainController", Controller)
    assert TrialTrainer(print)._initialize_and_run_controller(part=1) == threading.get_ident()
