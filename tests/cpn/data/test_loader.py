import numpy as np
import pytest
import torch

from cpn.config.data import DataConfig, ScenesConfig
from cpn.config.patches import HiddenValue, PatchesConfig
from cpn.data.loader import Batch, TrainingSamples, epoch_keys, epoch_order, load_batches
from cpn.data.voc import Pack, Split
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

DATA = DataConfig(crop=40, long_side=(30, 60))
PATCHES = PatchesConfig(kind="grid", K=(8, 16))
CPU = torch.device("cpu")
FIELDS = ("images", "valid", "hidden", "lam", "labels")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("loader") / "scenes"
    write_scenes(root, ScenesConfig(train=7, extra=0, val=1, size=32))
    return prepare(root, ["train"])


@pytest.fixture
def split(pack: Pack) -> Split:
    return pack.split("train")


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in FIELDS)


def joined(batches: list[Batch]) -> list[tuple[float, ...]]:
    """A set of batches as sorted rows of numbers, one per sample, whatever the order."""
    parts = [torch.cat([getattr(b, name).flatten(1).double() for b in batches]) for name in FIELDS if name != "lam"]
    return sorted(tuple(row.tolist()) for row in torch.cat(parts, dim=1))


def test_a_sample_depends_on_seed_epoch_and_index_alone(split: Split) -> None:
    samples = TrainingSamples(split, DATA, PATCHES, seed=5)
    first = samples[(2, 3)]
    np.random.seed(1)
    torch.manual_seed(1)
    samples[(0, 1)]
    for one, two in zip(first, TrainingSamples(split, DATA, PATCHES, seed=5)[(2, 3)], strict=True):
        assert np.array_equal(one, two)
    for other in (samples[(1, 3)], samples[(2, 4)], TrainingSamples(split, DATA, PATCHES, seed=6)[(2, 3)]):
        assert not np.array_equal(first[0], other[0])
    assert len(samples) == 7 and np.array_equal(first[4], split.labels[3])


def test_what_a_batch_holds(split: Split) -> None:
    samples = TrainingSamples(split, DATA, PATCHES, seed=5)
    (batch, *_) = load_batches(samples, epoch_keys(7, 3, 5, 0), 0, CPU)
    assert batch.images.shape == (3, 40, 40, 3) and batch.images.dtype == torch.uint8
    assert batch.valid.shape == batch.hidden.shape == (3, 40, 40)
    assert batch.valid.dtype == batch.hidden.dtype == torch.bool
    assert batch.labels.shape == (3, split.labels.shape[1]) and batch.labels.dtype == torch.float32
    assert batch.lam.dtype == torch.float32
    assert batch.most_classes == int(batch.labels.sum(dim=1).max())
    assert batch.lam.tolist() == pytest.approx((~batch.hidden).float().mean(dim=(1, 2)).tolist())
    order = epoch_order(7, 5, 0)
    assert np.array_equal(batch.labels.numpy(), split.labels[order[:3]])


