"""One run from Python: data and pretrained weights made where they are missing, then trained and scored.

    from cpn import config_from, train_and_score
    manifest = train_and_score(config_from({"data": {"root": "/data/VOC2012"}}), "runs/first")

The command with the same effect is `python -m platform.train`, which keeps runs where sweeps find them.
"""

from pathlib import Path

import torch

from cpn.config import Config
from cpn.core.errors import InputError, to_stderr
from cpn.core.object_storage import is_url
from cpn.data.voc import Pack, open_pack
from cpn.run import run
from cpn.scoring.run_manifest import RunManifest
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.training.loop import Report
from cpn.training.pretrained_proxy import drop_damaged, make_standin


def train_and_score(
    config: Config,
    folder: str | Path,
    *,
    cache: str | Path | None = None,
    device: str | None = None,
    report: Report = lambda entry: None,
) -> RunManifest:
    """Train and score the CAM network of `config` in `folder`; returns its manifest. The same call again resumes an
    unfinished run, and only reads a finished one.

    `cache` (default: `cache` beside `folder`) keeps synthetic scenes, their pretrained weights and superpixel maps for
    several runs. `device` is the GPU where there is one. `report` hears of every epoch: epoch, loss_total, miou_epoch
    and the like. Raises InputError for wrong data or settings, or a folder that holds another run; WorkError where the
    training fails.
    """
    place = Path(folder).absolute()
    cache_folder = place.parent / "cache" if cache is None else Path(cache).absolute()
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    pack = pack_of(config, cache_folder)
    if config.network.weights == "scenes":
        drop_damaged(cache_folder, to_stderr)
        make_standin(cache_folder, lambda entry: None)
    manifest = run(config, pack, place, cache=cache_folder, device=chosen, report=report)
    assert manifest is not None, "the only worker is rank 0"
    return manifest


def pack_of(config: Config, cache: Path) -> Pack:
    """Pack the data of `config` unless they are packed already, and open them; synthetic scenes are made in `cache`.

    Raises InputError when the configuration names no data, or there is something wrong with them.
    """
    data = config.data
    if data.root is not None and is_url(data.root):
        return open_pack(data.root)
    if data.root is not None:
        root = Path(data.root)
    elif data.scenes is not None:
        root = cache / data.scenes.folder_name
        write_scenes(root, data.scenes)
    else:
        raise InputError("data.root: no data set is named; give a folder in VOC 2012 layout, or the preset scenes")
    lists = list(dict.fromkeys([data.train, data.score, data.val]))
    return prepare(root, lists, scored=[data.score, data.val], say=to_stderr)
