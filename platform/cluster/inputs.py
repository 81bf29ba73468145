"""What a sweep needs before its first trial: the packed data and the pretrained weights, made or checked."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from cpn.config import Config
from cpn.core.errors import InputError
from cpn.core.object_storage import is_url
from cpn.core.progress import Progress, shown_progress
from cpn.data.packed_copy import data_folder, publish
from cpn.data.voc import Pack, open_pack
from cpn.models.backbone import BACKBONES, batch_norm_note, build_backbone, is_known
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

from ..base.bucket_sync import download_proxy, upload_proxy
from ..base.paths import Storage

if TYPE_CHECKING:  # torch is imported where it is used
    from cpn.models.weights import WeightsReport

Say = Callable[[str], None]


def data_root(config: Config, store: Storage) -> str:
    """Return where the data lie: `data.root`, or the folder of the scenes that `data.scenes` describes.

    Raises InputError when the configuration names neither.
    """
    if config.data.root is not None:
        return config.data.root if "://" in config.data.root else str(Path(config.data.root).absolute())
    if config.data.scenes is None:
        raise InputError(
            "data.root: no data set is named; --set data.root=FOLDER in VOC 2012 layout, or --set preset=scenes"
        )
    return str(store.cache / config.data.scenes.folder_name)


def shared_data(config: Config, store: Storage, pack: Pack) -> str:
    """Return where every node reads the data from: scenes that were made here are put into the bucket, if there
    is one.
    """

    root = data_root(config, store)
    if store.url is None or config.data.root is not None:
        return root
    publish(pack, store.there(Path(root)))
    return store.there(Path(root))


def prepare_data(
    config: Config, store: Storage, say: Say, shown: Callable[[], AbstractContextManager[Progress]] = shown_progress
) -> Pack:
    """Make the scenes if the data are synthetic, check and pack the data set if it isn't packed; open it. `shown` gives
    what hears of the progress.

    Raises InputError in one line for whatever is wrong with the folder.
    """
    root = data_root(config, store)
    if is_url(root):
        pack = open_pack(data_folder(root))
        pack.check(again=True)
        return pack
    if config.data.root is None:
        assert config.data.scenes is not None
        if not Path(root).exists():
            say(f"making {config.data.scenes.train + config.data.scenes.val} synthetic scenes")
        write_scenes(Path(root), config.data.scenes)
    lists = list(dict.fromkeys([config.data.train, config.data.score, config.data.val]))
    worked = False

    def warn(line: str) -> None:
        say(f"warning: {line}")

    with shown() as progress:

        def report(what: str, done: int, total: int) -> None:
            nonlocal worked
            worked = True
            progress(what, done, total)

        pack = prepare(Path(root), lists, progress=report, scored=[config.data.score, config.data.val], say=warn)
    if not pack.checkable:
        warn(
            f"{root}/packed: was packed by an earlier version, without digests of its files, which cannot be checked; "
            f"python -m cpn.prepare {root} packs it anew"
        )
    if worked:
        for line in (line for name in (*lists, None) for line in pack.notes(name) if line.startswith("warning: ")):
            say(line)
    return pack


def check_objective(config: Config, pack: Pack, objective: str, say: Say) -> None:
    """Say what a data set without masks leaves out. Raises InputError when it leaves out the objective."""
    score, val = pack.split(config.data.score), pack.split(config.data.val)
    if objective == "miou" and not score.masked:
        raise InputError(
            f"data.score: list {score.name!r} has no masks, so there is no miou to search by; add them, or "
            "--set objective=mask_free"
        )
    if objective == "mask_free" and not set(score.ids).isdisjoint(pack.split(config.data.train).ids):
        say(
            f"note: list {score.name} is trained on ({config.data.train} holds some of it), where classification is "
            "easy: mask_free says more on a list that is not, data.score"
        )
    if not score.masked:
        say(f"list {score.name} has no masks: pseudo labels are made, and not scored")
    if not val.masked:
        say(f"list {val.name} has no masks: the segmentation network is trained, and not scored")


def look_at_data(config: Config, objective: str, say: Say) -> None:
    """Check what a dry run can tell of the data without packing them: not there, not packed, or without masks.

    Raises InputError when packed data leave out the objective.
    """

    root = config.data.root
    if root is None:
        return
    try:
        pack = open_pack(root)
    except InputError as error:
        say(f"data: not looked at: {error}")
        return
    if {config.data.train, config.data.score, config.data.val} <= set(pack.lists):
        check_objective(config, pack, objective, say)


def check_weights(config: Config, store: Storage, say: Say) -> None:
    """Look at the backbone and its weights file before data are packed for it, and warn where it has none. Makes
    nothing.

    Raises InputError when there is no such backbone, a user's own fails, or the file is missing, damaged, of another
    network, or of numbers too large for their sums.
    """
    # A user's own backbone may load its weights itself.
    if config.network.weights is None and is_known(config.network.backbone):
        say(
            f"warning: network.weights is not set, {config.network.backbone} starts from random numbers, which no "
            "published result does: --set network.weights=FILE; python -m cpn.weights --help says where to get it"
        )
    from_file = config.network.weights not in (None, "scenes")
    if not from_file and config.network.backbone in BACKBONES:
        return
    from cpn.models.weights import refuse_overflow
    from cpn.run import load_weights  # torch: what names no file does without

    backbone = build_backbone(config.network.backbone)
    if note := batch_norm_note(backbone, config.network.backbone):
        say(f"note: {note}")
    if from_file:
        report = load_weights(backbone, config.network.weights, store.cache)
        warn_of_surplus(report, say)
        if report is not None and config.network.backbone in BACKBONES:  # others may not take images of any size
            refuse_overflow(backbone, report.path, "features", "give a file of a training that went well")


def warn_of_surplus(report: "WeightsReport | None", say: Say) -> None:
    """Say in one line that a weights file has layers of a larger network."""
    if report is not None and (warning := report.warning()):
        say(f"warning: {warning}")


def prepare_weights(config: Config, store: Storage, say: Say) -> None:
    """Train the pretrained proxy if the configuration asks for it; check that the weights files fit.

    Raises InputError when a weights file is missing or of another network, or IRN's walk is asked for on a backbone
    that it cannot use.
    """
    from cpn.run import load_weights
    from cpn.stages.irn_stages import check_irn
    from cpn.training.pretrained_proxy import drop_damaged, make_standin, standin_path

    download_proxy(store, config)
    if config.network.weights == "scenes":
        drop_damaged(store.cache, lambda line: say(f"warning: {line}"))
    if config.network.weights == "scenes" and not standin_path(store.cache).exists():
        say("pretraining the backbone on images of scene parts, once; its weights are kept")
        make_standin(
            store.cache, lambda entry: say(f"  pretraining: epoch {entry['epoch']:.0f}, loss {entry['loss_total']:.3f}")
        )
    if config.network.weights is not None:
        load_weights(build_backbone(config.network.backbone), config.network.weights, store.cache)
    warn_of_surplus(check_irn(config, store.cache), say)
    upload_proxy(store, config)
