"""How often a sweep names a winner that is none, and how often it finds one that is: simulated sweeps, real verdicts.

    python -m benchmarks winner --json

A simulated sweep has 30 trials, the reference among them. Each trial scores every image; what a run makes of an image
is simulated as confusion counts, and everything after that is the product's own: `confirm.candidates` ranks on the
select images, `confirm.next_runs` says which runs of the race come next, with fresh seeds (at most --runs, by default
what a sweep makes; with --seeds there is no race, and `confirm.entries` says how many of each), `confirm.judge` gives
the verdict on the confirm images. Nothing is trained, so all of it is arithmetic. The column of runs is their mean
where nothing is better, and counts cam_baseline's, which a sweep makes beside them.

Assumptions. A run's quality on an image is, in logits of recall and in this order of what they do to a verdict,

    gain of the configuration       0, but for one configuration in two of the three questions
    + seed                          one number per run; with the next line it makes the seed noise
    + seed x image                  one number per run and image: INTERACTION of the seed noise in mIoU
    + configuration x image         one number per configuration and image: what `--image-noise` sets
    + difficulty of the image       one number per image, the same for all: it cancels in a paired difference

"Equal" configurations are equal over all images that could be drawn, not on those that were. Sizes are set in mIoU: a
run's seed noise has a standard deviation of SEED_NOISE points on fixed images, a gain is a multiple of that, and
`--image-noise` is the standard deviation, in units of the seed noise, that configuration x image gives to the
difference of two equal configurations. Every sweep draws new images. beta is taken as chosen already.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from platform.config.sections import Confirm
from platform.config.sweep_spec import SweepSpec
from platform.search import confirm
from platform.search.study import REFERENCE, SEARCH, State, TrialRow
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cpn.core.errors import InputError
from cpn.scoring.metrics import miou

TRIALS = 30
BETTER = 17
"""Number of the trial that is better where one is."""
SEED_NOISE = 1.0
"""Standard deviation of a run's mIoU over seeds, in points."""
INTERACTION = 0.4
"""Part of that standard deviation which is independent from image to image."""
LEVELS = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Image noise levels of the table; the first is what the rates of the last line are for."""
SWEEPS, FURTHER = 1000, 200
"""Sweeps a question at the first level, where a share of 5 % has a standard error of 0.7, and at the others (1.5)."""
GAINS = {"2sd": 2.0, "3sd": 3.0}
"""By how much one trial is better, in units of the seed noise."""
FOUND = tuple(f"true_winner_rate_{name}" for name in GAINS)
ARGMAX_FOUND = tuple(f"argmax_true_rate_{name}" for name in GAINS)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Images:
    """Images as a run sees them: true pixels of each class (N, C), background first, and difficulty (N,), in logits."""

    pixels: Floats
    difficulty: Floats


@dataclass(frozen=True)
class Scale:
    """What a logit is worth in mIoU points: one added everywhere, and independent ones of unit spread per image."""

    shift: float
    scatter: float


class End(NamedTuple):
    """The verdict's winner, whether it is shown better, the best trial of the search, and the confirm runs."""

    winner: str
    better: bool
    argmax: str
    runs: int


def draw_images(count: int, classes: int, rng: np.random.Generator) -> Images:
    """Images with 1 to 3 foreground classes that cover about a third of 10,000 pixels."""
    present = rng.choice([1, 2, 3], (count, 1), p=[0.6, 0.35, 0.05])
    chosen = rng.random((count, classes - 1)).argsort(axis=1) < present
    foreground = chosen * np.round(rng.uniform(500, 6000 / present, (count, classes - 1)))
    pixels = np.column_stack([10_000 - foreground.sum(1), foreground])
    return Images(pixels, rng.normal(0, 0.8, count))


def counts_of(images: Images, logits: Floats) -> NDArray[np.int64]:
    """Counts (N, 3, C) of a run whose quality on each image is `logits` (N,).

    That share of each class is found, and the rest of it called background; the more is missed, the more background
    is called by the image's classes.
    """
    recall = 1 / (1 + np.exp(-(0.4 + images.difficulty + logits)))[:, None]
    true, foreground = images.pixels[:, 1:], (images.pixels[:, 1:] > 0)
    hit = np.round(true * recall)
    spilt = np.round(images.pixels[:, :1] * 0.15 * (1 - recall) / foreground.sum(1, keepdims=True)) * foreground
    background_hit = images.pixels[:, 0] - spilt.sum(1)
    hits = np.column_stack([background_hit, hit])
    predicted = np.column_stack([background_hit + (true - hit).sum(1), hit + spilt])
    return np.stack([hits, predicted, images.pixels], axis=1).astype(np.int64)


