"""Files of maps and labels: they come back, and damaged ones are named."""

from pathlib import Path

import numpy as np
import pytest

from cpn.core.files import DamagedFile
from cpn.data.map_files import load_label, load_maps, present_classes, save_label, save_maps


def test_present_classes_count_from_one() -> None:
    assert present_classes(np.array([1, 0, 0, 1], np.float32)).tolist() == [1, 4]
    assert present_classes(np.zeros(3, np.float32)).tolist() == []


def test_maps_come_back_to_half_precision(tmp_path: Path) -> None:
    maps = np.random.default_rng(1).random((3, 6, 5)).astype(np.float32)
    maps[0, 0] = [0, 1, 0.5, 2**-10, 0.25]
    save_maps(tmp_path / "cams" / "a.npz", maps, np.array([1, 7, 20]))
    loaded, present = load_maps(tmp_path / "cams" / "a.npz")
    assert loaded.dtype == np.float32 and present.dtype == np.int64 and present.tolist() == [1, 7, 20]
    np.testing.assert_array_equal(loaded, maps.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(loaded, maps, atol=2**-12)
    save_maps(tmp_path / "empty.npz", maps[:0], np.array([], np.int64))
    loaded, present = load_maps(tmp_path / "empty.npz")
    assert loaded.shape == (0, 6, 5) and present.tolist() == []


def test_no_pickle_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", maps=np.array([{"harm": 1}], dtype=object), present=np.array([1]))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_maps(tmp_path / "a.npz")


def test_a_label_comes_back(tmp_path: Path) -> None:
    label = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save_label(tmp_path / "a.png", label)
    np.testing.assert_array_equal(load_label(tmp_path / "a.png"), label)


@pytest.mark.parametrize("data", [b"", b"no picture", None], ids=["empty", "text", "cut"])
def test_a_damaged_label_is_named(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "a.png"
    save_label(path, np.zeros((16, 16), np.uint8))
    path.write_bytes(path.read_bytes()[:-20] if data is None else data)
    with pytest.raises(DamagedFile) as refused:
        load_label(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_a_missing_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match="gone.png"):
        load_label(tmp_path / "gone.png")
