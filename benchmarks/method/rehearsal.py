"""The true size, rehearsed on a CPU: what a run on VOC does, with ResNet38 at 448 pixels, on two photographs.

    python -m benchmarks rehearsal --json

Preset `official`. First one training step of batch 1 of each network: CPN with its three branches, AffinityNet, IRN,
DeepLab. Then two photographs of VOC's size (500 x 375, of those in scikit-image, with VOC's labels and a made-up
ellipse as mask) go through the product's own code: packing, superpixels, a CAM run, and every stage to DeepLab, which
is tested at its six scales, mirrored, and refined by the CRF. Nothing is downloaded: weights are random and learning
rates next to 0, so the scores say nothing; what is said is that every part runs at this size, and what it takes.

Each part has a process of its own with one thread. Told of it are CPU minutes, wall minutes and the most memory that
the process held. A part that is finished is read from `--keep`; one that was stopped is done again from its start, so
that its figures are those of a whole part. `--quick` does the same at 64 pixels with the network of the scenes.
"""

import argparse
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.photos.free_photographs import encoded, photograph
from benchmarks.photos.runs import cpu_seconds
from benchmarks.sweeps.growth import peak_mib
from cpn.core.errors import WorkError
from cpn.core.files import digest, read_json, write_bytes, write_json
from cpn.core.run_files import MODEL

if TYPE_CHECKING:
    from cpn.config import Config
    from cpn.stages.inputs import Inputs

IMAGES = {"astronaut": "person", "chelsea": "cat"}
"""Photographs and their class."""
VOC_SIZE, QUICK_SIZE = (375, 500), (72, 96)
"""Height and width of the photographs."""
CONFIRM_SEED = 0
"""With which one of the two photographs selects and the other confirms."""
TINY = 1e-8
"""Learning rate under random weights: it changes neither time nor memory."""

HEAD = ("| part | what | CPU min | wall min | peak GiB |", "|---|---|---|---|---|")


class Part(NamedTuple):
    """A part of the rehearsal."""

    what: str
    work: Callable[["Place"], Mapping[str, float]]
    """Does the part and returns what it found."""
    share: float
    """CPU minutes that it took when the time left was last fitted; only their ratios matter."""


class Place(NamedTuple):
    """Where everything is kept, and what is rehearsed."""

    keep: Path
    quick: bool

    @property
    def data(self) -> Path:
        """The photographs in VOC layout."""
        return self.keep / "data"

    @property
    def cache(self) -> Path:
        """Superpixels."""
        return self.keep / "superpixels"

    @property
    def run(self) -> Path:
        """The CAM run."""
        return self.keep / "run"

    def stage(self, name: str) -> Path:
        """Return the folder of a stage after the CAM run."""
        return self.keep / f"stage-{name}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--keep", type=Path, default=Path("build/rehearsal"), help="what is done (%(default)s)")


def values_of(quick: bool, data: str) -> dict[str, Any]:
    """The configuration, as values over the presets."""
    return {
        "preset": ["official", "scenes"] if quick else "official",
        "data": {"root": data, "scenes": None, "train": "train", "score": "train", "val": "val", "workers": 0},
        "network": {"weights": None},
        "train": {"epochs": 1, "batch_size": 1, "lr": TINY},
        "cam": {"confirm_seed": CONFIRM_SEED},
        "affinity": {"epochs": 1, "batch_size": 1, "lr": TINY},
        "irn": {"crop": 64 if quick else 448, "batch_size": 1, "lr": TINY},
        "deeplab": {"iterations": len(IMAGES), "batch_size": 1, "lr": TINY},
    }


def config_of(place: Place) -> "Config":
    """The configuration of every part."""
    from cpn.config import config_from

    return config_from(values_of(place.quick, str(place.data)), "rehearsal")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Do every part that is not done; prints a line for each, the table, and what comes next."""
    key = digest([values_of(options.quick, ""), VOC_SIZE, list(PARTS)])
    place = Place(options.keep.absolute() / key, options.quick)
    rows = []
    for at, (name, part) in enumerate(PARTS.items(), 1):
        before = (place.keep / f"{name}.json").exists()
        if not before:
            left = minutes_left(rows)
            more = "" if left is None else f"; about {left:.0f} min left"
            print(f"{name}: {part.what} ({at} of {len(PARTS)}{more})", flush=True)
        rows.append(row := done(name, place))
        print(f"{name}: {'done before' if before else 'done'}, {words(row)}", flush=True)
    print("\n".join(table(rows)), flush=True)
    print("next: python -m cpn.download voc2012 sbd resnet38 --to data  (docs/voc.md: from there to the same on VOC)")
    return {
        "cpu_minutes": sum(row["cpu_minutes"] for row in rows),
        "wall_minutes": sum(row["wall_minutes"] for row in rows),
        "peak_gib": max(row["peak_gib"] for row in rows),
        "quick": options.quick,
        "rows": rows,
    }


def done(name: str, place: Place) -> dict[str, Any]:
    """Return the row of a part, doing it first where needed. Raises WorkError where its process was killed."""
    result_file = place.keep / f"{name}.json"
    if not result_file.exists():
        with ProcessPoolExecutor(1, get_context("spawn")) as own:
            try:
                row = own.submit(in_own_process, name, place).result()
            except BrokenProcessPool as error:
                raise WorkError(
                    f"{name}: its process was killed, most likely for memory: free some, then run the same command"
                ) from error
        write_json(result_file, row)
    row = read_json(result_file)
    return {"part": name, **row}


def in_own_process(name: str, place: Place) -> dict[str, Any]:
    """`measured`, with one thread, in a process that does nothing else."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    return measured(name, place)


