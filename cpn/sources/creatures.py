"""Draws one creature of the synthetic scenes: torso, four limbs, head, each as coverage and colour of all pixels.

Lengths are written for a 64-pixel scene and multiplied by `Pose.unit`. Body coordinates: u forward (towards the
head), v downward.
Torsos and limbs are shared by pairs of classes but for a trace of the head's colour, so that it is the head, a small
vivid part, that gives the class away.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

CREATURES = ("robin", "canary", "gecko", "teal", "bluetit", "flamingo")
"""The class names, by the colour of the head."""

HEADS = np.array(
    [[225, 35, 35], [240, 215, 30], [40, 200, 50], [30, 205, 215], [45, 60, 230], [230, 50, 205]], np.float32
)
"""Head colour of each class, RGB."""

TORSO_OF = (0, 0, 1, 1, 2, 2)
"""Torso texture of each class: shared by (0, 1), (2, 3), (4, 5)."""

LIMB_OF = (2, 0, 0, 1, 1, 2)
"""Limb texture of each class: shared by (1, 2), (3, 4), (5, 0)."""

TORSOS = np.array(
    [[[112, 74, 44], [178, 132, 86]], [[70, 74, 96], [150, 154, 172]], [[98, 62, 88], [170, 138, 156]]], np.float32
)
"""Dark and light colour of the torso textures, RGB."""

LIMBS = np.array(
    [[[46, 40, 36], [112, 100, 84]], [[196, 188, 160], [138, 128, 104]], [[112, 62, 56], [176, 122, 104]]], np.float32
)
"""The two colours of the limb textures, RGB."""

TORSO_AXES = (13.5, 8.5)
HEAD_AT, HEAD_RADIUS = (14.5, -6.0), 4.4
HIPS = (-9.5, -5.0, 4.5, 9.0)
HIP_DEPTH, SEGMENT, LIMB_RADIUS = 5.0, 8.0, 2.3


@dataclass(frozen=True)
class Pose:
    """Where a creature stands and how."""

    y: float
    """Row of the torso's centre, pixels."""
    x: float
    """Column of the torso's centre, pixels."""
    angle: float
    """Turn of the body, radians."""
    mirror: float
    """1 looks to the right, -1 to the left."""
    unit: float
    """Pixels per length unit."""
    bends: NDArray[np.float64]
    """Angles from straight down of the upper and lower segment of each limb, radians, (4, 2)."""


@dataclass(frozen=True)
class Part:
    """One drawn part: coverage (S, S) in [0, 1] and colour (S, S, 3), 0 to 255."""

    cover: Array
    colour: Array


def draw_pose(rng: np.random.Generator, size: int, scale: float) -> Pose:
    """Return a pose whose torso and head lie inside the image."""
    unit = scale * size / 64
    margin = min(13 * unit, size * 0.45)
    return Pose(
        y=float(rng.uniform(margin, size - margin)),
        x=float(rng.uniform(margin, size - margin)),
        angle=float(rng.normal(0, 0.3)),
        mirror=float(rng.choice([-1.0, 1.0])),
        unit=unit,
        bends=np.cumsum(rng.uniform(-0.55, 0.55, (4, 2)), axis=1),
    )


def torso(pose: Pose, kind: int, size: int) -> Part:
    """Return the torso, an ellipse, in texture `kind`."""
    u, v = _body_grid(pose, size)
    return Part(_cover(_ellipse(u, v, *TORSO_AXES), pose), torso_colour(kind, u, v))


def limbs(pose: Pose, kind: int, size: int, which: tuple[int, ...] = (0, 1, 2, 3)) -> Part:
    """Return the limbs, two segments each, in texture `kind`."""
    u, v = _body_grid(pose, size)
    distance = np.full(u.shape, np.inf, np.float32)
    for limb in which:
        upper, lower = pose.bends[limb]
        hip = (HIPS[limb], HIP_DEPTH)
        knee = (hip[0] + SEGMENT * np.sin(upper), hip[1] + SEGMENT * np.cos(upper))
        foot = (knee[0] + SEGMENT * np.sin(lower), knee[1] + SEGMENT * np.cos(lower))
        distance = np.minimum(distance, np.minimum(_segment(u, v, hip, knee), _segment(u, v, knee, foot)) - LIMB_RADIUS)
    return Part(_cover(distance, pose), limb_colour(kind, u, v))


