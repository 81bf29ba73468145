"""Two and three real processes over gloo: each has its own copies of a run's files, and all do the same or all fail."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cpn.config import Config, config_from, with_values
from cpn.config.data import ScenesConfig
from cpn.config.train import OptimizerKind
from cpn.core.errors import InputError, WorkError
from cpn.data.voc import Pack, open_pack
from cpn.models.checkpoint import Progress, save_checkpoint
from cpn.models.ranks import (
    differing_ranks,
    from_rank_0,
    mean_of_all,
    rank_and_world,
    tensors_digest,
    tensors_from_rank_0,
    values_of_all,
)
from cpn.run import run
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.training.loop import Loop, TrainingContext, run_loop
from cpn.training.optimizer import PolySchedule, build_optimizer
from cpn.training.saving import Saving
from tests.cpn.training import one_training
from tests.gloo import in_group

pytestmark = pytest.mark.timeout(600)  # processes that wait for each other, on a machine that has other work

STEPS, EPOCHS = 2, 3
RUN: dict[str, Any] = {
    "data": {"train": "train", "crop": 32, "long_side": [28, 40], "workers": 0},
    "patches": {"kind": "grid", "K": [4, 8]},
    "network": {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8},
    "train": {"epochs": 1},
    "cam": {"scales": [1.0], "flip": False},
}


def make(hidden: int = 8) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, 1))


def train(
    folder: Path,
    report: Callable[[dict[str, float]], None],
    say: Callable[[str], None],
    epochs: int = EPOCHS,
    saving: Saving | None = None,
    kind: OptimizerKind = "adamw",
) -> list[float]:
    """Train `make()` on this rank's part of each batch, from `folder`; the weights at the end."""
    rank, world = rank_and_world()
    network = make()
    optimizer = build_optimizer(
        kind, [{"params": network.parameters(), "lr": 0.05}], sgd_momentum=0.9, weight_decay=0.01
    )
    wrapped = DistributedDataParallel(network) if world > 1 else network

    def batches(epoch: int, first: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(epoch)
        return iter([torch.randn(12, 4, generator=generator)[rank::world] for _ in range(STEPS)][first:])

    def losses(batch: Tensor, progress: float) -> Mapping[str, Tensor]:
        return {"total": wrapped(batch).square().mean()}

    loop = Loop(
        network=wrapped, optimizer=optimizer, schedule=PolySchedule(optimizer, EPOCHS * STEPS), epochs=epochs,
        steps_per_epoch=STEPS, batches=batches, losses=losses, seed=0,
    )  # fmt: skip
    run_loop(
        loop,
        TrainingContext(device=torch.device("cpu"), report=report, folder=folder, saving=saving, say=say, rank=rank),
    )
    return [value for parameter in network.parameters() for value in parameter.flatten().tolist()]


def torn(folder: Path, epoch: int = 2) -> None:
    model = folder / f"epoch_{epoch:04d}" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-8])


def without_manifest(folder: Path) -> None:
    (folder / "epoch_0002" / "checkpoint.json").unlink()


def late(folder: Path) -> None:
    shutil.rmtree(folder / "epoch_0002")


def missing(folder: Path) -> None:
    shutil.rmtree(folder)


def both_torn(folder: Path) -> None:
    torn(folder, 1)
    torn(folder, 2)


def older(folder: Path) -> None:
    """A whole copy under the same name, of another training: what an earlier attempt left on this machine."""
    other = make()
    optimizer = build_optimizer(
        "adamw", [{"params": other.parameters(), "lr": 1.0}], sgd_momentum=0.9, weight_decay=0.0
    )
    shutil.rmtree(folder)
    save_checkpoint(folder, other, optimizer, Progress(2, 2 * STEPS, [{"epoch": 1.0}, {"epoch": 2.0}]))