def measured(name: str, place: Place) -> dict[str, Any]:
    """Do a part from its start; returns its row, whose peak is that of the whole process."""
    began, spent = time.perf_counter(), cpu_seconds()
    results = PARTS[name].work(place)
    return {
        "what": PARTS[name].what,
        "cpu_minutes": (cpu_seconds() - spent) / 60,
        "wall_minutes": (time.perf_counter() - began) / 60,
        "peak_gib": peak_mib() / 1024,
        "found": dict(results),
    }


def minutes_left(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Wall minutes of the parts after `rows`, from what those took of their share; None before the first step."""
    share = sum(PARTS[row["part"]].share for row in rows)
    if share == 0:
        return None
    left = sum(part.share for part in PARTS.values()) - share
    return left * float(sum(row["wall_minutes"] for row in rows)) / share


def words(row: Mapping[str, Any]) -> str:
    """A row's figures."""
    return f"CPU {row['cpu_minutes']:.1f} min, wall {row['wall_minutes']:.1f} min, peak {row['peak_gib']:.2f} GiB"


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown, with the sums and the largest peak below."""
    cpu, wall = (sum(row[name] for row in rows) for name in ("cpu_minutes", "wall_minutes"))
    last = {"part": "in all", "what": "", "cpu_minutes": cpu, "wall_minutes": wall}
    shown = [*rows, {**last, "peak_gib": max(row["peak_gib"] for row in rows)}]
    return [
        *HEAD,
        *(
            f"| {row['part']} | {row['what']} | {row['cpu_minutes']:.1f} | {row['wall_minutes']:.1f} "
            f"| {row['peak_gib']:.2f} |"
            for row in shown
        ),
    ]


def one_step(network: str, place: Place) -> Mapping[str, float]:
    """Train `network` for one step of batch 1 on a random image, by the product's training loop."""
    import torch

    from benchmarks.method.single_gpu import JOBS
    from cpn.cost.step_time import time_steps

    torch.manual_seed(0)
    device = torch.device("cpu")
    job, _ = {**JOBS, "IRN": irn_job}[network](config_of(place), device)
    return {"step_s": time_steps(job, device, 1, warm_up=0, bf16=False).seconds}


def irn_job(config: Any, device: Any) -> tuple[Any, int]:
    """IRN over the CAM network's backbone, as `cpn.propagation.irn.irn_job` trains it."""
    import torch

    from cpn.cost.step_time import on_one_batch, random_images
    from cpn.data.segmentation_samples import SegmentationBatch
    from cpn.data.voc import VOC_CLASSES
    from cpn.propagation import irn
    from cpn.propagation.irn_walk import EDGE_STRIDE
    from cpn.sources.voc_lists import VOC_COUNTS
    from cpn.stages.irn_stages import irn_network

    settings = config.irn
    network = irn_network(config).to(device)
    images, valid = random_images(settings.batch_size, settings.crop)
    cells = -(-settings.crop // EDGE_STRIDE)
    labels = torch.randint(0, len(VOC_CLASSES) + 1, (settings.batch_size, cells, cells), dtype=torch.uint8)
    batch = SegmentationBatch(images.to(device), valid.to(device), labels.to(device))

    job = irn.irn_job(network, range(settings.batch_size), settings, config.data, seed=0)
    return on_one_batch(job, batch), VOC_COUNTS["trainaug"] * settings.epochs


def make_data(place: Place) -> Mapping[str, float]:
    """Write the photographs, and their mirror images as list `val`, in VOC layout, and pack them."""
    import numpy as np

    from cpn.data.transforms import resize
    from cpn.data.voc import VOC_CLASSES, encode_mask
    from cpn.sources.packing import prepare

    root, (height, width) = place.data, QUICK_SIZE if place.quick else VOC_SIZE
    shutil.rmtree(root, ignore_errors=True)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inside = (rows / 0.8) ** 2 + (columns / 0.6) ** 2 < 1
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for name, kind in IMAGES.items():
        image = resize(photograph(name), (height, width))
        mask = encode_mask(np.where(inside, VOC_CLASSES.index(kind) + 1, 0).astype(np.uint8))
        for image_id, side, members in ((name, image, "train"), (f"{name}_mirrored", image[:, ::-1], "val")):
            lists[members].append(image_id)
            write_bytes(root / "JPEGImages" / f"{image_id}.jpg", encoded(np.ascontiguousarray(side)))
            write_bytes(root / "SegmentationClass" / f"{image_id}.png", mask)
            text = f"<annotation><object><name>{kind}</name></object></annotation>"
            write_bytes(root / "Annotations" / f"{image_id}.xml", text.encode())
    for members, ids in lists.items():
        write_bytes(root / "ImageSets" / "Segmentation" / f"{members}.txt", ("\n".join(ids) + "\n").encode())
    pack = prepare(root, list(lists), scored=list(lists))
    return {"images": len(pack.split("train"))}


def make_superpixels(place: Place) -> Mapping[str, float]:
    """The superpixels of both photographs."""
    from cpn.data.superpixels import maps_for
    from cpn.data.voc import open_pack

    shutil.rmtree(place.cache, ignore_errors=True)
    config = config_of(place)
    maps_for(config, open_pack(place.data).split(config.data.train), place.cache)
    return {}


def make_run(place: Place) -> Mapping[str, float]:
    """The CAM run: two steps, scores of the epoch and of the end at all scales, pictures."""
    import torch

    from cpn.data.voc import open_pack
    from cpn.run import run as cam_run

    shutil.rmtree(place.run, ignore_errors=True)
    result = cam_run(
        config_of(place),
        open_pack(place.data),
        place.run,
        cache=place.cache,
        device=torch.device("cpu"),
        report=lambda entry: None,
    )
    return {"beta": result.metrics["beta"], "loss": result.history[-1]["loss_total"]}


def make_stage(name: str, place: Place) -> Mapping[str, float]:
    """A stage after the CAM run, from its start."""
    from cpn.stages.pipeline import PER_IMAGE, TRAINED, score_pseudo_labels

    out, inputs = place.stage(name), inputs_of(place)
    shutil.rmtree(out, ignore_errors=True)
    if name in TRAINED:
        return TRAINED[name](inputs, out, lambda entry: None)
    out.mkdir(parents=True)
    PER_IMAGE[name](inputs, range(len(inputs.split)), out)
    return score_pseudo_labels(inputs, out) if name == "random_walk" else {}


def inputs_of(place: Place) -> "Inputs":
    """Build the inputs of the stages after the CAM run."""
    import torch

    from cpn.data.voc import open_pack
    from cpn.stages.inputs import Inputs
    from cpn.stages.stage_manifest import VERSIONS

    folders = {stage: place.stage(stage) for stage in VERSIONS if place.stage(stage).exists()}
    beta = read_json(place.keep / "run.json")["found"]["beta"]
    device = torch.device("cpu")
    return Inputs(place.run / MODEL, config_of(place), open_pack(place.data), place.cache, device, folders, beta)


PARTS = {
    "step-cpn": Part("CPN, three branches: one step", partial(one_step, "CPN"), 1.2),
    "step-affinity": Part("AffinityNet: one step", partial(one_step, "AffinityNet"), 0.4),
    "step-irn": Part("IRN on ResNet38: one step", partial(one_step, "IRN"), 0.2),
    "step-deeplab": Part("DeepLab: one step", partial(one_step, "DeepLab"), 0.5),
    "data": Part("two photographs and two to validate on, packed", make_data, 0.05),
    "superpixels": Part("superpixels of both", make_superpixels, 0.05),
    "run": Part("CAM run: two steps, scored at four scales, mirrored; pictures", make_run, 14.0),
    "cam": Part("maps of both at four scales, mirrored", partial(make_stage, "cam"), 3.2),
    "crf": Part("what AffinityNet learns from, after the dense CRF", partial(make_stage, "crf"), 0.3),
    "affinity": Part("AffinityNet: two steps", partial(make_stage, "affinity"), 0.9),
    "random_walk": Part("pseudo labels of both, scored", partial(make_stage, "random_walk"), 0.3),
    "deeplab": Part("DeepLab: two steps; two tests at six scales, mirrored, CRF", partial(make_stage, "deeplab"), 5.5),
}  # fmt: skip
"""Part -> what it is. Also the name of the file that keeps its row. In the order in which they are done."""