def head(pose: Pose, kind: int, size: int) -> Part:
    """Return the head of class `kind`: a disc in the class's colour with a dark eye."""
    u, v = _body_grid(pose, size)
    u, v = u - HEAD_AT[0], v - HEAD_AT[1]
    radius = np.sqrt(u * u + v * v)
    eye = _cover(np.sqrt((u - 1.4) ** 2 + (v + 1.0) ** 2) - 0.9, pose)[..., None]
    shade = (1.08 - 0.16 * (v / HEAD_RADIUS))[..., None]
    return Part(_cover(radius - HEAD_RADIUS, pose), (HEADS[kind] * shade * (1 - eye) + 20 * eye).astype(np.float32))


def torso_colour(kind: int, u: Array, v: Array) -> Array:
    """Torso texture over body coordinates: 0 bands across, 1 spots, 2 diagonal checks."""
    if kind == 0:
        wave = np.sin(u * 1.25)
    elif kind == 1:
        wave = 2 * np.sin(u * 1.1) * np.sin(v * 1.1) - 0.3
    else:
        wave = np.sign(np.sin((u + v) * 0.8)) * np.sign(np.sin((u - v) * 0.8))
    return _blend(TORSOS[kind], wave)


def limb_colour(kind: int, u: Array, v: Array) -> Array:
    """Limb texture over body coordinates: 0 nearly plain, 1 rings, 2 slanted rings."""
    if kind == 0:
        wave = 0.5 * np.sin(u * 0.9)
    elif kind == 1:
        wave = np.sin(v * 1.6)
    else:
        wave = np.sin((u + v) * 1.3)
    return _blend(LIMBS[kind], wave)


def tinted(part: Part, colour: NDArray[np.floating], share: float) -> Part:
    """Return the part with `share` of its colour replaced by `colour`, RGB (3,)."""
    return Part(part.cover, np.asarray(part.colour * (1 - share) + colour * share, np.float32))


def paint(canvas: Array, part: Part, gain: float = 1.0) -> Array:
    """Return a new canvas (S, S, 3) with `part` over the old one, its colour times `gain`."""
    return np.asarray(canvas + part.cover[..., None] * (part.colour * gain - canvas), np.float32)


def _blend(colours: Array, wave: Array) -> Array:
    weight = np.clip(0.5 + wave, 0, 1)[..., None]
    return np.asarray(colours[0] * (1 - weight) + colours[1] * weight, np.float32)


def _body_grid(pose: Pose, size: int) -> tuple[Array, Array]:
    """Body coordinates (u, v) of every pixel's centre, each (S, S)."""
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
    dy, dx = (y - pose.y) / pose.unit, (x - pose.x) / pose.unit * pose.mirror
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    return np.asarray(dx * cos + dy * sin, np.float32), np.asarray(dy * cos - dx * sin, np.float32)


def _cover(distance: NDArray[Any], pose: Pose) -> Array:
    """Coverage from a signed distance in length units: a soft edge one pixel wide."""
    return np.asarray(np.clip(0.5 - distance * pose.unit, 0, 1), np.float32)


def _ellipse(u: Array, v: Array, a: float, b: float) -> Array:
    """First-order signed distance to an ellipse with half axes a, b."""
    level = np.maximum(np.sqrt((u / a) ** 2 + (v / b) ** 2), 1e-3)
    slope = np.maximum(np.sqrt((u / a**2) ** 2 + (v / b**2) ** 2), 1e-3 / max(a, b))
    return np.asarray(level * (level - 1) / slope, np.float32)


def _segment(u: Array, v: Array, start: tuple[float, float], end: tuple[float, float]) -> Array:
    """Distance to the segment from `start` to `end`."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / (du * du + dv * dv), 0, 1)
    return np.asarray(np.hypot(u - start[0] - along * du, v - start[1] - along * dv), np.float32)
