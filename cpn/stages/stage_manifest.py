"""The key of a later stage, and its manifest, `manifest.json`, which platform/run/run_stages.py writes last."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cpn.config import Config, sections_in_keys
from cpn.core.contents import by_content
from cpn.core.files import digest, file_digest
from cpn.propagation.walk_rule import WalkChoice
from cpn.scoring.run_manifest import Number, Numbers


class WalkSetting(BaseModel):
    """A setting of the random walk that was tried on masks. Metrics are in percent."""

    model_config = ConfigDict(frozen=True, extra="allow")

    alpha: Number | None
    """None for IRN's walk, which has none."""
    logt: int
    miou_select: Number
    miou_confirm: Number


class WalkReport(BaseModel):
    """What was chosen for the random walk, `walk.json`, and why. Metrics are in percent."""

    model_config = ConfigDict(frozen=True, extra="allow")

    choice: WalkChoice
    rule: WalkChoice | None = None
    """What the rule alone would have chosen."""
    metrics: Numbers = {}
    """The choice as numbers; mIoU of the walk, of the rule alone and of the CAM, on select and confirm images."""
    grid: tuple[WalkSetting, ...] = ()
    """Every setting that was tried; none without masks."""
    words: str
    """For people."""

    def to_json(self) -> dict[str, Any]:
        """Give the plain values that the file holds: those that were given, and no others."""
        return self.model_dump(mode="json", exclude_unset=True)


class StageManifest(BaseModel):
    """What a finished stage is, and what it reached. Metrics are in percent.

    A manifest of an earlier version lacks what that did not write; keys of a later one are kept as they are.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    stage: str
    key: str
    """Follows from the settings, the inputs' keys and the data: see `stage_keys`."""
    inputs: dict[str, str] = {}
    """Keys of the stages before it, and `model`, the digest of the CAM network or of the imported list."""
    config: dict[str, Any] = {}
    """The stage's own settings, as plain values."""
    metrics: Numbers
    """Of the pseudo labels or predictions; none where there are no masks."""
    walk: WalkReport | None = None
    """Of the random walk, where its numbers were chosen."""
    history: tuple[Numbers, ...] = ()
    """What a training reported after each epoch."""
    seconds: float = 0.0
    finished: float = 0.0
    """When, in seconds since 1970."""
    files: str | None = None
    """The digest of files.json; earlier versions and buckets have none."""
    earlier_key: str | None = None
    """The key of names under which an earlier version kept it."""

    def to_json(self) -> dict[str, Any]:
        """Give the plain values that the file holds: those that were given, and no others."""
        return self.model_dump(mode="json", exclude_unset=True)


STAGE_FIELDS = {
    "crf": ("map_power", "fg_threshold", "bg_threshold", "gt_prob", "crf"),
    "random_walk": ("walk_radius", "walk_beta", "walk_logt", "walk_threshold"),
}
"""The fields of section irn that two stages read; stage affinity reads all the others."""


def irn_settings(stage: str, config: Config) -> dict[str, Any]:
    """Return what a stage reads of section irn, as plain JSON values."""
    chosen = STAGE_FIELDS.get(stage)
    others = [name for fields in STAGE_FIELDS.values() for name in fields]
    dump = config.irn.model_dump(mode="json")
    return {name: value for name, value in dump.items() if (name in chosen if chosen else name not in others)}


def masks_digest(folder: str) -> str:
    """Digest a folder of masks, for keys; where it is not there, its name: reading it raises the error."""
    files = sorted(Path(folder).glob("*.json"))
    return _digest(folder, tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=8)
def _digest(folder: str, files: tuple[tuple[str, int, int], ...]) -> str:
    """Read once while no file changes: a data set has thousands."""
    if not files:
        return folder
    return digest({name: file_digest(Path(folder) / name) for name, _, _ in files})


VERSIONS = {"cam": 2, "crf": 1, "affinity": 2, "random_walk": 1, "instance_masks": 1, "deeplab": 2}
"""Raised when a stage's results change for the same inputs; part of its key."""


def stage_settings(stage: str, config: Config) -> tuple[str, dict[str, Any]]:
    """Return what a stage reads of its own: the section's name and the values in it, as plain JSON values."""
    if config.random_walk.kind == "irn" and stage in ("crf", "affinity", "random_walk"):
        return "irn", irn_settings(stage, config)
    return stage, config.model_dump(mode="json")[stage]


def stage_keys(
    model_digest: str,
    config: Config,
    fingerprint: str,
    beta: float | None = None,
    known: Callable[[dict[str, Any]], dict[str, Any]] = by_content,
    imported: str | None = None,
) -> dict[str, str]:
    """Return the key of every stage: its version, its own settings, and the keys of what it reads.

    So a changed setting makes anew what depends on it and nothing before it. The run's `beta` is in the keys of the
    stages that follow it, and in no other. Names of `ADDED` are in no key at the value that does what was done before.
    Weights and a user's own code are `known` by their content; `known=dict` gives the keys as they were until then, by
    path and name. Where another method's files take the place of stage `imported` (imported_files.py), `model_digest`
    is that of their list, and the stages before have no key. Raises ValueError where a stage follows beta and none is
    given.
    """
    dump = sections_in_keys(config)
    read = {stage: stage_settings(stage, config) for stage in VERSIONS}
    own = {
        stage: known({name: dump[section][name] for name in settings if name in dump[section]})
        for stage, (section, settings) in read.items()
    }
    augmentation = {name: dump["data"][name] for name in ("train", "crop", "jitter", "flip")}
    start = {**known(dump["network"]), "seed": dump["train"]["seed"], "precision": dump["train"]["precision"]}
    split = {name: dump["cam"][name] for name in ("confirm_share", "confirm_seed")}
    # IRN has a crop and a flip of its own and no jitter.
    learning = [augmentation, start] if config.random_walk.kind == "affinity" else ["irn", start]
    keys: dict[str, str] = {}
    affinity, gives_way = config.random_walk.kind == "affinity", config.random_walk.keep_if == "better"
    labelled = (config.crf.alpha_low, config.crf.alpha_high) if affinity else (config.irn.map_power,)
    labels = [{"beta": beta}] if "auto" in labelled else []
    walks: list[Any] = [{"beta": beta}] if gives_way or (affinity and config.random_walk.alpha == "auto") else []
    walks += ["keep_if better"] if gives_way and not affinity else []  # section irn has no such name
    if beta is None and labels + walks and imported != "random_walk":
        raise ValueError("a stage follows the run's beta, but none was given")

    def add(stage: str, *inputs: Any) -> None:
        keys[stage] = digest([stage, VERSIONS[stage], *inputs])

    if imported == "random_walk":
        add("random_walk", "imported", model_digest, fingerprint, dump["data"]["train"], dump["data"]["score"], split)
    else:
        add("cam", model_digest, fingerprint, "imported" if imported else own["cam"], dump["data"]["train"])
        add("crf", keys["cam"], own["crf"], *labels)
        add("affinity", keys["crf"], own["affinity"], *learning)
        add("random_walk", keys["affinity"], own["random_walk"], dump["data"]["score"], split, *walks)
    last, masks = keys["random_walk"], config.instance_masks
    if masks.folder is not None:
        add("instance_masks", last, masks_digest(masks.folder), masks.share)
        last = keys["instance_masks"]
    add("deeplab", last, own["deeplab"], augmentation, start, dump["data"]["val"])
    return keys
