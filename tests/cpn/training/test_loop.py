import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cpn.config.train import OptimizerKind
from cpn.core.errors import WorkError
from cpn.core.run_files import position
from cpn.data.voc import open_pack
from cpn.training import loop
from cpn.training.loop import Loop, Report, TrainingContext, run_loop
from cpn.training.optimizer import PolySchedule, build_optimizer
from cpn.training.saving import Saving
from tests.cpn.training import one_training

CPU = torch.device("cpu")
STEPS = 3
EVERY_STEP = 1e-9
"""Minutes between checkpoints so short that each step has one."""
MEASURED = ("time", "images_per_s", "data_wait_share")


class Killed(Exception):
    pass


def make() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def batches(epoch: int, first: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(epoch)
    return iter([torch.randn(5, 4, generator=generator) for _ in range(STEPS)][first:])


def run(
    network: nn.Module,
    report: Report,
    *,
    folder: Path | None = None,
    epochs: int = 4,
    seed: int = 3,
    kind: OptimizerKind = "adamw",
    poison: int | None = None,
    term: int | None = None,
    bf16: bool = False,
    **more: Any,
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
        if term == taken:
            signal.raise_signal(signal.SIGTERM)
        if poison == taken:
            total = total / 0
        return {"squared": squared, "total": total}

    loop = Loop(
        network=network,
        optimizer=optimizer,
        schedule=PolySchedule(optimizer, epochs * STEPS),
        epochs=epochs,
        steps_per_epoch=STEPS,
        batches=batches,
        losses=losses,
        seed=seed,
        bf16=bf16,
    )
    return run_loop(loop, TrainingContext(device=CPU, report=report, folder=folder, **more))


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


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("last", range(1, 2 * STEPS + 1))
def test_killed_after_any_step_it_ends_the_same(tmp_path: Path, kind: OptimizerKind, last: int) -> None:
    """Killed right after a checkpoint within an epoch: what comes of it has the bits of a training without any."""
    whole = make()
    history = run(whole, lambda _: None, kind=kind, epochs=2)
    saved = 0

    def kill() -> None:
        nonlocal saved
        saved += 1
        if saved == last:
            raise Killed

    with pytest.raises(Killed):
        run(make(), lambda _: None, folder=tmp_path, kind=kind, epochs=2, saving=Saving(EVERY_STEP, saved=kill))
    epoch, steps = divmod(last - 1, STEPS)
    assert max(path.name for path in tmp_path.iterdir()) == f"epoch_{epoch:04d}_step_{steps + 1:06d}"
    fresh = make()
    torch.manual_seed(999)
    resumed = run(fresh, lambda _: None, folder=tmp_path, kind=kind, epochs=2)
    assert weights(fresh) == weights(whole) and without_times(resumed) == without_times(history)
    assert all(entry["images_per_s"] > 0 and 0 <= entry["data_wait_share"] <= 1 for entry in resumed)


def test_a_damaged_part_gives_way_to_the_epoch_before(tmp_path: Path) -> None:
    whole = make()
    history = run(whole, lambda _: None)
    saving = Saving(EVERY_STEP)
    with pytest.raises(WorkError):  # at the third step of epoch 3
        run(make(), lambda _: None, folder=tmp_path, poison=3 * STEPS, saving=saving)
    newest = tmp_path / "epoch_0002_step_000002"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_0002", newest.name]
    part = bytearray((newest / "part.safetensors").read_bytes())
    part[-1] ^= 1
    (newest / "part.safetensors").write_bytes(part)
    said: list[str] = []
    fresh = make()
    assert without_times(run(fresh, lambda _: None, folder=tmp_path, say=said.append)) == without_times(history)
    assert weights(fresh) == weights(whole)
    assert said == [f"{newest}: this checkpoint is damaged; going on from epoch_0002"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_0003", "epoch_0004"]


def test_nothing_within_an_epoch_is_saved_of_a_bad_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where not every step is looked at: saving looks."""
    monkeypatch.setattr(loop, "steps_between_looks", lambda device: 50)
    with pytest.raises(WorkError, match="the loss is (inf|-inf|nan) at epoch 1, step 2"):
        run(make(), lambda _: None, folder=tmp_path, poison=2, saving=Saving(EVERY_STEP))
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_0000_step_000001"]


def test_sigterm_ends_a_training_once_it_has_saved(tmp_path: Path) -> None:
    """In a batch system's own time: nothing of the epoch that ran is lost."""
    whole = make()
    history = run(whole, lambda _: None)
    network = make()

    def end(number: int, frame: FrameType | None) -> None:
        raise Killed

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(Killed):
            run(network, lambda _: None, folder=tmp_path, term=STEPS + 2, poison=STEPS + 3)  # it takes no step more
        assert signal.getsignal(signal.SIGTERM) is end
        with pytest.raises(Killed):
            run(make(), lambda _: None, term=2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_0001", "epoch_0001_step_000002"]
    fresh = make()
    assert without_times(run(fresh, lambda _: None, folder=tmp_path)) == without_times(history)
    assert weights(fresh) == weights(whole)


def in_a_process(place: Path, minutes: float | None, workers: int) -> subprocess.Popen[bytes]:
    """Fifty steps of the CAM network, ten an epoch, in a session of their own."""
    code = (
        "from tests.cpn.training.one_training import *; from cpn.training.saving import Saving; import sys\n"
        f"torch.set_num_threads(1); CONFIG['data']['workers'] = {workers}\n"
        f"trained('fifty steps', open_pack(Path(sys.argv[1])), 0, 1, folder=Path(sys.argv[1], 'kept'), "
        f"saving=Saving({minutes}))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(place)], start_new_session=True)


def wait_until(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    """Wait for a sign of life in the files of a process."""
    end = time.monotonic() + 120
    while not reached():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.002)


def kept(place: Path) -> tuple[int, int]:
    """Epochs and further steps of the newest checkpoint."""
    return max((position(path.name) for path in (place / "kept").glob("epoch_*")), default=(-1, 0))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kill_9_within_epochs_changes_no_bit(tmp_path: Path) -> None:
    one_training.write_data(tmp_path)
    places = []
    for after in ((0, 1), (1, 4), (3, 8)):
        process = in_a_process(tmp_path, EVERY_STEP, 0)
        wait_until(process, lambda after=after: kept(tmp_path) >= after)  # type: ignore[misc]
        process.kill()
        process.wait()
        places.append(kept(tmp_path))
    assert places == sorted(set(places)) and any(steps for _, steps in places), "what one attempt did the next one has"
    pack = open_pack(tmp_path)
    resumed = one_training.trained("fifty steps", pack, 0, 1, folder=tmp_path / "kept")
    assert resumed == one_training.trained("fifty steps", pack, 0, 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigterm_to_all_processes_loses_no_step(tmp_path: Path) -> None:
    """As batch systems send it: to the loader's process as well."""
    one_training.write_data(tmp_path)
    process = in_a_process(tmp_path, None, 1)
    wait_until(process, lambda: kept(tmp_path) >= (1, 0))
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    at = kept(tmp_path)
    pack = open_pack(tmp_path)
    resumed = one_training.trained("fifty steps", pack, 0, 1, folder=tmp_path / "kept")
    assert at[0] >= 1 and at < (5, 0) and resumed == one_training.trained("fifty steps", pack, 0, 1)


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

    loop = Loop(
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
    history = run_loop(loop, TrainingContext(device=CPU, report=lambda _: None, after_epoch=after_epoch))
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

    def slow(epoch: int, first: int) -> Iterator[Tensor]:
        for batch in batches(epoch, first):
            for _ in range(8):
                next(clock)
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cpn.training.loop.time.perf_counter", lambda: float(next(clock)))
        optimizer = build_optimizer(
            "sgd", [{"params": network.parameters(), "lr": 0.1}], sgd_momentum=0.0, weight_decay=0.0
        )
        loop = Loop(
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
        (entry,) = run_loop(loop, TrainingContext(device=CPU, report=lambda _: None))
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

    run(Wrap(make()), lambda _: None, folder=tmp_path, rank=1)
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
