"""Results that were kept under keys of paths and names, before keys held contents: taken over, or told in one line.

Nobody kept the digest of what such a run started from. It counts as the same while neither the file nor the user's own
code has been touched since its first epoch; else it is made anew.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cpn.config import Config, key_by_name, run_key, with_values
from cpn.core.checked import read_typed
from cpn.core.contents import is_code, own_modules
from cpn.core.files import DamagedFile, read_json, whole_folder, write_json
from cpn.core.run_files import RESULT
from cpn.scoring.finished_run import finished_run
from cpn.stages.stage_manifest import StageManifest, stage_keys

from ..base import bucket_sync
from ..base.paths import MANIFEST, Storage

Say = Callable[[str], None]


def take_over_run(store: Storage, config: Config, fingerprint: str, say: Say) -> bool:
    """Return whether the run is there now, taken over from an earlier key; `say` hears of it, or why it is not
    taken.
    """
    key = run_key(config, fingerprint)
    folder = store.run(key)
    if folder.exists():
        return False
    for spelt in spellings(config):
        source = store.run(key_by_name(spelt, fingerprint))
        if source == folder:
            return False
        bucket_sync.download_run(store, source, say)
        result = finished_run(source)
        if result is None:
            continue
        began = min((float(entry["time"]) for entry in result.history if "time" in entry), default=0.0)
        if not unchanged(config, began, source, say):
            return False
        copy_under(source, folder, RESULT, {"key": key, "earlier_key": source.name})
        bucket_sync.upload(store, folder)
        say(f"run {source.name}, kept under a key of names, is taken over as {key}")
        return True
    return False


def take_over_stage(
    store: Storage, config: Config, fingerprint: str, beta: float, folder: Path, begun: StageManifest, say: Say
) -> bool:
    """Take over the folder of a stage; `begun` is the part of its manifest that tells stage, key and inputs.

    Not from a bucket, where a stage's files lie in parts: there it is made anew.
    """
    if store.url is not None:
        return False
    for spelt in spellings(config):
        key = stage_keys(begun.inputs["model"], spelt, fingerprint, beta, dict)[begun.stage]
        source = store.stage(begun.stage, key)
        if source == folder:
            return False
        if (source / MANIFEST).exists():
            try:
                manifest = read_typed(source / MANIFEST, StageManifest)
            except DamagedFile as error:
                say(f"{error.path} is damaged; stage {begun.stage}, kept there under a key of names, is made anew")
                continue
            began = manifest.finished - manifest.seconds
            if not unchanged(config, began, source, say):
                return False
            begun_values = begun.model_dump(include={"stage", "key", "inputs"})
            copy_under(source, folder, MANIFEST, {**begun_values, "earlier_key": manifest.key})
            say(f"stage {source.name}, kept under a key of names, is taken over as {folder.name}")
            return True
    return False


def spellings(config: Config) -> Iterator[Config]:
    """Yield the configuration with its weights file named as it may have been when a path was part of the key."""
    weights = config.network.weights
    if weights is None or not os.path.isfile(weights):
        yield config
        return
    for path in dict.fromkeys([weights, os.path.relpath(weights), f"./{os.path.relpath(weights)}"]):
        yield with_values(config, {"network.weights": path}, "an earlier key")


def unchanged(config: Config, since: float, source: Path, say: Say) -> bool:
    """Return whether what the configuration names was last touched before `since`; else `say` hears what was not."""
    files = [Path(name) for name in (config.network.weights, config.irn.weights) if name and os.path.isfile(name)]
    for backbone in (config.network.backbone, config.irn.backbone):
        files += [module.file for module in (own_modules(backbone or "") if is_code(backbone) else ())]
    for file in files:
        stat = file.stat()
        touched = max(stat.st_mtime, stat.st_ctime)
        if touched > since:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(touched))
            say(
                f"{source.name} holds this under a key of names, but {file} was changed after it began ({when}): it is "
                "made anew"
            )
            return False
    return True


def copy_under(source: Path, folder: Path, manifest: str, changed: Mapping[str, Any]) -> None:
    """Give the files of `source` another folder, whole or not at all; its manifest with values `changed`."""
    with whole_folder(folder) as whole:
        for path in source.rglob("*"):
            target = whole / path.relative_to(source)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif path.name != manifest or path.parent != source:
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(path, target)
                except OSError:  # a disk without links
                    shutil.copyfile(path, target)
        write_json(whole / manifest, {**read_json(source / manifest), **changed})
