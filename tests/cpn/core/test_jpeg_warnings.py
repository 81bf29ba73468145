"""JPEG files with damaged data are named; whole ones, names of any kind and other files are not."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cpn.core.errors import WorkError
from cpn.core.jpeg_warnings import JpegWarnings


def jpeg(seed: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 80, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def zeroed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(200) + data[middle + 200 :]


def test_damaged_files_are_named_and_no_others(tmp_path: Path) -> None:
    files = {
        "whole.jpg": jpeg(0),
        "progressive.jpg": jpeg(1, progressive=True),
        "a name\nof any kind \xfc.jpg": jpeg(2),
        "zeros \xfc.jpg": zeroed(jpeg(3)),
        "cut.jpg": jpeg(4)[:-500] + b"\xff\xd9",
        "again whole.jpg": jpeg(5),
    }
    with JpegWarnings() as warnings:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            warnings.add(tmp_path / name)
        result = warnings.result()
    assert set(result) == {tmp_path / "zeros \xfc.jpg", tmp_path / "cut.jpg"}
    assert result[tmp_path / "cut.jpg"] == "premature end of data segment"


def test_many_damaged_files_fill_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(zeroed(jpeg(0)))
    long = tmp_path / ("x" * 200)
    os.link(tmp_path / "a.jpg", long)
    with JpegWarnings() as warnings:
        for _ in range(400):  # 400 lines of more than 400 bytes
            warnings.add(long)
        assert list(warnings.result()) == [long]


def test_without_files_no_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", None)
    with JpegWarnings() as warnings:
        assert warnings.result() == {}


def test_a_process_that_dies_is_an_error(tmp_path: Path) -> None:
    with JpegWarnings() as warnings:
        warnings.add(tmp_path / "none.jpg")
        with pytest.raises(WorkError, match="damaged JPEG data ended with 1; give the same command again"):
            warnings.result()
