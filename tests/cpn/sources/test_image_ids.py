from pathlib import Path

import pytest

from cpn.sources.image_ids import format_of, is_image_id, loose_name, pictures_by_name


@pytest.mark.parametrize("text", ["2007_000032", "my cat 1", "a.b", "hen (copy)", "Ünï", "-1", "a.png.x", "猫"])
def test_ids(text: str) -> None:
    assert is_image_id(text)


@pytest.mark.parametrize("text", ["", " a", "a ", ".", "..", "a/b", "a\\b", "a\0", "a\nb", "a\x1b", "a.jpg", "a.PNG"])
def test_no_ids(text: str) -> None:
    assert not is_image_id(text)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"BM", "BMP"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"GIF89a", "GIF"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\n<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com", "Git LFS pointer"),
        (b"", None),
        (b"hello", None),
    ],
)
def test_kinds_of_files(start: bytes, kind: str | None) -> None:
    assert format_of(start) == kind


def test_files_by_a_loose_name(tmp_path: Path) -> None:
    for name in ("A.JPG", "a.tif", "a.txt", "e\u0301.png"):
        (tmp_path / name).write_bytes(b"")
    assert pictures_by_name(tmp_path) == {"a": ["A.JPG", "a.tif"], loose_name("\u00e9"): ["e\u0301.png"]}
    assert pictures_by_name(tmp_path / "gone") == {}
