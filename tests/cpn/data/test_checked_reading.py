"""What a training reads is held against its digests at its start, once a machine, and not for every sample."""

from pathlib import Path

import pytest

from cpn.config import config_from
from cpn.config.data import ScenesConfig
from cpn.core import checked
from cpn.data.loader import TrainingSamples
from cpn.data.superpixels import maps_for
from cpn.data.voc import open_pack
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

CONFIG = {
    "data": {"train": "train", "crop": 40, "long_side": [30, 60], "workers": 0},
    "patches": {"kind": "superpixel", "S_N": 20},
}


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose digest is computed to check it, in order."""
    names: list[str] = []
    compute = checked.file_digest

    def file_digest(path: Path) -> str:
        names.append(path.name)
        return compute(path)

    monkeypatch.setattr(checked, "file_digest", file_digest)
    return names


def start(root: Path, cache: Path) -> TrainingSamples:
    """What a training does before its first sample."""
    config = config_from(CONFIG, "the test")
    split = open_pack(root).split("train")
    return TrainingSamples(split, config.data, config.patches, 0, maps_for(config, split, cache))


def test_digests_are_computed_once_and_never_for_a_sample(
    tmp_path: Path, digested: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = tmp_path / "scenes", tmp_path / "cache"
    write_scenes(root, ScenesConfig(train=5, extra=0, val=1, size=32))
    prepare(root, ["train"])
    start(root, cache)  # makes the superpixels
    maps = sorted(path.name for path in cache.rglob("*.arrow"))
    monkeypatch.setenv("CPN_SCRATCH", str(tmp_path / "another machine"))
    digested.clear()
    samples = start(root, cache)
    everything = ["train.arrow", "train.index.arrow", *maps]
    assert maps and sorted(digested) == sorted(everything)
    digested.clear()
    for epoch in range(3):
        for index in range(len(samples)):
            samples[(epoch, index)]
    start(root, cache)
    assert digested == [], "neither for a sample nor at the next start"
    pack = open_pack(root)
    pack.check(["train"], again=True)
    assert sorted(digested) == ["train.arrow", "train.index.arrow"], "as a sweep's start asks"
    digested.clear()
    next(cache.rglob("*.arrow")).touch()
    start(root, cache)
    assert len(digested) == 1, "one that was touched since"