def newer(folder: Path) -> None:
    shutil.copytree(folder / "epoch_0002", folder / "epoch_0003")
    manifest = folder / "epoch_0003" / "checkpoint.json"
    assert '"epoch": 2,' in manifest.read_text()  # the name says more than it holds


def of_another_network(folder: Path) -> None:
    other = make(5)
    optimizer = build_optimizer(
        "adamw", [{"params": other.parameters(), "lr": 1.0}], sgd_momentum=0.9, weight_decay=0.0
    )
    save_checkpoint(folder, other, optimizer, Progress(2, 2 * STEPS, []))


UNREACHED: dict[str, dict[str, Any]] = {
    "w_cpcr alone": {"loss.w_cls": 0, "loss.w_tcp": 0},
    "w_tcp alone": {"loss.w_cls": 0, "loss.w_cpcr": 0, "loss.tcp_refined": False},
    "an own backbone with a layer beside its top": {"network.backbone": "tests.cpn.models.test_backbone:OwnBackbone"},
}
"""Settings under which DDP would wait for gradients that never come."""
SEES = "sees epoch 2 there, rank 0, whose copy counts, does not; "
CASES: dict[str, tuple[Callable[[Path], None] | None, Callable[[Path], None] | None, list[str]]] = {
    # name: what is done to rank 0's copy, what to the last rank's ("on all": to all others'), parts of what rank 0 says
    "whole on all": (None, None, []),
    "torn on another": (None, torn, []),
    "without its manifest on another": (None, without_manifest, []),
    "late on another": (None, late, []),
    "older on another": (None, older, []),
    "newer by name on another": (None, newer, ["sees epoch 3"]),
    "missing on another": (None, missing, []),
    "of another network on another": (None, of_another_network, []),
    "torn on rank 0": (torn, None, ["epoch_0002: this checkpoint is damaged; going on from epoch_0001", SEES]),
    "without its manifest on rank 0": (without_manifest, None, ["this checkpoint is damaged", SEES]),
    "late on rank 0": (late, None, [SEES + "going on from epoch 1"]),
    "missing on rank 0": (missing, None, [SEES + "beginning anew"]),
    "missing on all": (missing, missing, []),
    "torn on all": (torn, torn, ["going on from epoch_0001"]),
    "all torn on rank 0": (both_torn, None, ["damaged", "damaged", SEES + "beginning anew"]),
    "torn on rank 0, missing on all others": (torn, missing, ["this checkpoint is damaged"]),
}
FAILS: dict[str, tuple[Callable[[Path], None], str]] = {
    "of another network on rank 0": (of_another_network, "a checkpoint of another network"),
}


def damaged_copies(place: Path, world: int) -> None:
    """For each case a copy of `place`/made for every rank, damaged as the case says."""
    for name, damages in {
        **{n: c[:2] for n, c in CASES.items()},
        **{n: (c[0], None) for n, c in FAILS.items()},
    }.items():
        for rank in range(world):
            shutil.copytree(place / "made", place / name / str(rank))
            damage = damages[0] if rank == 0 else damages[1] if rank == world - 1 or "on all" in name else None
            if damage is not None:
                damage(place / name / str(rank))


def resumed(rank: int, world: int, place: Path) -> dict[str, Any]:
    """Train whole, then two epochs, then go on from this rank's own copy of them in every case; what came of each."""
    undisturbed = train(place / "none", lambda _: None, print)
    train(place / "made", lambda _: None, print, epochs=2)
    if rank == 0:
        damaged_copies(place, world)
    distributed.barrier()
    found: dict[str, Any] = {"undisturbed": undisturbed}
    for name in [*CASES, *FAILS]:
        heard: list[dict[str, float]] = []
        said: list[str] = []
        weights, error = [], None
        try:
            weights = train(place / name / str(rank), heard.append, said.append)
        except InputError as refused:
            error = str(refused)
        epochs = [entry["epoch"] for entry in heard]
        found[name] = {"weights": weights, "heard": epochs, "said": said, "error": error}
    return found


