"""Another method's files as a stage's folder: what is there stays, what is missing is written."""

from pathlib import Path
from platform.base.terminal import Terminal
from platform.run.import_stage import import_stage

import numpy as np

from cpn.config import config_from
from cpn.config.data import ScenesConfig
from cpn.data.map_files import load_maps, present_classes, save_maps
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.stages.imported_files import find_imported


def test_a_stopped_import_goes_on(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", ScenesConfig(train=4, val=2, size=32))
    pack = prepare(tmp_path / "scenes", ["train"])
    split = pack.split("train")
    for index, name in enumerate(split.ids):
        present = present_classes(split.labels[index])
        save_maps(tmp_path / "maps" / f"{name}.npz", np.full((len(present), 32, 32), 0.5), present)
    config = config_from({"preset": ["official", "scenes"], "data": {"train": "train"}}, "test")
    imported = find_imported(tmp_path / "maps", config, pack, maps=True, halved=False)
    kept = tmp_path / "work" / f"{split.ids[0]}.npz"
    save_maps(kept, np.zeros((1, 32, 32)), np.array([1]))
    before = kept.read_bytes()
    import_stage(imported, pack, "train", tmp_path / "work", Terminal())
    assert kept.read_bytes() == before
    assert (load_maps(tmp_path / "work" / f"{split.ids[3]}.npz")[0] == 0.5).all()
