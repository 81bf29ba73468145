"""Tables of real scores over what a sweep searches: each row is a run that was trained. Searchers are replayed on them.

    python -m benchmarks tables --family scenes --hours 1
    python -m benchmarks tables --family scenes_other --hours 1      # other scenes and another crop
    python -m benchmarks tables --family photographs --data VOC_ANIMALS --hours 4

Points are a Latin hypercube over the search of search_spaces/patch.yaml (on scenes, with the ranges that the file names
for them) or photos.yaml (on the first quarter of the photographs, by the digest of their names). All have a run at seed
0. The first of them have more: a second seed, which tells the noise, and cheap forms of the same run, which tell what
a cheap look is worth (FIDELITIES).

Rows stand in benchmarks/sweeps/tables/FAMILY.jsonl, one a run, in the order in which they were made. The same command
goes on with what is missing, and ends after `--hours`; a run that is cut off is made again. CPU seconds are those of
this process, with one thread; the first runs make superpixels and pretrained weights that all use, so take medians.

A point belongs to the half that searchers may be chosen on, or to the other, by a digest of its number.
"""

import argparse
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from platform.base.yaml_files import load_yaml
from platform.config.space import domains
from platform.config.space.unit_cube import from_unit
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from scipy.stats import qmc

from benchmarks.services.processes import CHECKOUT
from cpn.core.errors import InputError

FAMILIES = ("scenes", "scenes_other", "photographs")
TABLES = Path(__file__).parent / "tables"
WHOLE = "whole"
SCENES_RANGES: dict[str, Any] = {
    "patches.S_N": {"int": [5, 640], "log": True, "when": {"patches.kind": "superpixel"}},
    "patches.K": {"choice": [[2, 4], [4, 8], [8, 16], [16, 32], [32, 64]], "when": {"patches.kind": "grid"}},
}
"""What patch.yaml's note sets for scenes."""


@dataclass(frozen=True)
class Row:
    """One finished run; mIoU in percent."""

    point: int
    seed: int
    fidelity: str
    values: dict[str, Any]
    """Dotted names, without those that do not exist beside the others."""
    epochs: list[float]
    """mIoU after each epoch, at the scale and on the images of `miou_epoch`."""
    miou: float
    """On select images, at the best beta there."""
    miou_confirm: float
    beta: float
    cpu_seconds: float


@dataclass(frozen=True)
class Family:
    """What is searched on which data, and how much of it is run."""

    search: dict[str, Any]
    base: dict[str, Any]
    points: int
    repeated: int
    """Points that a second seed and the cheap forms are run on: the first ones."""
    cheap: dict[str, dict[str, Any]]
    """Fidelity -> values laid over a run."""


def scenes() -> Family:
    """150 scenes of a data seed of their own."""
    base = {
        "preset": ["official", "scenes"],
        "data": {"scenes": {"train": 150, "val": 10, "seed": 300}},
        "patches": {"draw": "bernoulli"},
    }
    cheap: dict[str, dict[str, Any]] = {
        "half_epochs": {"train": {"epochs": 3}},
        "half_images": {"data": {"scenes": {"train": 75, "val": 10, "seed": 300}}},
        "small_crop": {"data": {"crop": 48}},
    }
    return Family(search_of("scenes"), base, points=200, repeated=40, cheap=cheap)


def scenes_other() -> Family:
    """Other scenes, a smaller crop and other points: whether what was found on `scenes` holds beside it."""
    base = {
        "preset": ["official", "scenes"],
        "data": {"scenes": {"train": 120, "val": 10, "seed": 500}, "crop": 48},
        "patches": {"draw": "bernoulli"},
    }
    return Family(search_of("scenes_other"), base, points=100, repeated=20, cheap={})


def photographs(data: Path | None, keep: Path) -> Family:
    """A fixed quarter of the photographs that train."""
    if data is None:
        raise InputError("--data: give the folder of photographs with masks, in VOC's layout")
    root = quarter(data, keep / "quarter")
    base = {
        "preset": ["official", "photos"],
        "data": {"root": str(root), "train": "train", "score": "train", "val": "train", "workers": 0},
        "train": {"epoch_images": 96},
    }
    cheap: dict[str, dict[str, Any]] = {
        "half_epochs": {"train": {"epochs": 2}},
        "small_crop": {"data": {"crop": 145, "long_side": [145, 209]}},
    }
    return Family(search_of("photographs"), base, points=60, repeated=20, cheap=cheap)


def search_of(family: str) -> dict[str, Any]:
    """What is searched, but for beta, which costs no run."""
    file, ranges = ("photos.yaml", {}) if family == "photographs" else ("patch.yaml", SCENES_RANGES)
    search = {**load_yaml(CHECKOUT / "search_spaces" / file)["search"], **ranges}
    return {name: domain for name, domain in search.items() if name != "cam.beta"}


