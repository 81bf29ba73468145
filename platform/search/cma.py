"""CMA-ES without a stored optimizer: it is rebuilt at every draw from the trials that have finished.

Optuna's own sampler keeps its optimizer as a pickle in the study, and nothing is unpickled here. So a trial keeps the
point it was drawn at and its generation as plain numbers, and `propose` lets a fresh optimizer of the package `cmaes`
learn all whole generations before it draws. The state is a function of the study: a restart draws on as if nothing had
happened. Trials may end in any order: a generation is learned from the first trials of it that have ended, as many as
the population; later ones of it are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cmaes import CMA, get_warm_start_mgd
from numpy.typing import NDArray

START_WIDTH = 1 / 6
"""Standard deviation of the first generation, in units of each domain."""
SHARE_OF_HISTORY = 0.1
"""The best of the trials of other sweeps say where to start."""

Point = NDArray[np.float64]


@dataclass(frozen=True)
class Ended:
    """A trial that ended: COMPLETE or PRUNED, never FAIL, which says nothing about the point."""

    generation: int
    point: Point
    """Coordinates in [0, 1], as drawn."""
    rank: tuple[bool, float]
    """Whether it ran to its end, and its value; larger is better, so a pruned one is below every other."""


def propose(
    dimensions: int, ended: Sequence[Ended], history: Sequence[tuple[Point, float]], seed: int, number: int
) -> tuple[int, Point]:
    """The generation and the point (dimensions,) of trial `number`.

    `ended` are this sweep's trials by number; `history` are (point, value) of other sweeps, larger is better, from
    which the first generation starts instead of the middle.
    """
    optimizer, generation = _start(dimensions, history, np.random.default_rng([seed])), 0
    while True:
        own = [trial for trial in ended if trial.generation == generation][: optimizer.population_size]
        if len(own) < optimizer.population_size:
            break
        ranked = sorted(own, key=lambda trial: trial.rank, reverse=True)
        optimizer.tell([(trial.point, float(place)) for place, trial in enumerate(ranked)])
        generation += 1
        if optimizer.should_stop():  # it has narrowed to a point: look elsewhere, from a place drawn at random
            optimizer = _start(dimensions, [], np.random.default_rng([seed, generation]), spread=0.5)
    optimizer.reseed_rng(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
    return generation, optimizer.ask()


def _start(
    dimensions: int, history: Sequence[tuple[Point, float]], rng: np.random.Generator, spread: float = 0.0
) -> CMA:
    mean, sigma, covariance = 0.5 + rng.uniform(-spread, spread, dimensions), START_WIDTH, None
    if history:
        solutions = [(point, -value) for point, value in history]
        mean, sigma, covariance = get_warm_start_mgd(solutions, gamma=max(SHARE_OF_HISTORY, 1 / len(history)))
    return CMA(
        mean=mean,
        sigma=sigma,
        cov=covariance,
        bounds=np.array([[0.0, 1.0]] * dimensions),
        n_max_resampling=10 * dimensions,
        seed=0,  # every draw is seeded anew
    )
