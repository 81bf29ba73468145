"""What a table reads besides the trained networks' own scores: files of others, pairs, time of patches, a panel."""

import time
import timeit
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpn.config import Config, in_keys, to_dotted, with_values
from cpn.config.patches import PatchesConfig
from cpn.core.checked import read_typed
from cpn.core.files import DamagedFile, digest, file_digest, write_bytes, write_json
from cpn.core.opencv import cv2
from cpn.core.progress import silent
from cpn.core.run_files import MODEL
from cpn.data.image_memory import CAM_CURE, image_of
from cpn.data.loader import TrainingSamples
from cpn.data.map_files import present_classes
from cpn.data.superpixels import maps_for
from cpn.data.voc import Pack, open_pack
from cpn.plots.panel import PanelRow, cam_panel
from cpn.plots.panel_choice import panel_choice
from cpn.plots.run_pictures import heat, strongest
from cpn.run import load_run
from cpn.scoring.cam import multi_scale_maps
from cpn.scoring.pair_scores import pair_counts, pair_row
from cpn.stages.stage_manifest import StageManifest

from ..base.paths import MANIFEST
from ..config.table_spec import RUN_COLUMNS, STAGE_COLUMNS, Row, row_config
from ..promotion.imported import import_candidate
from ..promotion.promotion import run_later_stages
from ..reports.table_result import ImportedRow
from ..run.run_stages import StageFailed
from ..run.stage_plan import needs
from ..run.sweep_context import SweepContext
from ..search.study import TrialRow

if TYPE_CHECKING:
    from cpn.data.loader import TrainingSamples


PAIR = "pair"
PAIR_VERSION = 1
"""Raised when the scores of pairs change for the same network."""
TIMED_IMAGES, ATTEMPTS = 20, 5


