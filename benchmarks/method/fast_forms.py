"""What the fast forms cost in mIoU: the same runs on synthetic scenes with the fast and the exact form, seed by seed.

    python -m benchmarks fast_forms --forms superpixels pictures --seeds 8 --jobs 2 --json

superpixels  cut once for each image, against SLIC on every crop (`patches.slic_on: crop`, as released)
pictures     scaled by torch and coloured by OpenCV, against PIL for both
bf16         the network under autocast, against float32; a processor without bf16 does it too, in twenty times the time

Each is CPN with OHEM (preset table2_row4), trained and scored as a trial is; `miou` is that of all training scenes at
the run's own best beta, in percent. `low` and `high` bound the mean of the paired differences, fast minus exact, with
95 % confidence (Student's t). Finished runs are kept in --out: the same command goes on.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cpn.core.errors import InputError

BASE = {"preset": ["official", "scenes", "table2_row4"]}
RUNS: dict[str, dict[str, Any]] = {
    "fast": {},
    "SLIC on every crop": {"patches": {"slic_on": "crop"}},
    "PIL": {},
    "bf16": {"train": {"precision": "bf16"}},
}
"""What is trained, and the values laid over BASE."""

PAIRS = {"superpixels": ("fast", "SLIC on every crop"), "pictures": ("fast", "PIL"), "bf16": ("bf16", "fast")}
"""Form -> the runs with its fast and its exact kind."""

DATA_SEED = 20
"""Of the scenes; none of the presets was chosen on them."""


@contextmanager
def pil_pictures() -> Iterator[None]:
    """While the block runs, training images are scaled and coloured by PIL, with the same random numbers."""
    import numpy as np
    from PIL import Image

    from benchmarks.method.loader_vs_pil import pil_jitter
    from cpn.data import transforms

    def jitter(image: Any, strengths: Sequence[float], rng: Any) -> Any:
        return np.array(pil_jitter(Image.fromarray(image), strengths, rng))

    with patch.multiple(transforms, resize_for_training=transforms.resize, colour_jitter=jitter):
        yield


def one_run(run: tuple[str, int], scenes: int, epochs: int | None, cache: Path, out: Path) -> dict[str, Any]:
    """Train and score a member of RUNS with a seed, or read it when it is finished."""
    from benchmarks.photos.ladder import measured, scenes_root
    from cpn.config import config_from, merge, run_key
    from cpn.sources.packing import prepare

    name, seed = run
    pack = prepare(scenes_root(cache, scenes, DATA_SEED))
    train = {"seed": seed} if epochs is None else {"seed": seed, "epochs": epochs}
    config = config_from(
        merge({**BASE, **RUNS[name]}, {"train": {**RUNS[name].get("train", {}), **train}}), "fast_forms"
    )
    result_file = out / f"{run_key(config, pack.fingerprint)}{'-pil' if name == 'PIL' else ''}.json"
    with pil_pictures() if name == "PIL" else nullcontext():
        return {"name": name, "seed": seed, **measured(config, pack, cache, result_file)}


def compare(form: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The means of both kinds and of their paired difference, with its interval."""
    from scipy.stats import t

    fast, exact = ({row["seed"]: row for row in rows if row["name"] == name} for name in PAIRS[form])
    seeds = sorted(fast)
    differences = [fast[seed]["miou"] - exact[seed]["miou"] for seed in seeds]
    mean, identity = statistics.mean(differences), {"form": form, "seeds": len(seeds)}
    half = float(t.ppf(0.975, len(seeds) - 1)) * statistics.stdev(differences) / len(seeds) ** 0.5
    means = {
        key: statistics.mean(side[seed]["miou"] for seed in seeds) for key, side in (("fast", fast), ("exact", exact))
    }
    return {**identity, **means, "difference": mean, "low": mean - half, "high": mean + half}


def table(comparisons: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| form | seeds | miou, fast | miou, exact | fast minus exact | 95 % |", "|---" * 6 + "|"]
    for row in comparisons:
        cells = [row["form"], str(row["seeds"]), f"{row['fast']:.2f}", f"{row['exact']:.2f}"]
        cells += [f"{row['difference']:+.2f}", f"{row['low']:+.2f} to {row['high']:+.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--seeds", type=int, default=8, help="training seeds 0 .. N-1, at least 2 (%(default)s)")
    parser.add_argument("--scenes", type=int, default=150, help="training scenes (%(default)s)")
    parser.add_argument("--epochs", type=int, help="instead of the preset's")
    parser.add_argument("--forms", nargs="+", choices=list(PAIRS), default=list(PAIRS), help="which (all)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/fast_forms"), help="finished runs (%(default)s)")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/cache"), help="pretrained proxy and scenes (%(default)s)"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing and print the table."""
    from benchmarks.photos.ladder import each_run, make_inputs

    if options.seeds < 2 or min(options.jobs, options.scenes) < 1:
        raise InputError("--seeds, --jobs and --scenes: give at least 2 seeds, and 1 of the others")
    if options.quick:
        options.seeds, options.epochs = 2, 1
    make_inputs(options.cache, options.scenes, [DATA_SEED])
    names = [name for name in RUNS if any(name in PAIRS[form] for form in options.forms)]
    runs = [(name, seed) for seed in range(options.seeds) for name in names]
    work = partial(one_run, scenes=options.scenes, epochs=options.epochs, cache=options.cache, out=options.out)
    rows = each_run(work, runs, options.jobs)
    comparisons = [compare(form, rows) for form in options.forms]
    print(table(comparisons))
    return {"forms": comparisons, "rows": rows}