def measure_scale(count: int, classes: int, rng: np.random.Generator) -> Scale:
    """The slopes of mIoU on `count` images, by many small steps."""
    small, shifts, scatters = 0.1, [], []
    for _ in range(400):
        images = draw_images(count, classes, rng)
        plain, up, noisy = (
            100 * miou(counts_of(images, logits).sum(0))
            for logits in (np.zeros(count), np.full(count, small), rng.normal(0, small, count))
        )
        shifts.append((up - plain) / small)
        scatters.append((noisy - plain) / small)
    return Scale(float(np.mean(shifts)), float(np.std(scatters)))


def sweep(
    gain: float, image_noise: float, scale: Scale, spec: SweepSpec, images: int, classes: int, seed: int
) -> "End":
    """One simulated sweep.

    `gain` and `image_noise` are in units of the seed noise; `gain` goes to the trial BETTER.
    """
    rng = np.random.default_rng([seed])
    select, held_back = draw_images(images, classes, rng), draw_images(images, classes, rng)
    taste = image_noise * SEED_NOISE / 2**0.5 / scale.scatter
    tastes = rng.normal(0, taste, (2, TRIALS, images))
    gains = np.where(np.arange(TRIALS) == BETTER, gain * SEED_NOISE / scale.shift, 0.0)

    def run(number: int, half: int) -> NDArray[np.int64]:
        of_seed = rng.normal(0, SEED_NOISE * (1 - INTERACTION**2) ** 0.5 / scale.shift)
        of_both = rng.normal(0, SEED_NOISE * INTERACTION / scale.scatter, images)
        return counts_of((select, held_back)[half], gains[number] + tastes[half, number] + of_seed + of_both)

    rows = [
        TrialRow(
            number=number,
            uid=f"winner-{number:04d}",
            state=State.COMPLETE,
            values={"trial": number},
            seed=number,
            role=SEARCH if number else REFERENCE,
            miou=100 * float(miou(run(number, 0).sum(0))),
        )
        for number in range(TRIALS)
    ]
    chosen = confirm.candidates(rows, spec.confirm.top_k)
    best = max(rows, key=lambda row: row.miou or 0.0).uid
    rule = confirm.rule_of(chosen, spec.confirm)
    if rule is None:
        of = [entry["of"] for entry in confirm.entries(chosen, spec)]
        confirmed = [confirm.scored(row, [run(row.number, 1) for uid in of if uid == row.uid]) for row in chosen]
        verdict = confirm.judge(confirmed[0], confirmed[1:], seed)
        return End(verdict.winner, verdict.better, best, len(of))
    # The reference's trial is scored on the confirm images too, and no score of it had a part in what was chosen.
    counts: list[list[NDArray[np.int64]]] = [[run(0, 1)], *([] for _ in chosen[1:])]
    limit = left = spec.confirm.race_runs(len(chosen) - 1)
    raced: list[confirm.Confirmed | None] = []
    while True:
        raced = [confirm.scored(row, own) if own else None for row, own in zip(chosen, counts, strict=True)]
        picked = confirm.next_runs(raced, [0] * len(chosen), left, limit, seed)
        if not picked:
            break
        for arm in picked:
            counts[arm].append(run(chosen[arm].number, 1))
        left -= len(picked)
    verdict = confirm.judge(raced[0], [one for one in raced[1:] if one], seed, rule)
    return End(verdict.winner, verdict.better, best, limit - left + spec.confirm.seeds_each)


