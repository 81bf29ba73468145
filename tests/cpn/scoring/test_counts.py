"""Files of per-image counts: written and read image by image, whole or absent."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cpn.scoring.counts import counts_file, each_counts, load_counts, load_ids, save_counts, two_sums

IDS = ["a", "2007_ä", "c"]
COUNTS = np.arange(3 * 5 * 3 * 4).reshape(3, 5, 3, 4)


def test_counts_come_back(tmp_path: Path) -> None:
    path = tmp_path / "counts.npz"
    save_counts(path, IDS, COUNTS)
    ids, again = load_counts(path)
    assert ids == load_ids(path) == IDS and again.dtype == np.int64
    np.testing.assert_array_equal(again, COUNTS)
    each = list(each_counts(path))
    assert len(each) == 3 and all(one.dtype == np.int64 for one in each)
    np.testing.assert_array_equal(np.stack(each), COUNTS)


def test_numpy_reads_the_file_and_its_own_are_read(tmp_path: Path) -> None:
    path = tmp_path / "counts.npz"
    np.savez_compressed(path, ids=np.array(IDS), counts=COUNTS.astype(np.int32))  # as runs of earlier versions have it
    np.testing.assert_array_equal(np.stack(list(each_counts(path))), COUNTS)
    save_counts(path, IDS, COUNTS)
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file) == ["counts", "ids"] and file["counts"].dtype == np.int32


def test_two_sums_are_those_of_the_images_outside_and_inside(tmp_path: Path) -> None:
    save_counts(tmp_path / "c.npz", IDS, COUNTS)
    outside, inside = two_sums(tmp_path / "c.npz", {1})
    np.testing.assert_array_equal(outside, COUNTS[0] + COUNTS[2])
    np.testing.assert_array_equal(inside, COUNTS[1])
    with pytest.raises(ValueError, match="all of its images are on one side"):
        two_sums(tmp_path / "c.npz", {0, 1, 2})


@pytest.mark.parametrize("written", [[0, 1], [0, 1, 2, 2]])
def test_too_few_or_too_many_images_leave_no_file(tmp_path: Path, written: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"counts of {len(written)} images for 3"):  # noqa: SIM117
        with counts_file(tmp_path / "c.npz", IDS, COUNTS.shape[1:]) as add:
            for index in written:
                add(COUNTS[index])
    assert list(tmp_path.iterdir()) == []


def test_counts_of_another_shape_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"counts of shape \(3, 4\)"):  # noqa: SIM117
        with counts_file(tmp_path / "c.npz", IDS, COUNTS.shape[1:]) as add:
            add(COUNTS[0, 0])
    assert list(tmp_path.iterdir()) == []


def test_counts_in_another_order_are_refused_not_mixed_up(tmp_path: Path) -> None:
    path = tmp_path / "counts.npz"
    np.savez_compressed(path, ids=np.array(IDS), counts=np.asfortranarray(COUNTS.astype(np.int32)))
    with pytest.raises(ValueError, match="counts.npz: its counts lie in Fortran's order"):
        next(each_counts(path))


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    one = np.random.default_rng(0).integers(0, 1000, (61, 3, 81))

    def most(images: int) -> int:
        path, ids = tmp_path / f"{images}.npz", [str(i) for i in range(images)]
        tracemalloc.start()
        with counts_file(path, ids, one.shape) as add:
            for _ in ids:
                add(one)
        two_sums(path, range(images // 2))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    few, many = most(4), most(64)
    assert many < few + one.astype(np.int32).nbytes * 10 < few + 64 * one.astype(np.int32).nbytes
