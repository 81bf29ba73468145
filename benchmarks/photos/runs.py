"""What the topic `photographs` runs, each piece in a folder of its own: CAM runs, inits of control_pcm, later stages.

A finished piece is read and not made again, and an unfinished one goes on with what it has. CPU seconds are those of
this process and the processes that it waited for, summed over attempts up to the last report of each: what an attempt
did after it is done again by the next.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.core.errors import InputError
from cpn.core.run_files import COUNTS, MODEL, RESULT

if TYPE_CHECKING:
    from cpn.config import Config
    from cpn.data.voc import Pack
    from cpn.models.network import CPN
    from cpn.propagation.walk_rule import WalkChoice
    from cpn.stages.inputs import Inputs

SYSTEMS: dict[str, dict[str, Any]] = {
    "cam_baseline": {"preset": "cam_baseline"},
    "control_pair": {"preset": "control_pair"},
    "control_pcm": {"preset": "control_pcm"},
    "cpn": {"network": {"prcm": False}},
    "cpn_prcm": {"network": {"prcm": True}},
}
"""Name -> the values laid over the presets official and photos. Between the two last, PRCM alone differs."""

CPU, CHOICE = "cpu.json", "walk.json"
CHUNK = 16
"""Images of a stage between two lines of progress."""
INIT_STEP = 1000
"""Between the seeds of two inits of control_pcm."""


@dataclass(frozen=True)
class Place:
    """Where pieces read and write, and what all of them share; plain values that travel to any process."""

    keep: Path
    data: str
    """Folder of the packed data set."""
    train: str
    """List that trains."""
    over: Mapping[str, Any]
    """Values laid over every configuration."""

    @property
    def cache(self) -> Path:
        """Superpixels and pretrained proxy."""
        return self.keep / "cache"


@dataclass(frozen=True)
class Piece:
    """One thing to run: `kind` is superpixels, run, init or stages."""

    kind: str
    system: str
    seed: int
    init: int = 0

    def __str__(self) -> str:
        """As it stands in lines of progress."""
        return f"{self.system} seed {self.seed}" + {"init": f" init {self.init}", "stages": " stages"}.get(
            self.kind, ""
        )


def packed_folder(data: Path, keep: Path) -> tuple[str, str]:
    """The packed data set's folder and its training list. Nothing is written into `data`: what is not packed there is
    packed in `keep`/data. InputError when the lists train and val with masks are not there.
    """
    from cpn.data.voc import open_pack
    from cpn.sources.packing import prepare
    from cpn.sources.voc_lists import has_list

    if keep.resolve().is_relative_to(data.resolve()):
        raise InputError(f"--keep {keep}: lies inside --data, which is not written to; give another folder")
    if (data / "packed" / "manifest.json").is_file():
        pack = open_pack(data)
    else:
        lists = ["train", "val", *(["trainaug"] if has_list(data, "trainaug") else [])]
        pack = prepare(data, lists, out=keep / "data")
    for name in ("train", "val"):
        if not pack.split(name).masked:
            raise InputError(f"--data {data}: list {name} has no masks, and mIoU is what is asked for; add them")
    return str(Path(pack.root).resolve()), "trainaug" if "trainaug" in pack.lists else "train"


def config_of(place: Place, system: str, seed: int) -> "Config":
    """The configuration of a run."""
    from cpn.config import config_from, merge

    own = SYSTEMS[system]
    # Loader processes would hide CPU seconds from `Clock`; no result depends on their number.
    data = {"root": place.data, "train": place.train, "workers": 0}
    presets = ["official", "photos", *([own["preset"]] if "preset" in own else [])]
    values = merge({**own, "preset": presets}, place.over)
    return config_from(merge(values, {"data": data, "train": {"seed": seed}}), "photographs")


def preset_system(place: Place) -> str:
    """Return which of the two CPN systems is the preset's own."""
    from cpn.config import config_from, merge

    values = merge({"preset": ["official", "photos"]}, place.over)
    return "cpn_prcm" if config_from(values, "photographs").network.prcm else "cpn"


def cpu_seconds() -> float:
    """CPU seconds of this process and of the children that it waited for."""
    return sum(os.times()[:4])


class Clock:
    """CPU seconds of a piece over all its attempts, kept in `folder`/cpu.json."""

    def __init__(self, folder: Path) -> None:
        from cpn.core.files import read_json

        self.path = folder / CPU
        self.before: float = read_json(self.path)["seconds"] if self.path.exists() else 0.0
        self.began = cpu_seconds()

    def save(self) -> None:
        """Keep what has been used up to now."""
        from cpn.core.files import write_json

        write_json(self.path, {"seconds": self.before + cpu_seconds() - self.began})