class Drained(Exception):
    """The machine was taken away, right after the progress was saved."""


def within_an_epoch(rank: int, world: int, place: Path) -> dict[str, Any]:
    """Train whole; then until the last rank's notice, in the middle of epoch 2; then on from rank 0's checkpoint."""
    looks = count()
    # With three DDP sums in another order after its first step. AdamW divides by the gradient: where that is nearly
    # zero, as of a bias before a batch norm, the last bits decide a part of the step, on each processor another one.
    go = partial(train, kind="adamw" if world == 2 else "sgd")

    def announced() -> bool:  # asked after steps 1 and 3
        return next(looks) >= 1 and rank == world - 1

    def drained() -> None:
        raise Drained

    whole: list[dict[str, float]] = []
    heard: list[dict[str, float]] = []
    folder = place / "drained" / str(rank)
    undisturbed = go(place / "whole", whole.append, print)
    try:
        go(folder, lambda _: None, print, saving=Saving(announced=announced, saved=drained))
        raise AssertionError("the notice was not heeded")
    except Drained:
        written = sorted(path.name for path in folder.glob("epoch_*"))
    weights = go(folder, heard.append, print)
    losses = [[entry["loss_total"] for entry in entries] for entries in (whole, heard)]
    return {"written": written, "losses": losses, "weights": [undisturbed, weights]}


def runs(rank: int, world: int, place: Path) -> dict[str, Any]:
    """`cpn.run.run` with folders and data of this rank's own."""
    pack = open_pack(place / "scenes")
    config = with_values(config_from(RUN, "test"), {"train.batch_size": world}, "test")
    found: dict[str, Any] = {}

    def go(name: str, folder: Path, config: Config, pack: Pack) -> None:
        heard: list[float] = []
        try:
            result = run(
                config, pack, folder, cache=place / "cache", device=torch.device("cpu"), rank=rank, world=world,
                report=lambda entry: heard.append(entry["epoch"]), wrap=DistributedDataParallel,
            )  # fmt: skip
            found[name] = {"heard": heard, "result": sorted(result.to_json()) if result else []}
        except InputError as refused:
            found[name] = {"heard": heard, "error": str(refused)}
        distributed.barrier()

    go("trained", place / "run", config, pack)
    nowhere = place / "nowhere" / str(rank)
    go("finished for rank 0 alone", place / "run" if rank == 0 else nowhere, config, pack)
    go("finished for another alone", place / "run" if rank == world - 1 else nowhere, config, pack)
    go("other data on another", nowhere, config, pack if rank < world - 1 else open_pack(place / "others"))
    other = with_values(config, {"train.lr": 0.5}, "test")
    go("another configuration on another", nowhere, config if rank < world - 1 else other, pack)
    go("another run in rank 0's folder", place / "run", other, pack)
    for name, values in UNREACHED.items():
        go(name, place / name, with_values(config, values, "test"), pack)
    return found


def talks(rank: int, world: int) -> dict[str, Any]:
    """The words that ranks have for each other."""

    def raising(error: Exception) -> str:
        def work() -> None:
            raise error

        try:
            from_rank_0(work)
        except Exception as heard:
            return f"{type(heard).__name__}: {heard}"
        return "nothing was raised"

    mine = {"a": torch.full((2, 3), float(rank)), "b": torch.tensor(rank + 5), "c": torch.zeros(0, 2),
            "d": torch.tensor([True, rank == 0]), "e": torch.full((3,), 0.1 + rank, dtype=torch.bfloat16)}  # fmt: skip
    got = tensors_from_rank_0(mine if rank == 0 else {})
    return {
        "value": from_rank_0(lambda: {"from": rank, "list": [0.1, None]}),
        "errors": [raising(e) for e in (InputError("no such file"), WorkError("too large"), OSError("gone"))],
        "tensors": {name: [str(t.dtype), list(t.shape), t.float().flatten().tolist()] for name, t in got.items()},
        "values": values_of_all(-rank),
        "mean": mean_of_all(torch.tensor([float(rank), 2.0])).tolist(),
        "same": differing_ranks("x"),
        "differing": differing_ranks("x" if rank != 1 else "y"),
    }