def quarter(data: Path, out: Path) -> Path:
    """Pack, once, the photographs of the list train whose name's digest begins with 0 to 3 of 16; the folder."""
    from cpn.sources.packing import prepare

    if not (out / "packed" / "manifest.json").is_file():
        names = (data / "ImageSets" / "Segmentation" / "train.txt").read_text(encoding="utf-8").split()
        chosen = [name for name in names if hashlib.sha256(name.encode()).hexdigest()[0] in "0123"]
        for folder, ending in (("JPEGImages", "jpg"), ("Annotations", "xml"), ("SegmentationClass", "png")):
            (out / folder).mkdir(parents=True, exist_ok=True)
            for name in chosen:
                shutil.copyfile(data / folder / f"{name}.{ending}", out / folder / f"{name}.{ending}")
        (out / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (out / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
        if (data / "classes.txt").is_file():
            shutil.copyfile(data / "classes.txt", out / "classes.txt")
        prepare(out, ["train"])
    return out.resolve()


def drawn_points(family: Family) -> list[dict[str, Any]]:
    """The values of all points, always the same: coordinates of names that do not exist at a point are left out."""
    search = domains.parse_search(family.search)
    names = domains.ordered(search)
    cube: NDArray[np.float64] = qmc.LatinHypercube(len(names), rng=np.random.default_rng(2021)).random(family.points)
    points = []
    for coordinates in cube:
        values: dict[str, Any] = {}
        for name, u in zip(names, coordinates, strict=True):
            if domains.active(name, search, values):
                values[name] = from_unit(domains.drawn(search)[name], float(u))
        points.append(values)
    return points


def first_half(point: int) -> bool:
    """Whether searchers may be chosen on this point."""
    return hashlib.sha256(f"point {point}".encode()).digest()[0] % 2 == 0


def wanted(family: Family) -> Iterator[tuple[int, int, str]]:
    """Point, seed and fidelity of every run, in the order in which they are made."""
    for point in range(family.points):
        yield point, 0, WHOLE
        if point < family.repeated:
            yield point, 1, WHOLE
            for fidelity in family.cheap:
                yield point, 0, fidelity


def read_rows(path: Path) -> list[Row]:
    """The rows of a table; none where there is no file. InputError names a line that is none."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], start=1):
        try:
            rows.append(TypeAdapter(Row).validate_json(line))
        except ValidationError as error:
            raise InputError(
                f"{path}, line {number}: is no row of a table; delete the line, and run it again"
            ) from error
    return rows


def run_point(family: Family, name: str, point: tuple[int, int, str], values: Mapping[str, Any], folder: Path) -> Row:
    """Train and score one run in `folder`, which holds nothing else."""
    from cpn import config_from, train_and_score, with_values
    from cpn.config import merge

    number, seed, fidelity = point
    config = config_from(merge(merge(family.base, family.cheap.get(fidelity, {})), {"train": {"seed": seed}}), name)
    epochs: list[float] = []
    began = time.process_time()
    manifest = train_and_score(
        with_values(config, dict(values), name), folder, report=lambda entry: epochs.append(entry["miou_epoch"])
    )
    taken = time.process_time() - began
    metrics = manifest.metrics
    numbers = [round(value, 3) for value in (metrics["miou"], metrics["miou_confirm"], metrics["beta"], taken)]
    return Row(number, seed, fidelity, dict(values), [round(value, 3) for value in epochs], *numbers)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--family", choices=FAMILIES, default="scenes", help="(%(default)s)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of photographs, in VOC's layout")
    parser.add_argument("--hours", type=float, default=1.0, help="begins no run after these (%(default)s)")
    parser.add_argument("--keep", type=Path, default=Path("build/tables"), metavar="DIR", help="(%(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Make what is missing, as far as the time goes."""
    import torch

    torch.set_num_threads(1)
    keep = (options.keep / "quick" if options.quick else options.keep).resolve()
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{options.family}.jsonl" if options.quick else TABLES / f"{options.family}.jsonl"
    path.parent.mkdir(exist_ok=True)
    made = {"scenes": scenes, "scenes_other": scenes_other, "photographs": lambda: photographs(options.data, keep)}
    family = made[options.family]()
    if options.quick:
        scenes_of_quick = {"scenes": {"train": 12, "val": 4, "seed": 300}}
        small = {"train": {"epochs": 1}, "data": scenes_of_quick, "network": {"weights": None}}
        family = Family(family.search, {**family.base, **small}, points=1, repeated=0, cheap={})
    points, every = drawn_points(family), list(wanted(family))
    rows = read_rows(path)
    done = {(row.point, row.seed, row.fidelity) for row in rows}
    began, trained = time.monotonic(), 0
    for point in every:
        if point in done:
            continue
        if time.monotonic() - began > 3600 * options.hours:
            break
        folder = keep / "runs" / f"{options.family}-{point[0]}-{point[1]}-{point[2]}"
        row = run_point(family, f"tables {options.family}", point, points[point[0]], folder)
        with path.open("a", encoding="utf-8") as table:
            table.write(json.dumps(asdict(row)) + "\n")
        shutil.rmtree(folder)
        trained += 1
        rows.append(row)
        left = (len(every) - len(rows)) * (time.monotonic() - began) / trained / 3600
        print(
            f"{len(rows)} of {len(every)}  miou {row.miou:.1f}  {row.cpu_seconds:.0f} CPU s  {left:.1f} h left",
            flush=True,
        )
    print(f"{len(rows)} of {len(every)} runs are in {path}")
    return {"family": options.family, "rows": len(rows), "wanted": len(every), "made": trained}
