"""How the random walk's numbers follow a run: alphas from its beta, steps and radius from the size of its maps.

An exponent stands for a threshold: the background score (1 - m)^alpha equals a map's value m where m is the beta at
which the background wins, so that alpha = ln beta / ln(1 - beta). The released 6 is a beta of .22. The released 64
steps of radius 5 were chosen for 63 x 47 cells, an image of 500 x 375 pixels at stride 8.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cpn.config.crf import CrfConfig
from cpn.config.irn import IrnConfig
from cpn.config.random_walk import RandomWalkConfig

SMALLEST_BETA, LARGEST_BETA = 0.02, 0.98
"""A beta outside is taken as the nearer of the two: at 0 and from 1 on no exponent has it as its threshold."""

CUT = 0.15
"""The background score at which IRN scores its own CAMs; its released 0.30, 0.05 and 0.25 lie around it."""

LOW, HIGH = 4 / 6, 24 / 6
"""crf.alpha_low and crf.alpha_high as multiples of the walk's alpha: the released 4, 24 and 6."""

REACH = 5 * math.sqrt(2**6) / math.sqrt(63 * 47)
"""radius * sqrt(steps) over the map's side, both in cells: the released walk's. A walk spreads with the square root of
its steps."""

LARGEST_RADIUS, SOURCES = 5, 0.6
"""The released radius, and the least share of cells that are sources of pairs (`random_walk.source_shape`)."""

FACTORS = tuple(2 ** (step / 4) for step in range(-6, 7))
"""The alphas that are tried on masks, as multiples of the rule's: from a third of it to about three times it. At a beta
of .9 half an octave was 2 to 3 points of mIoU.
"""

FAR = 0.1
"""How far a threshold may lie from the run's beta without a warning."""


@dataclass(frozen=True)
class WalkChoice:
    """The numbers that a run's walk takes, and whether it is used at all."""

    alpha: float | None
    """None for IRN's walk, which has none."""
    logt: int
    radius: int
    used: bool = True
    """False: the pseudo labels are the CAM's own masks at the run's beta."""


@dataclass(frozen=True)
class WalkGrid:
    """Settings tried on masks: every alpha with every logt, both ascending; and the setting of the rule alone."""

    alphas: tuple[float | None, ...]
    logts: tuple[int, ...]
    rule: WalkChoice

    @property
    def pairs(self) -> list[tuple[float | None, int]]:
        """(alpha, logt), logt by logt."""
        return [(alpha, logt) for logt in self.logts for alpha in self.alphas]


def alpha_of(beta: float) -> float:
    """Return the exponent whose background score (1 - m)^alpha equals m at m = beta: ln beta / ln(1 - beta)."""
    threshold = min(max(beta, SMALLEST_BETA), LARGEST_BETA)
    return math.log(threshold) / math.log1p(-threshold)


def beta_of(alpha: float) -> float:
    """Return the threshold of an exponent, in (0, 1): the m at which (1 - m)^alpha = m."""
    low, high = 0.0, 1.0
    for _ in range(60):  # to the last bit; (1 - m)^alpha falls and m rises, so that they meet once
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - middle) ** alpha > middle else (low, middle)
    return (low + high) / 2


def power_of(config: IrnConfig, beta: float | None) -> float:
    """irn.map_power as a number: `auto` is the power at which `beta` becomes CUT, ln CUT / ln beta.

    Raises ValueError where it is `auto` and there is no beta.
    """
    if config.map_power != "auto":
        return config.map_power
    return math.log(CUT) / math.log(min(max(_needed(beta, "irn.map_power"), SMALLEST_BETA), LARGEST_BETA))


def crf_alphas(config: CrfConfig, beta: float | None) -> tuple[float, float]:
    """alpha_low and alpha_high as numbers. `auto` keeps the released proportion of 4 and 24 to the walk's 6:

    with alpha that of `beta`, alpha_low is 2/3 of it, a stronger background that only confident foreground beats, and
    alpha_high 4 times it, a weaker one that wins over confident background alone. At a beta of .22 these are 4 and 24.
    Raises ValueError where one is `auto` and there is no beta.
    """
    low, high = config.alpha_low, config.alpha_high
    return (
        LOW * alpha_of(_needed(beta, "crf.alpha_low")) if low == "auto" else low,
        HIGH * alpha_of(_needed(beta, "crf.alpha_high")) if high == "auto" else high,
    )


