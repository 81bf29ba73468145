"""The pruning rule: by hand, what it may never do, and a late bloomer against a rule blind to the schedule."""

import math
from contextlib import suppress
from pathlib import Path
from platform.cluster.tune_searcher import StudyPruner, StudySearcher
from platform.config.sections import Pruning
from platform.reports.ranking import in_order
from platform.search.pruning import Decision, audited, decide, rung_reached, rungs, value_at
from platform.search.study import State, open_study, study_url
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler

from cpn.config import with_values
from cpn.config.data import ScenesConfig
from cpn.config.train import TrainConfig
from cpn.models.network import build_network
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.training.cam_training import train
from cpn.training.loop import TrainingContext
from tests.platform.search.test_study import ask, make_spec, make_study


@pytest.mark.parametrize(
    ("epochs", "grace", "reduction", "expected"),
    [
        (8, 0.5, 2, [4]),
        (8, 0.5, 1.25, [4, 5, 7]),  # shares .5, .625, .78; .977 would be the end
        (5, 0.5, 2, [3]),
        (10, 0.7, 2, [7]),
        (1, 0.5, 2, []),
        (2, 0.9, 2, []),
    ],
)
def test_rungs_by_hand(epochs: int, grace: float, reduction: float, expected: list[int]) -> None:
    assert list(rungs(epochs, grace, reduction).values()) == expected


@given(epochs=st.integers(1, 300), grace=st.floats(0.5, 0.99), reduction=st.floats(1.1, 5))
def test_no_rung_before_half_or_at_the_end(epochs: int, grace: float, reduction: float) -> None:
    found = list(rungs(epochs, grace, reduction).values())
    assert all(0.5 * epochs <= rung < epochs for rung in found) and found == sorted(set(found))


def test_schedules_of_different_length_meet_at_the_same_shares() -> None:
    assert rungs(8, 0.5, 1.5) == {0.5: 4, 0.75: 6}
    assert rungs(20, 0.5, 1.5) == {0.5: 10, 0.75: 15}


def test_the_value_at_a_rung_is_the_first_from_there_on() -> None:
    assert value_at(4, {3: 0.3, 5: 0.5, 6: 0.6}) == 0.5
    assert value_at(4, {4: 0.4, 5: 0.5}) == 0.4
    assert value_at(4, {3: 0.3}) is None


def test_a_rung_is_decided_once_and_again_after_a_restart() -> None:
    at = {0.5: 4, 0.75: 6}
    assert rung_reached(3, [1, 2, 3], at) is None
    assert rung_reached(4, [1, 2, 3, 4], at) == 0.5
    assert rung_reached(5, [1, 2, 3, 4, 5], at) is None
    assert rung_reached(5, [1, 3, 5], at) == 0.5  # it reports every second epoch
    assert rung_reached(4, [1, 2, 3, 4, 5], at) == 0.5  # epoch 4 came again from a checkpoint
    assert rung_reached(7, [6, 7], at) is None
    assert rung_reached(6, [1, 2, 3, 4, 5, 6], at) == 0.75


PEERS = [0.1, 0.2, 0.3, 0.4, 0.5]


def verdict(value: float, peers: list[float], reduction: float = 2, audit: float = 0) -> Decision:
    return decide(value, peers, number=1, seed=0, reduction=reduction, audit=audit)


def test_the_better_half_runs_on() -> None:
    assert verdict(0.31, PEERS) is Decision.KEEP  # third of six
    assert verdict(0.29, PEERS) is Decision.PRUNE  # fourth of six
    assert verdict(0.41, PEERS, reduction=3) is Decision.KEEP  # second of six
    assert verdict(0.31, PEERS, reduction=3) is Decision.PRUNE


def test_few_peers_prove_nothing_and_equals_stay() -> None:
    assert verdict(0.0, [0.9, 0.9, 0.9]) is Decision.KEEP
    assert verdict(0.5, [0.5] * 20) is Decision.KEEP


@given(value=st.floats(0, 1), peers=st.lists(st.floats(0, 1), max_size=30), reduction=st.floats(1.1, 20))
def test_the_best_is_never_pruned(value: float, peers: list[float], reduction: float) -> None:
    top = max([value, *peers])
    assert verdict(top, peers, reduction) is Decision.KEEP


def test_the_audit_arm_is_settled_by_seed_and_number() -> None:
    assert verdict(0.0, PEERS, audit=1) is Decision.AUDIT
    chosen = [audited(number, 3, 0.1) for number in range(2000)]
    assert 150 < sum(chosen) < 250
    assert chosen == [audited(number, 3, 0.1) for number in range(2000)]
    assert chosen != [audited(number, 4, 0.1) for number in range(2000)]
    assert not audited(5, 0, 0)


# A late bloomer: below everybody until its learning rate has fallen, the best of all at the end. `EPOCHS` epochs.

EPOCHS = TrainConfig().epochs
LATE = 9
"""The number of the late bloomer among the trials."""


