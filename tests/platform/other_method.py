"""Another method's files for tiny scenes, and values with which they are at DeepLab in seconds."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cpn.data.map_files import present_classes, save_maps
from cpn.data.voc import Pack, encode_mask
from tests.platform.machines import Machines

SETS = (
    "preset=official", "preset=scenes", "data.train=train", "data.crop=32", "data.long_side=[28,40]", "data.workers=0",
    "network.weights=null", "affinity.epochs=1", "affinity.batch_size=4", "random_walk.radius=3", "crf.iterations=2",
    "deeplab.iterations=2", "deeplab.batch_size=4", "deeplab.width=8", "deeplab.scales=[1.0]",
    "resources.gpus_per_worker=0",
)  # fmt: skip


def write_method(folder: Path, pack: Pack) -> Path:
    """The truth of list train as score maps with noise, in `folder`/maps; and as labels in `folder`/labels."""
    split = pack.split("train")
    (folder / "labels").mkdir()
    rng = np.random.default_rng(0)
    for index, name in enumerate(split.ids):
        truth, present = split.mask(index), present_classes(split.labels[index])
        assert truth is not None
        there = truth[None] == present[:, None, None]
        noisy = np.clip(there * 0.4 + 0.6 * rng.random(there.shape), 0, 1)
        save_maps(folder / "maps" / f"{name}.npz", noisy, present)
        label = np.where(truth == 255, 0, truth).astype(np.uint8)
        (folder / "labels" / f"{name}.png").write_bytes(encode_mask(label))
    return folder / "maps"


def tasks_at_once(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Ray is not started: its tasks run at once in this process."""
    Machines(monkeypatch, place)

    @contextlib.contextmanager
    def cluster(*_: object) -> Iterator[list[dict[str, float]]]:
        yield [{"CPU": 1.0}]

    monkeypatch.setattr("platform.run.sweep_context.ray_cluster", cluster)