def minutes_of(folder: Path) -> float | None:
    """CPU minutes that were kept of a piece, None if none were."""
    from cpn.core.files import read_json

    return read_json(folder / CPU)["seconds"] / 60 if (folder / CPU).exists() else None


def say(piece: Piece, text: str) -> None:
    """A line of progress."""
    print(f"  {piece}: {text}", flush=True)


def epoch_listener(
    piece: Piece, clock: Clock, epochs: int | None, what: str = ""
) -> Callable[[Mapping[str, Any]], None]:
    """Return a training listener that saves the CPU seconds and prints a line an epoch; those of earlier attempts come
    first and at once. `epochs` None: their number is not known.
    """
    began, first = time.monotonic(), True
    at_first = 0

    def report(entry: Mapping[str, Any]) -> None:
        nonlocal first, at_first, began
        clock.save()
        epoch = int(entry["epoch"])
        if first:
            first, at_first = False, epoch - 1
        miou = f" miou_epoch {entry['miou_epoch']:.1f}" if "miou_epoch" in entry else ""
        left = ""
        if epochs is not None and epoch < epochs:
            seconds = (time.monotonic() - began) / (epoch - at_first) * (epochs - epoch)
            left = f"  about {seconds / 60:.0f} min left of it"
        of = "" if epochs is None else f" of {epochs}"
        say(piece, f"{what}epoch {epoch}{of} loss {entry['loss_total']:.3f}{miou}{left}")

    return report


def run_folder(place: Place, system: str, seed: int, pack: "Pack") -> Path:
    """Where a CAM run lies."""
    from cpn.config import run_key

    key = run_key(config_of(place, system, seed), pack.fingerprint)
    return place.keep / "runs" / f"{system}-{seed}-{key}"


def init_folder(place: Place, seed: int, init: int, pack: "Pack") -> Path:
    """Where an init of control_pcm lies: its key is that of the control, whose values decide the reading too."""
    return run_folder(place, "control_pcm", seed, pack) / f"init-{init}"


def carry_out(piece: Piece, place: Place) -> None:
    """Do one piece, as far as it is not done."""
    import torch

    from cpn.data.voc import open_pack

    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    pack = open_pack(place.data)
    {"superpixels": make_superpixels, "run": make_run, "init": make_init, "stages": make_stages}[piece.kind](
        piece, place, pack
    )


def make_superpixels(piece: Piece, place: Place, pack: "Pack") -> None:
    """The superpixels that all runs share; on their own, so that their CPU time is known."""
    from cpn.data.superpixels import maps_for

    config = config_of(place, "cpn", piece.seed)
    clock = Clock(place.cache)
    maps_for(config, pack.split(config.data.train), place.cache, lambda what, done, total: clock.save())
    clock.save()


def make_run(piece: Piece, place: Place, pack: "Pack") -> None:
    """Train and score a CAM run."""
    from cpn.run import run

    config = config_of(place, piece.system, piece.seed)
    folder = run_folder(place, piece.system, piece.seed, pack)
    clock = Clock(folder)
    report = epoch_listener(piece, clock, config.train.epochs)
    run(config, pack, folder, cache=place.cache, device=device(), report=report, say=lambda text: say(piece, text))
    clock.save()


def device() -> Any:
    """The GPU where there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def untrained_control(place: Place, seed: int, init: int, pack: "Pack") -> "CPN":
    """The network of control_pcm as its run with `seed` ends, in eval mode; refinement layers of init 0 are that
    run's, of others drawn anew.

    No loss of the control reaches f8_3, f8_4 and f9, and no random number of its training depends on them: backbone and
    classifier are those of cam_baseline with the same seed. The scale of X is measured before training, as by a run.
    """
    import torch

    from cpn.models.network import build_network
    from cpn.run import load_run, load_weights
    from cpn.training.cam_training import measure_x

    config = config_of(place, "control_pcm", seed)
    torch.manual_seed(seed + INIT_STEP * init)
    network = build_network(config.network, len(pack.classes) + 1)
    load_weights(network.backbone, config.network.weights, place.cache)
    network.to(device())
    measure_x(network, pack.split(config.data.train), config, device())
    trained, _, _ = load_run(run_folder(place, "cam_baseline", seed, pack) / MODEL, config.network.backbone)
    network.backbone.load_state_dict(trained.backbone.state_dict())
    network.fc8.load_state_dict(trained.fc8.state_dict())
    return network.eval()


def make_init(piece: Piece, place: Place, pack: "Pack") -> None:
    """Score one init of control_pcm as a run is scored."""
    from cpn.core.files import write_json
    from cpn.run import score_by_scale
    from cpn.scoring.counts import two_sums
    from cpn.scoring.selection import select_and_confirm, summarise

    folder = init_folder(place, piece.seed, piece.init, pack)
    config, clock = config_of(place, "control_pcm", piece.seed), Clock(folder)
    scored = pack.split(config.data.score)
    _, confirm = select_and_confirm(scored.ids, config.cam)
    network = untrained_control(place, piece.seed, piece.init, pack)
    score_by_scale(network, scored, config.cam, len(pack.classes) + 1, folder / COUNTS)
    summary = summarise(*two_sums(folder / COUNTS, frozenset(confirm)), config.cam)
    clock.save()
    write_json(folder / RESULT, {"metrics": summary.metrics})


def result_of(folder: Path) -> dict[str, Any]:
    """Read the result of an ended piece: `metrics`, or of a stage why it `failed`; empty before its end."""
    from cpn.core.files import read_json

    result: dict[str, Any] = read_json(folder / RESULT) if (folder / RESULT).exists() else {}
    return result


def stage_folders(place: Place, system: str, seed: int, pack: "Pack", beta: float) -> dict[str, Path]:
    """Each stage's folder after a finished CAM run."""
    from cpn.core.files import file_digest
    from cpn.stages.stage_manifest import stage_keys

    model = run_folder(place, system, seed, pack) / MODEL
    keys = stage_keys(file_digest(model), config_of(place, system, seed), pack.fingerprint, beta=beta)
    return {stage: place.keep / "stages" / f"{system}-{seed}-{stage}-{key}" for stage, key in keys.items()}