def curve(number: int) -> list[float]:
    """miou_epoch by epoch of a simulated trial: early ones flatten, the late one starts to rise before half."""
    if number == LATE:
        return [70 / (1 + math.exp(-12 * (epoch / EPOCHS - 0.4))) for epoch in range(1, EPOCHS + 1)]
    top = 44 + 1.5 * (number % 7)
    return [top * (1 - math.exp(-6 * epoch / EPOCHS)) for epoch in range(1, EPOCHS + 1)]


def by_our_rule(folder: Path, trials: int) -> Any:
    """Run simulated trials one after the other through our searcher and pruner; the study."""
    study = make_study(folder, f"budget.trials={trials}")
    search = StudySearcher(study, trials)
    scheduler = StudyPruner(study, search, Pruning(audit=0), 0, EPOCHS)
    for number in range(trials):
        config = search.suggest(str(number))
        assert isinstance(config, dict)
        trial, values = SimpleNamespace(config=config), curve(number)
        for epoch, value in enumerate(values, start=1):
            # After a retry Tune's own count starts again; nothing may depend on it.
            result = {"epoch": epoch, "miou_epoch": value, "training_iteration": 1 + epoch % 3}
            decision = scheduler.on_trial_result(None, trial, result)  # type: ignore[arg-type]
            if decision == "STOP":
                break
        else:
            result = {"epoch": EPOCHS, "miou_epoch": values[-1], "miou": values[-1]}
        search.on_trial_complete(str(number), result)
    return study


def by_stock_asha(trials: int) -> dict[int, float]:
    """The same curves through Ray Tune's own scheduler with grace_period 1: number -> result of those that lived."""
    from ray.tune.schedulers import AsyncHyperBandScheduler

    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch", metric="miou_epoch", mode="max", max_t=EPOCHS, grace_period=1, reduction_factor=2
    )
    lived = {}
    for number in range(trials):
        trial: Any = SimpleNamespace(trial_id=str(number))
        scheduler.on_trial_add(None, trial)  # type: ignore[arg-type]
        for epoch, value in enumerate(curve(number), start=1):
            result = {"epoch": epoch, "miou_epoch": value}
            if scheduler.on_trial_result(None, trial, result) == "STOP" and epoch < EPOCHS:  # type: ignore[arg-type]
                break
        else:
            lived[number] = value
    return lived


def test_a_late_bloomer_wins_here_and_dies_under_stock_asha(tmp_path: Path) -> None:
    finals = {number: curve(number)[-1] for number in range(12)}
    assert max(finals, key=lambda number: finals[number]) == LATE
    assert curve(LATE)[0] < min(curve(number)[0] for number in range(12) if number != LATE)
    study = by_our_rule(tmp_path, 12)
    rows = study.rows()
    assert in_order(rows)[0].number == LATE and rows[LATE].state is State.COMPLETE
    assert any(row.state is State.PRUNED for row in rows)  # the rule was awake
    assert all(row.epochs >= EPOCHS / 2 for row in rows)
    lived = by_stock_asha(12)
    assert LATE not in lived and lived and max(lived.values()) < finals[LATE] - 5


class Stopped(Exception):
    """Tune ends the trial's actor."""


def test_a_pruned_trial_had_its_full_schedules_rates(tmp_path: Path) -> None:
    """lr = .01 (1 - step / 8)^.9 with 2 steps in each of 4 epochs; stopped after epoch 2, the reference runs on."""
    write_scenes(tmp_path / "scenes", ScenesConfig(train=8, val=1, size=32))
    pack = prepare(tmp_path / "scenes", ["train"])
    base = {
        "data": {"train": "train", "crop": 32, "long_side": [28, 40], "workers": 0},
        "patches": {"kind": "grid", "K": [4, 8]},
        "network": {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8},
        "train": {"batch_size": 4, "epochs": 4, "lr": 0.01},
    }
    spec = make_spec(tmp_path, base=base)
    study = open_study(spec, study_url(spec), "f00d")
    pruner = StudyPruner(study, StudySearcher(study, None), Pruning(audit=0), 0, 4)
    for _ in range(5):
        study.report(ask(study).uid, 2, 101.0)  # at the rung already, and better than anything

    def rates(uid: str, values: dict[str, Any]) -> list[float]:
        heard: list[float] = []

        def report(entry: dict[str, float]) -> None:
            heard.append(entry["lr"])
            trial = SimpleNamespace(config={"uid": uid})
            if pruner.on_trial_result(None, trial, entry) == TrialScheduler.STOP:  # type: ignore[arg-type]
                raise Stopped

        config = with_values(spec.base_config, {**values, "patches.slic_on": "crop"}, "test")
        network = build_network(config.network, len(pack.classes) + 1)
        split = pack.split("train")
        with suppress(Stopped):
            fives, cpu = lambda _: {"miou_epoch": 5.0}, torch.device("cpu")
            train(network, split, config, TrainingContext(device=cpu, report=report, after_epoch=fives))
        return heard

    pruned, reference = ask(study), study.rows()[0]
    whole = [0.01 * (1 - step / 8) ** 0.9 for step in (1, 3, 5, 7)]  # each epoch's last step
    assert rates(pruned.uid, pruned.values) == pytest.approx(whole[:2])
    assert study.row(pruned.uid).state is State.PRUNED
    assert rates(reference.uid, reference.values) == pytest.approx(whole)