def everything(rank: int, world: int, place: str) -> dict[str, Any]:
    """All that is looked at below, by one start of the processes."""
    folder = Path(place)
    one = one_training.all_cases(rank, world, folder / "one")
    return {
        "talks": talks(rank, world), "resumed": resumed(rank, world, folder), "runs": runs(rank, world, folder),
        "within": within_an_epoch(rank, world, folder),
        "one": one, "place": place,
    }  # fmt: skip


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    place = tmp_path_factory.mktemp("ranks")
    for name, seed in (("scenes", 0), ("others", 1)):
        write_scenes(place / name, ScenesConfig(train=8, val=1, size=32, seed=seed))
        prepare(place / name, ["train"])
    one_training.write_data(place / "one")
    return in_group(request.param, everything, str(place))


def test_all_go_on_from_one_checkpoint_or_all_fail(ranks: list[dict[str, Any]]) -> None:
    undisturbed = ranks[0]["resumed"]["undisturbed"]
    for name, (_, _, said) in CASES.items():
        found = [rank["resumed"][name] for rank in ranks]
        assert all(one["weights"] == found[0]["weights"] for one in found), f"{name}: weights differ"
        # Not to the last bit with three ranks: after its first step DDP sums in another order.
        assert found[0]["weights"] == pytest.approx(undisturbed, abs=1e-4), name
        assert all(one["heard"] == [1, 2, 3] for one in found), f"{name}: a report that not all ranks made"
        assert len(found[0]["said"]) == len(said), (name, found[0]["said"])
        assert all(part in line for part, line in zip(said, found[0]["said"], strict=True)), (name, found[0]["said"])
        assert not any(one["said"] for one in found[1:]), f"{name}: what rank 0 does not hear is lost"
    for name, (_, words) in FAILS.items():
        found = [rank["resumed"][name] for rank in ranks]
        assert all(words in one["error"] and one["heard"] == [] for one in found), name


def test_the_notice_of_one_rank_saves_within_an_epoch(ranks: list[dict[str, Any]]) -> None:
    """All stop after the same step and go on with rank 0's copy, each with its own sums of the losses."""
    for at, found in enumerate(rank["within"] for rank in ranks):
        assert found["written"] == (["epoch_0001", "epoch_0001_step_000001"] if at == 0 else [])
        undisturbed, weights = found["weights"]
        whole, heard = found["losses"]
        exact = len(ranks) == 2  # with three the last bits differ, see within_an_epoch
        assert weights == (undisturbed if exact else pytest.approx(undisturbed, abs=1e-6))
        assert heard == (whole if exact else pytest.approx(whole, abs=1e-6)) and len(heard) == EPOCHS
        assert weights == ranks[0]["within"]["weights"][1]


def test_a_run_is_finished_for_all_or_for_none(ranks: list[dict[str, Any]]) -> None:
    first, others = ranks[0]["runs"], [rank["runs"] for rank in ranks[1:]]
    for name in ("trained", "finished for rank 0 alone", "finished for another alone"):
        assert "metrics" in first[name]["result"] and all(rank[name]["result"] == [] for rank in others), name
        assert all(rank[name]["heard"] == [1] for rank in (first, *others)), f"{name}: a report that not all ranks made"
    refused = f"workers [{len(others)}] would train another run than worker 0"
    for name in ("other data on another", "another configuration on another"):
        assert all(rank[name]["error"].startswith(refused) for rank in (first, *others)), name
    name = "another run in rank 0's folder"
    assert all("holds run" in rank[name]["error"] and rank[name]["heard"] == [] for rank in (first, *others))