def rates(sweeps: int, image_noise: float, options: Confirm, images: int, classes: int, seed: int) -> dict[str, float]:
    """The shares of `sweeps` simulated sweeps, for each question, at one level of image noise."""
    scale = measure_scale(images, classes, np.random.default_rng([seed, 1]))
    spec = SweepSpec(name="winner", confirm=options)
    better, reference = f"winner-{BETTER:04d}", "winner-0000"
    one = partial(sweep, image_noise=image_noise, scale=scale, spec=spec, images=images, classes=classes)
    shares: dict[str, float] = {"image_noise": image_noise, "sweeps": sweeps}
    # Every question has its own sweeps; every level has the same ones, but for its noise.
    first = seed * 1_000_000
    ends = [one(0.0, seed=first + i) for i in range(sweeps)]
    shares["false_winner_rate"] = share([end.better for end in ends])
    shares["argmax_false_rate"] = share([end.argmax != reference for end in ends])
    shares["runs"], shares["most_runs"] = float(np.mean([end.runs for end in ends])), max(end.runs for end in ends)
    for question, (name, gain) in enumerate(GAINS.items(), start=1):
        ends = [one(gain, seed=first + question * 100_000 + i) for i in range(sweeps)]
        shares[f"true_winner_rate_{name}"] = share([end.better and end.winner == better for end in ends])
        shares[f"wrong_winner_rate_{name}"] = share([end.better and end.winner != better for end in ends])
        shares[f"argmax_true_rate_{name}"] = share([end.argmax == better for end in ends])
        shares[f"runs_{name}"] = float(np.mean([end.runs for end in ends]))
    return shares


def share(outcomes: list[bool]) -> float:
    """How many of `outcomes` are true, in [0, 1]."""
    return sum(outcomes) / len(outcomes)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--sweeps", type=int, default=SWEEPS, help="sweeps a question, first level (%(default)s)")
    parser.add_argument("--top-k", type=int, default=Confirm().top_k, help="confirm.top_k (%(default)s)")
    parser.add_argument("--runs", type=int, help="confirm.runs (what a sweep makes)")
    parser.add_argument("--seeds", type=int, help="confirm.seeds: no race")
    parser.add_argument("--reference-seeds", type=int, help="confirm.reference_seeds: no race")
    parser.add_argument("--images", type=int, default=200, help="select images, and confirm images (%(default)s)")
    parser.add_argument("--classes", type=int, default=7, help="classes with background (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation (%(default)s)")
    parser.add_argument(
        "--image-noise",
        type=float,
        nargs="+",
        default=list(LEVELS),
        help="levels, in units of the seed noise; the last line's rates are the first one's (%(default)s)",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Simulate every level; prints a table as it goes."""
    levels, sweeps = options.image_noise, options.sweeps
    least = {"sweeps": 1, "top_k": 1, "runs": 5, "seeds": 3, "reference_seeds": 3, "images": 2, "classes": 4}
    for name, fewest in least.items():
        if getattr(options, name) is not None and getattr(options, name) < fewest:
            raise InputError(f"--{name.replace('_', '-')}: {getattr(options, name)} is too few; give at least {fewest}")
    chosen = Confirm(**{name: getattr(options, name) for name in ("top_k", "runs", "seeds", "reference_seeds")})
    if options.seed < 0 or min(levels) < 0:
        raise InputError("--seed, --image-noise: give numbers of at least 0")
    if options.quick:
        levels, sweeps = levels[:1], min(sweeps, 20)
    print("percent of sweeps; image noise in units of the seed noise")
    print(
        "| image noise | sweeps | runs, at most | false winner | found, 2 sd | 3 sd "
        "| argmax: false winner | found, 2 sd | 3 sd |"
    )
    print("|" + "---|" * 9)
    table = []
    for level in levels:
        count = min(sweeps, FURTHER) if table else sweeps
        row = rates(count, level, chosen, options.images, options.classes, options.seed)
        table.append(row)
        cells = (row[name] for name in ("false_winner_rate", *FOUND, "argmax_false_rate", *ARGMAX_FOUND))
        runs = f"{row['runs']:.1f}, {row['most_runs']:.0f}"
        print(
            f"| {level:g} | {row['sweeps']} | {runs} | " + " | ".join(f"{100 * cell:.1f}" for cell in cells) + " |",
            flush=True,
        )
    names = ("false_winner_rate", *FOUND, "argmax_false_rate", "runs", "most_runs")
    named = {name: table[0][name] for name in names}
    return {**named, "sweeps": sweeps, "levels": table}