def on_ray(sweep: SweepContext, work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `work` returns, computed by a Ray task; here where storage is a bucket, for only here lie the
    networks.
    """
    if sweep.store.url is not None:
        return work(*arguments)
    import ray

    sweep.cluster()
    return ray.get(ray.remote(**needs("cam", sweep.spec.resources), max_retries=3)(work).remote(*arguments))


def read_pair(sweep: SweepContext, model: Path, pair: PatchesConfig, seed: int) -> dict[str, float]:
    """miou_o to recall_pair of a network on the scored list (pair_scores.py): computed once, by a Ray task."""
    config = sweep.config
    patches = {name.removeprefix("patches."): value for name, value in in_keys(to_dotted(pair, "patches.")).items()}
    key = digest([PAIR, PAIR_VERSION, file_digest(model), sweep.pack.fingerprint, patches, seed, config.data.score])
    folder = sweep.store.stage(PAIR, key)
    scores: dict[str, float] | None = None
    try:
        scores = read_typed(folder / MANIFEST, StageManifest).metrics
    except FileNotFoundError:
        pass
    except DamagedFile as error:
        sweep.terminal.warn(f"{error.path} is damaged; it is made again")
    if scores is None:
        sweep.terminal.say(f"showing the network {model.parent.name} pairs of {pair.kind} patches")
        scores = on_ray(sweep, pair_task, str(model), sweep.root, config.data.score, pair, seed)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / MANIFEST, StageManifest(stage=PAIR, key=key, metrics={**scores}).to_json())
    return scores


def pair_task(model: str, data_root: str, scored: str, pair: PatchesConfig, seed: int) -> dict[str, float]:
    """Return the scores of one network's pairs, on whatever device Ray gave this process."""
    import torch

    network, config, classes = load_run(Path(model))
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    split = open_pack(data_root).split(scored)
    return pair_row(pair_counts(network, split, pair, seed, len(classes) + 1, silent))


def patch_milliseconds(config: Config, pack: Pack, cache: Path) -> float:
    """Milliseconds of a core that the patches of a training sample take: the whole sample, less the same sample with
    nothing hidden; CPU time of this thread alone, which does all of the work meanwhile, so that neither what else runs
    on the machine nor the driver's own threads are counted; nor is making superpixel maps, which is done once (`cache`
    holds them).
    """

    if config.train.objective not in ("cpn", "pair_classification"):
        return 0.0  # nothing is hidden

    split = pack.split(config.data.train)
    maps = maps_for(config, split, cache)
    with_patches = TrainingSamples(split, config.data, config.patches, config.train.seed, maps)
    without = TrainingSamples(split, config.data, None, config.train.seed)
    keys = [(0, index) for index in range(min(TIMED_IMAGES, len(split)))]
    with one_thread():
        spent = [least(with_patches, key) - least(without, key) for key in keys]
    return 1000 * float(np.median(spent))


def least(samples: "TrainingSamples", key: tuple[int, int]) -> float:
    """Return the seconds of this thread's CPU that a sample takes, the least of several attempts: the others were held
    up.
    """
    return min(timeit.repeat(lambda: samples[key], timer=time.thread_time, number=1, repeat=ATTEMPTS))


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV and torch compute in the calling thread; afterwards in as many as before."""
    import torch

    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def stage_columns(manifests: Mapping[str, StageManifest]) -> dict[str, float]:
    """Return the columns that later stages answer, of their manifests."""
    numbers = {
        f"{stage}/{name}": value for stage, manifest in manifests.items() for name, value in manifest.metrics.items()
    }
    return {column: float(numbers[column]) for column in STAGE_COLUMNS if column in numbers}


def read_imported(
    sweep: SweepContext, name: str, row: Row, failures: dict[str, StageFailed]
) -> tuple[dict[int, dict[str, float]], ImportedRow]:
    """Return the columns of a row of another method's files by seed, and what they are. The files are the same for each
    seed: it is the later stages' own. A stage that failed is told in `failures`, its columns lack.
    """
    spec = sweep.spec
    assert spec.table is not None and row.imported is not None
    folder, first = Path(row.imported), spec.base_config.train.seed
    base = row_config(spec.base, name, row, spec.name)
    columns: dict[int, dict[str, float]] = {}
    for seed in range(first, first + spec.table.seeds):
        config = with_values(base, {"train.seed": seed}, f"row {name}")
        imported = import_candidate(
            folder, spec.name, config, sweep.pack, sweep.store,
            maps=row.maps is not None, halved=row.halved, keep_in=sweep.store.run, shown=sweep.terminal.progress,
        )  # fmt: skip
        chosen, files = imported.chosen, imported.files
        imported_row = ImportedRow(folder=str(folder), kind=files.kind, uid=chosen.uid, beta=chosen.beta)
        sweep.records.imported_started(
            chosen.uid, chosen.model, config, chosen.lineage, f"{files.kind} of {folder.name}", imported.metrics
        )
        columns[seed] = {column: value for column, value in imported.metrics.items() if column in RUN_COLUMNS}
        if spec.table.reads_stages:
            try:
                manifests = run_later_stages(sweep, chosen, sweep.pack, sweep.root, files)
            except StageFailed as error:
                sweep.terminal.warn(f"{name}, seed {seed}: {error}")
                failures[f"{chosen.uid}, seed {seed}"], manifests = error, error.manifests
            columns[seed] |= stage_columns(manifests)
    return columns, imported_row


def draw_table_panel(sweep: SweepContext, runs: dict[str, TrialRow]) -> Path:
    """Return the CAMs of every row's network for the same images side by side (Fig. 5), in the sweep's folder."""
    models = {
        name: (str(sweep.folder(row) / MODEL), sweep.method(row).model_dump(mode="json")) for name, row in runs.items()
    }
    names = [name for name in (sweep.spec.table.rows if sweep.spec.table else {}) if name in models]
    png: bytes = on_ray(sweep, panel_task, {name: models[name] for name in names}, sweep.root)
    target = sweep.paths.root / "panel.png"
    write_bytes(target, png)
    return target


def panel_task(models: dict[str, tuple[str, dict[str, Any]]], data_root: str) -> bytes:
    """PNG of image, truth and each network's strongest map of a present class."""
    import torch

    pack = open_pack(data_root)
    first = Config.model_validate(next(iter(models.values()))[1])
    split = pack.split(first.data.score)
    chosen = panel_choice(split)
    heats: list[dict[str, Any]] = [{} for _ in chosen]
    for name, (model, dump) in models.items():
        network, _, _ = load_run(Path(model))
        network.to("cuda" if torch.cuda.is_available() else "cpu")
        config = Config.model_validate(dump)
        for columns, index in zip(heats, chosen, strict=True):
            with image_of(split, index, CAM_CURE):
                present = present_classes(split.labels[index])
                columns[name] = heat(strongest(multi_scale_maps(network, split.image(index), present, config.cam)))
    rows = [
        PanelRow(split.ids[index], split.image(index), split.mask(index), columns, why)
        for columns, (index, why) in zip(heats, chosen.items(), strict=True)
    ]
    return cam_panel(rows, ["background", *pack.classes], f"{first.data.score}: CAM by system")
