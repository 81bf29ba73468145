from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cpn.config.train import OptimizerKind
from cpn.core.errors import WorkError
from cpn.training import loop
from cpn.training.loop import Report, TrainingJob, fit
from cpn.training.optimizer import PolySchedule, build_optimizer

STEPS = 3
MEASURED = ("time", "images_per_s", "data_wait_share")


class Killed(Exception):
    pass


def make() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def batches(epoch: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(epoch)
    return (torch.randn(5, 4, generator=generator) for _ in range(STEPS))


def run(
    network: nn.Module,
    report: Report,
    *,
    folder: Path | None = None,
    epochs: int = 4,
    seed: int = 3,
    kind: OptimizerKind = "adamw",
    poison: int | None = None,
    bf16: bool = False,
    **more: object,
) -> list[dict[str, float]]:
    optimizer = build_optimizer(
        kind, [{"params": network.parameters(), "lr": 0.05}], sgd_momentum=0.9, weight_decay=0.01
    )
    taken = 0

    def losses(batch: Tensor, progress: float) -> Mapping[str, Tensor]:
        nonlocal taken
        taken += 1
        squared = network(batch).square().mean()
        # A term that depends on progress: a resumed run must go on with the right one.
        total = squared + progress * network(batch).mean()
        if poison == taken:
            total = total / 0
        return {"squared": squared, "total": total}

    job = TrainingJob(
        network=network,
        optimizer=optimizer,
        schedule=PolySchedule(optimizer, epochs * STEPS),
        epochs=epochs,
        steps_per_epoch=STEPS,
        batches=batches,
        losses=losses,
        seed=seed,
        folder=folder,
        bf16=bf16,
    )
    return fit(job, report, **more)  # type: ignore[arg-type]


def weights(network: nn.Module) -> list[float]:
    return [float(value) for tensor in network.state_dict().values() for value in tensor.flatten()]


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in entry.items() if k not in MEASURED} for entry in history]


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("last", [1, 3, 4])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, kind: OptimizerKind, last: int) -> None:
    whole = make()
    history = run(whole, lambda _: None, kind=kind)
    interrupted = make()
    heard: list[dict[str, float]] = []

    def kill(entry: dict[str, float]) -> None:
        heard.append(entry)
        if entry["epoch"] == last:
            raise Killed

    with pytest.raises(Killed):
        run(interrupted, kill, folder=tmp_path, kind=kind)
    assert (weights(interrupted) == weights(whole)) == (last == 4)
    fresh = make()
    torch.manual_seed(999)  # whatever else has drawn from the global generator
    again: list[dict[str, float]] = []
    resumed = run(fresh, again.append, folder=tmp_path, kind=kind)
    assert weights(fresh) == weights(whole)
    assert without_times(resumed) == without_times(history)
    # A listener who was killed as well misses no epoch: those of the checkpoint come again, word for word.
    assert again == resumed and again[:last] == heard


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_killed_with_a_broken_checkpoint_it_ends_the_same(tmp_path: Path, kind: OptimizerKind) -> None:
    """The unit of resumption is the epoch: a broken-off one is done again from its first step."""
    whole = make()
    history = run(whole, lambda _: None, kind=kind)
    with pytest.raises(WorkError):  # in the middle of epoch 4
        run(make(), lambda _: None, folder=tmp_path, kind=kind, poison=3 * STEPS + 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_0002", "epoch_0003"]
    model = tmp_path / "epoch_0003" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    said: list[str] = []
    heard: list[dict[str, float]] = []
    fresh = make()
    resumed = run(fresh, heard.append, folder=tmp_path, kind=kind, say=said.append)
    assert weights(fresh) == weights(whole) and without_times(resumed) == without_times(history)
    assert [entry["epoch"] for entry in heard] == [1, 2, 3, 4]
    assert len(said) == 1 and "epoch_0003: this checkpoint is damaged; going on from epoch_0002" in said[0]


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    network = make()
    history = run(network, lambda _: None, folder=tmp_path)
    fresh = make()
    heard: list[dict[str, float]] = []
    assert run(fresh, heard.append, folder=tmp_path, poison=1) == history == heard
    assert weights(fresh) == weights(network)


def test_another_seed_draws_other_dropout() -> None:
    networks = [make(), make(), make()]
    for network, seed in zip(networks, (3, 4, 3), strict=True):
        run(network, lambda _: None, seed=seed)
    assert weights(networks[0]) == weights(networks[2]) != weights(networks[1])


def test_a_loss_that_is_no_number_stops_before_the_step() -> None:
    expected, network = make(), make()
    run(expected, lambda _: None, epochs=1, poison=None)
    heard: list[dict[str, float]] = []
    with pytest.raises(WorkError, match=r"the loss is (inf|-inf|nan) at epoch 2, step 3; lower train.lr"):
        run(network, heard.append, epochs=4, poison=STEPS + 1)
    after_one = make()
    with pytest.raises(Killed):
        run(after_one, lambda _: (_ for _ in ()).throw(Killed), epochs=4)
    assert weights(network) == weights(after_one) and len(heard) == 1


def test_nothing_is_saved_of_a_loss_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: steps 0, 2, 4, ... are looked at and each epoch's end; the third and last step of epoch 2 is bad."""
    monkeypatch.setattr(loop, "steps_between_looks", lambda device: 2)
    with pytest.raises(WorkError, match=r"the loss is (inf|-inf|nan) at epoch 2, step 6; lower train.lr"):
        run(make(), lambda _: None, folder=tmp_path, poison=2 * STEPS)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_0001"]
    with pytest.raises(WorkError, match=r"the loss is (inf|-inf|nan) at epoch 2, step 4"):
        run(make(), lambda _: None, poison=STEPS + 1)  # step 3 was not looked at, and what is not finite stays so


def test_a_gpu_is_waited_for_seldom() -> None:
    assert loop.steps_between_looks(torch.device("cuda")) == loop.CHECK_STEPS > 1
    assert loop.steps_between_looks(torch.device("cpu")) == 1


def test_what_is_reported(tmp_path: Path) -> None:
    seen: list[float] = []
    modes: list[bool] = []
    network = nn.Linear(4, 1)
    optimizer = build_optimizer(
        "sgd", [{"params": network.parameters(), "lr": 0.1}], sgd_momentum=0.0, weight_decay=0.0
    )

    def losses(batch: Tensor, progress: float) -> Mapping[str, Tensor]:
        seen.append(progress)
        assert network.training
        total = network(batch).sum() * 0 + len(seen)
        return {"count": total.detach(), "total": total}

    def after_epoch(epoch: int) -> Mapping[str, float]:
        modes.append(network.training)
        return {"miou_epoch": 10.0 * epoch}

    job = TrainingJob(
        network=network,
        optimizer=optimizer,
        schedule=PolySchedule(optimizer, 6, power=1.0),
        epochs=2,
        steps_per_epoch=STEPS,
        batches=batches,
        losses=losses,
        seed=0,
        images_per_step=5,
    )
    history = fit(job, lambda _: None, after_epoch=after_epoch)
    assert seen == pytest.approx([k / 6 for k in range(6)]) and modes == [False, False]
    first, second = history
    assert [first["epoch"], second["epoch"]] == [1, 2]
    assert [first["loss_count"], second["loss_count"]] == [2, 5] and second["loss_total"] == 5  # means over an epoch
    assert [first["lr"], second["lr"]] == pytest.approx([0.1 * (1 - 2 / 6), 0.1 * (1 - 5 / 6)])
    assert [first["miou_epoch"], second["miou_epoch"]] == [10, 20]
    for entry in history:
        assert 0 <= entry["data_wait_share"] <= 1 and entry["images_per_s"] > 0
        assert "peak_memory_mib" not in entry  # a CPU


def test_waiting_for_data_is_seen() -> None:
    network = make()
    clock = iter(range(1000))

    def slow(epoch: int) -> Iterator[Tensor]:
        for batch in batches(epoch):
            for _ in range(8):
                next(clock)
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cpn.training.loop.time.perf_counter", lambda: float(next(clock)))
        optimizer = build_optimizer(
            "sgd", [{"params": network.parameters(), "lr": 0.1}], sgd_momentum=0.0, weight_decay=0.0
        )
        job = TrainingJob(
            network=network,
            optimizer=optimizer,
            schedule=PolySchedule(optimizer, STEPS),
            epochs=1,
            steps_per_epoch=STEPS,
            batches=slow,
            losses=lambda batch, _: {"total": network(batch).mean()},
            seed=0,
            images_per_step=5,
        )
        (entry,) = fit(job, lambda _: None)
    # The clock advances by one per reading and by eight per batch: 9 of every 10 ticks are waited, one reading ends it.
    assert entry["data_wait_share"] == pytest.approx(3 * 9 / 31)
    assert entry["images_per_s"] == pytest.approx(5 * STEPS / 31)


def test_only_the_writer_keeps_checkpoints(tmp_path: Path) -> None:
    class Wrap(nn.Module):
        """What data-parallel training makes of a network."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)  # type: ignore[no-any-return]

    run(Wrap(make()), lambda _: None, folder=tmp_path, writes=False)
    assert list(tmp_path.iterdir()) == []
    wrapped = Wrap(make())
    run(wrapped, lambda _: None, folder=tmp_path)
    plain = make()
    run(plain, lambda _: None, folder=tmp_path)
    assert weights(plain) == weights(wrapped.module)


def test_bfloat16_changes_the_network_not_the_optimizer_state() -> None:
    networks = [make(), make()]
    for network, bf16 in zip(networks, (False, True), strict=True):
        run(network, lambda _: None, epochs=1, bf16=bf16)
    assert weights(networks[0]) != weights(networks[1])
    assert weights(networks[0]) == pytest.approx(weights(networks[1]), abs=0.2)
    assert all(p.dtype == torch.float32 for p in networks[1].parameters())