def test_parameters_that_no_loss_reaches_keep_nobody_waiting(ranks: list[dict[str, Any]]) -> None:
    for name in UNREACHED:
        assert all(rank["runs"][name]["heard"] == [1] for rank in ranks), name
        assert "metrics" in ranks[0]["runs"][name]["result"]


def furthest(found: dict[str, Any], alone: dict[str, Any]) -> float:
    """The largest difference of losses and of weights, each over the largest value."""
    losses = [(a[name], b[name]) for a, b in zip(found["losses"], alone["losses"], strict=True) for name in b]
    shares = []
    for pairs in (
        losses,
        *(list(zip(found["weights"][n], values, strict=True)) for n, values in alone["weights"].items()),
    ):
        shares.append(max(abs(a - b) for a, b in pairs) / max(1e-6, *(abs(b) for _, b in pairs)))
    return max(shares)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process makes of the same data."""
    place = tmp_path_factory.mktemp("alone") / "one"
    one_training.write_data(place)
    return one_training.all_cases(0, 1, place)


@pytest.mark.parametrize("case", one_training.CASES)
def test_several_workers_are_one_training(ranks: list[dict[str, Any]], alone: dict[str, Any], case: str) -> None:
    for rank in ranks:
        assert furthest(rank["one"][case], alone[case]) < (1e-4 if case == "fifty steps" else 1e-6)


def test_another_number_of_workers_goes_on_as_one(
    ranks: list[dict[str, Any]], alone: dict[str, Any], tmp_path: Path
) -> None:
    made = Path(ranks[0]["place"], "one")
    shutil.copytree(made / f"checkpoints-{len(ranks)}", tmp_path / "kept")
    shutil.rmtree(tmp_path / "kept" / "epoch_0005")
    assert (tmp_path / "kept" / "epoch_0004").exists()
    found = one_training.trained("fifty steps", open_pack(made), 0, 1, folder=tmp_path / "kept")
    assert furthest(found, alone["fifty steps"]) < 1e-4


def test_what_rank_0_sends_is_what_all_have(ranks: list[dict[str, Any]]) -> None:
    for at, rank in enumerate(rank["talks"] for rank in ranks):
        assert rank["value"] == {"from": 0, "list": [0.1, None]}
        assert rank["tensors"] == {
            "a": ["torch.float32", [2, 3], [0.0] * 6], "b": ["torch.int64", [], [5.0]],
            "c": ["torch.float32", [0, 2], []], "d": ["torch.bool", [2], [1.0, 1.0]],
            "e": ["torch.bfloat16", [3], [0.10009765625] * 3],
        }  # fmt: skip
        assert rank["errors"][:2] == ["InputError: no such file", "WorkError: too large"]
        assert rank["errors"][2] == ("OSError: gone" if at == 0 else "RuntimeError: rank 0: OSError: gone")
        assert rank["values"] == [-other for other in range(len(ranks))]
        assert rank["mean"] == [(len(ranks) - 1) / 2, 2]
        assert rank["same"] == [] and rank["differing"] == [1]


def test_alone_there_is_nobody_to_agree_with() -> None:
    assert rank_and_world() == (0, 1) and values_of_all(3) == [3] and differing_ranks("x") == []
    assert mean_of_all(torch.ones(2)).tolist() == [1, 1]
    assert from_rank_0(lambda: (1, 2)) == (1, 2)
    with pytest.raises(OSError, match="gone"):
        from_rank_0(lambda: (_ for _ in ()).throw(OSError("gone")))
    assert tensors_from_rank_0({"a": torch.ones(2)})["a"].tolist() == [1, 1]
    one, same, other = {"a": torch.ones(2)}, {"a": torch.ones(2)}, {"a": torch.ones(2, 1)}
    assert tensors_digest(one) == tensors_digest(same) != tensors_digest(other)