def test_without_patches_nothing_is_hidden(split: Split) -> None:
    with_patches = TrainingSamples(split, DATA, PATCHES, seed=5)[(1, 2)]
    image, valid, hidden, lam, *_ = TrainingSamples(split, DATA, None, seed=5)[(1, 2)]
    assert not hidden.any() and lam == 1 and hidden.shape == (40, 40)
    assert np.array_equal(image, with_patches[0]) and np.array_equal(valid, with_patches[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_processes_change_nothing(split: Split, workers: int) -> None:
    samples = TrainingSamples(split, DATA, PATCHES, seed=1)
    keys = epoch_keys(7, 2, 1, 0)
    torch.manual_seed(3)
    here = list(load_batches(samples, keys, 0, CPU))
    drawn = torch.rand(1)
    torch.manual_seed(3)
    there = list(load_batches(samples, keys, workers, CPU))
    assert len(here) == len(there) == 3
    assert all(same(one, two) for one, two in zip(here, there, strict=True))
    # Dropout draws from the global generator next, so the loader must leave it the same in both.
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize("kind", ["blur", "noise"])
def test_the_filling_is_drawn_last_and_follows_the_sample_alone(split: Split, kind: HiddenValue) -> None:
    """Images, masks and lambda are those of the mean colour; the filling repeats, whoever loads it."""
    filled, plain = (PATCHES.model_copy(update={"hidden_value": each}) for each in (kind, "mean"))
    samples, keys = TrainingSamples(split, DATA, filled, seed=1), epoch_keys(7, 2, 1, 0)
    here = list(load_batches(samples, keys, 0, CPU))
    for batch, other in zip(here, load_batches(TrainingSamples(split, DATA, plain, 1), keys, 0, CPU), strict=True):
        assert same(batch, other) and other.filling is None
    fillings = [batch.filling for batch in here if batch.filling is not None]
    assert len(fillings) == 3 and all(f.shape == (2, 40, 40, 3) and f.dtype == torch.uint8 for f in fillings)
    for batch, filling in zip(load_batches(samples, keys, 2, CPU), fillings, strict=True):
        assert batch.filling is not None and torch.equal(batch.filling, filling)
    everything = torch.cat(fillings)
    assert len(torch.unique(everything, dim=0)) == len(everything), "every sample has its own"


def test_a_drawn_number_of_superpixels_follows_the_sample_alone(split: Split) -> None:
    patches = PatchesConfig(slic_on="crop", S_N_range=(4, 60))
    samples, keys = TrainingSamples(split, DATA, patches, seed=1), epoch_keys(7, 2, 1, 0)
    here = list(load_batches(samples, keys, 0, CPU))
    assert all(same(one, two) for one, two in zip(here, load_batches(samples, keys, 2, CPU), strict=True))


def test_the_order_is_a_permutation_by_seed_and_epoch() -> None:
    order = epoch_order(50, 1, 2)
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() == epoch_order(50, 1, 2).tolist()
    assert order.tolist() != epoch_order(50, 1, 3).tolist() and order.tolist() != epoch_order(50, 2, 2).tolist()


@pytest.mark.parametrize(("count", "size", "batches"), [(7, 3, 2), (6, 3, 2), (3, 3, 1), (2, 3, 0)])
def test_the_last_short_batch_is_dropped(count: int, size: int, batches: int) -> None:
    keys = epoch_keys(count, size, seed=4, epoch=9)
    assert [len(batch) for batch in keys] == [size] * batches
    visited = [index for batch in keys for _, index in batch]
    assert visited == epoch_order(count, 4, 9).tolist()[: size * batches]
    assert all(epoch == 9 for batch in keys for epoch, _ in batch)


def test_two_ranks_together_take_the_steps_of_one(split: Split) -> None:
    whole = epoch_keys(7, 4, seed=4, epoch=1) + epoch_keys(7, 4, seed=4, epoch=2)
    ranks = [epoch_keys(7, 4, 4, 1, rank, 2) + epoch_keys(7, 4, 4, 2, rank, 2) for rank in (0, 1)]
    for batch, first, second in zip(whole, *ranks, strict=True):
        assert len(first) == len(second) == 2 and sorted(first + second) == sorted(batch)
    samples = TrainingSamples(split, DATA, PATCHES, seed=4)
    parts = [b for keys in ranks for b in load_batches(samples, keys, 0, CPU)]
    assert joined(parts) == joined(list(load_batches(samples, whole, 0, CPU)))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_run_that_resumes_in_the_middle_sees_the_same_batches(split: Split, workers: int) -> None:
    samples = TrainingSamples(split, DATA, PATCHES, seed=3)
    keys = epoch_keys(7, 2, 3, 0) + epoch_keys(7, 2, 3, 1)
    whole = list(load_batches(samples, keys, 0, CPU))
    again = TrainingSamples(split, DATA, PATCHES, seed=3)  # as a new process makes it
    for start in (1, 3, 4):  # within the first epoch, at its end, within the second
        rest = list(load_batches(again, keys[start:], workers, CPU))
        assert len(rest) == 6 - start
        assert all(same(one, two) for one, two in zip(whole[start:], rest, strict=True))
    assert not same(whole[0], whole[3])  # the epochs differ
