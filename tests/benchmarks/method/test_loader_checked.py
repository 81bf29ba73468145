"""What `loader_checked` calls equal: a damage is found, and the file is left as it was."""

from pathlib import Path

import pytest

from benchmarks.method.loader_checked import damage_is_found
from benchmarks.photos.free_photographs import photographs
from cpn.core import checked
from cpn.data.voc import open_pack


def test_a_changed_byte_is_found_and_the_file_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPN_SCRATCH", str(tmp_path / "scratch"))
    photographs(tmp_path / "voc")
    pack = open_pack(tmp_path / "voc")
    before = (tmp_path / "voc/packed/train.arrow").read_bytes()
    assert damage_is_found(pack, "train")
    assert (tmp_path / "voc/packed/train.arrow").read_bytes() == before
    monkeypatch.setattr(checked, "file_digest", lambda path: "0" * 64)
    monkeypatch.setattr("cpn.data.voc.verified", lambda *_: True)
    assert not damage_is_found(pack, "train")