def make_stages(piece: Piece, place: Place, pack: "Pack") -> None:
    """Carry a finished CAM run on to DeepLab. A training that fails leaves its reason and is tried again next time."""
    from cpn.core.errors import WorkError
    from cpn.core.files import write_json
    from cpn.stages.inputs import Inputs
    from cpn.stages.pipeline import PER_IMAGE, TRAINED, score_pseudo_labels

    run = run_folder(place, piece.system, piece.seed, pack)
    config = config_of(place, piece.system, piece.seed)
    beta: float = result_of(run)["metrics"]["beta"]
    done: dict[str, Path] = {}
    for stage, folder in stage_folders(place, piece.system, piece.seed, pack, beta).items():
        if "metrics" not in result_of(folder):
            clock = Clock(folder)
            inputs = Inputs(run / MODEL, config, pack, place.cache, device(), dict(done), beta)
            metrics: dict[str, float] = {}
            if stage in PER_IMAGE:
                each_image(piece, stage, inputs, folder, clock)
                metrics = score_pseudo_labels(inputs, folder) if stage == "random_walk" else {}
            else:
                try:
                    metrics = TRAINED[stage](inputs, folder, epoch_listener(piece, clock, None, f"{stage} "))
                except WorkError as error:
                    write_json(folder / RESULT, {"failed": str(error)})
                    say(piece, f"{stage} failed: {error}")
                    return
            clock.save()
            write_json(folder / RESULT, {"metrics": metrics})
            say(piece, " ".join([stage, *(f"{k} {v:.1f}" for k, v in metrics.items() if "miou" in k)]))
        done[stage] = folder


def each_image(piece: Piece, stage: str, inputs: "Inputs", folder: Path, clock: Clock) -> None:
    """A stage that goes image by image."""
    from cpn.stages.pipeline import PER_IMAGE

    if stage == "random_walk":
        inputs = replace(inputs, walk=walk_choice(piece, inputs, folder))
    count, began = len(inputs.split), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, count, CHUNK):
        PER_IMAGE[stage](inputs, range(start, min(start + CHUNK, count)), folder)
        clock.save()
        done = min(start + CHUNK, count)
        if done % (4 * CHUNK) == 0 or done == count:
            left = (time.monotonic() - began) / done * (count - done) / 60
            say(piece, f"{stage} {done} of {count} images  about {left:.0f} min left of it")


def walk_choice(piece: Piece, inputs: "Inputs", folder: Path) -> "WalkChoice | None":
    """Choose the random walk's settings on select images, counted once; None where its settings are numbers."""
    from cpn.core.checked import read_typed
    from cpn.core.files import write_json
    from cpn.propagation.walk_rule import follows_run
    from cpn.stages.stage_manifest import WalkReport
    from cpn.stages.walk_choice import chosen, count_settings, grid_of

    if not follows_run(inputs.config.random_walk):
        return None
    if not (folder / CHOICE).exists():
        grid = grid_of(inputs)
        scored = range(len(inputs.pack.split(inputs.config.data.score)))
        write_json(folder / CHOICE, chosen(inputs, grid, count_settings(inputs, grid, scored)).to_json())
    recorded = read_typed(folder / CHOICE, WalkReport)
    say(piece, recorded.words)
    return recorded.choice