def walk_radius(height: int, width: int) -> int:
    """Return the largest radius up to 5 at which 3 of 5 cells of a map are sources of pairs, at least 2."""
    for radius in range(LARGEST_RADIUS, 2, -1):
        rows, columns = source_shape(height, width, radius)
        if rows * columns >= SOURCES * height * width:
            return radius
    return 2


def walk_logt(height: int, width: int, radius: int) -> int:
    """logt of a map of height x width cells: 2^logt steps reach as far, by the map's side, as the released walk does.

    6 at 63 x 47 cells and radius 5, 4 at 16 x 16 and radius 3.
    """
    steps = (REACH * math.sqrt(height * width) / radius) ** 2
    return max(0, round(math.log2(steps)))


def walk_grid(config: RandomWalkConfig, beta: float | None, sizes: Sequence[tuple[int, int]]) -> WalkGrid:
    """Return the rule's numbers for maps of `sizes` (height, width) in cells, and what is tried around them.

    The rule speaks of the image of median area. Of what is a number in `config` nothing else is tried; of `auto` each
    alpha of FACTORS, and each logt from 0 (one step) to one above the rule's. Raises ValueError where alpha is `auto`
    and there is no beta.
    """
    height, width = sorted(sizes, key=math.prod)[len(sizes) // 2]
    radius = walk_radius(height, width) if config.radius == "auto" else config.radius
    alpha = alpha_of(_needed(beta, "random_walk.alpha")) if config.alpha == "auto" else config.alpha
    logt = walk_logt(height, width, radius) if config.logt == "auto" else config.logt
    return WalkGrid(
        tuple(alpha * factor for factor in FACTORS) if config.alpha == "auto" else (alpha,),
        tuple(range(logt + 2)) if config.logt == "auto" else (logt,),
        WalkChoice(alpha, logt, radius),
    )


def with_choice(config: RandomWalkConfig, choice: WalkChoice) -> RandomWalkConfig:
    """Return the section with the numbers that were chosen."""
    numbers = {"alpha": choice.alpha, "logt": choice.logt, "radius": choice.radius}
    return RandomWalkConfig.model_validate(config.model_dump() | numbers)


def far_words(walk: RandomWalkConfig, crf: CrfConfig, beta: float) -> str | None:
    """Return one line where numbers stand for a beta more than FAR away from the run's; None where none does.

    An alpha_low or alpha_high stands for the beta at which the rule of `crf_alphas` would give it.
    """
    settings = {
        "random_walk.alpha": (walk.alpha, 1.0),
        "crf.alpha_low": (crf.alpha_low, LOW),
        "crf.alpha_high": (crf.alpha_high, HIGH),
    }
    thresholds = {
        name: beta_of(alpha / factor)
        for name, (alpha, factor) in settings.items()
        if walk.kind == "affinity" and alpha != "auto"
    }
    far = [name for name, threshold in thresholds.items() if abs(threshold - beta) > FAR]
    if not far:
        return None
    stale = ", ".join(f"{name} {settings[name][0]:g} (made for beta {thresholds[name]:.2f})" for name in far)
    return f"{stale}: this run's beta is {beta:.2f}; with {'=auto, '.join(far)}=auto they follow it"


def source_shape(height: int, width: int, radius: int) -> tuple[int, int]:
    """Size of the block of source cells: rows 0 to H - radius, columns radius - 1 to W - radius; (0, 0) if empty."""
    rows, columns = height - radius + 1, width - 2 * (radius - 1)
    return (rows, columns) if rows > 0 and columns > 0 else (0, 0)


def follows_run(config: RandomWalkConfig) -> bool:
    """Whether anything of the walk follows the run: a number that is `auto`, or the CAM's masks in its place."""
    numbers = (config.alpha, config.logt, config.radius) if config.kind == "affinity" else ()
    return "auto" in numbers or config.keep_if == "better"


def _needed(beta: float | None, name: str) -> float:
    if beta is None:
        raise ValueError(f"{name} is auto, but no beta was given")
    return beta
