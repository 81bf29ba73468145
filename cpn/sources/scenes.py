"""Synthetic scenes in VOC 2012 layout, from a seed, so that quick starts and tests run the whole real loading path.

    python -m cpn.synthetic build/scenes --train 150 --val 60 --size 64 --seed 0

The scenes pose the problem of the method: the head, about 9 % of a creature, gives its class away; torso and limbs are
shared between classes but for a trace of colour; 40 % of the scenes hold a headless body that belongs to no class
(background in the mask); backgrounds correlate with the class.
"""

import errno
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.core.files import DamagedFile, read_json, whole_folder, write_json
from cpn.data.voc import encode_mask
from cpn.sources.class_names import is_no_class
from cpn.sources.creatures import (
    CREATURES,
    HEAD_RADIUS,
    HEADS,
    LIMB_OF,
    TORSO_OF,
    Array,
    Part,
    draw_pose,
    head,
    limbs,
    paint,
    tinted,
    torso,
)
from cpn.sources.image_ids import loose_name

SCENES_VERSION = 2
"""Raised when the same seed begins to give other scenes."""
PARTS_VERSION = 1
"""Raised when the same seed begins to give other images of parts."""

PART_KINDS = tuple(
    [f"{name}_head" for name in CREATURES] + [f"torso_{i}" for i in range(3)] + [f"limbs_{i}" for i in range(3)]
)
"""Classes of the part images: 6 heads, 3 torso textures, 3 limb textures."""

TRAIN_STREAM, VAL_STREAM, PART_STREAM = 0, 1, 2
OBJECTS = (0.6, 0.35, 0.05)
"""Probability of 1, 2 and 3 objects in a scene."""
SCALES = (1.45, 1.15, 1.0)
"""Mean size of the objects of a scene with 1, 2 and 3 of them; gives about 32 % foreground on average."""
BACKGROUND_LINK = 0.35
"""Share of the scenes whose background is chosen by the class of their first object."""
LOOK_ALIKES = 0.4
"""Share of the scenes with a headless, unlabelled body."""
BACKGROUNDS = np.array([[88, 112, 66], [178, 160, 120], [86, 112, 132], [132, 128, 124]], np.float32)
"""Mean colours of grass, sand, water and stone, RGB."""


@dataclass(frozen=True)
class Scene:
    """One image with what is known of it."""

    image: NDArray[np.uint8]
    """RGB, (S, S, 3), before JPEG."""
    mask: NDArray[np.uint8]
    """Class indices, (S, S): 0 background, 1..F."""
    objects: tuple[tuple[int, NDArray[np.bool_]], ...]
    """For each labelled object its class 0..F-1 and its visible pixels (S, S)."""


def draw_scene(rng: np.random.Generator, size: int, trace: float, kinds: int = len(CREATURES)) -> Scene:
    """Draw one scene: background, clutter, perhaps a headless body, then 1 to 3 creatures of different classes, taken
    from the first `kinds` of them (2 or more).

    Bodies carry the share `trace` of their head's colour, headless ones of a mixture. Without it the two classes of a
    shared texture win equally often on a torso, and as PCM lets absent classes compete (method.md (d)), half of each
    body would be lost to the absent one: a fault of the drawing, not of the method (docs/scenes.md).
    """
    count = min(kinds, int(rng.choice(len(OBJECTS), p=OBJECTS)) + 1)
    classes = [int(c) for c in rng.choice(kinds, count, replace=False)]
    linked = rng.random() < BACKGROUND_LINK
    background = classes[0] % len(BACKGROUNDS) if linked else int(rng.integers(len(BACKGROUNDS)))
    canvas = _clutter(_background(background, rng, size), rng)
    scale = SCALES[count - 1]
    if rng.random() < LOOK_ALIKES:
        pose = draw_pose(rng, size, scale * rng.uniform(0.6, 0.9))
        colour = rng.dirichlet(np.ones(len(HEADS))) @ HEADS
        for part in (limbs(pose, int(rng.integers(3)), size), torso(pose, int(rng.integers(3)), size)):
            canvas = paint(canvas, tinted(part, colour, trace), float(rng.uniform(0.85, 1.15)))
    covers: list[tuple[int, NDArray[np.bool_]]] = []
    heads: list[NDArray[np.bool_]] = []
    for kind in classes:
        placed = _place_creature(rng, kind, size, scale, trace, heads)
        if placed is None:
            continue
        gain = float(rng.uniform(0.85, 1.15))
        for part in placed:
            canvas = paint(canvas, part, gain)
        covers.append((kind, np.logical_or.reduce([part.cover > 0.5 for part in placed])))
        heads.append(placed[-1].cover > 0.5)
    return _finish(rng, canvas, covers)


def draw_parts(rng: np.random.Generator, size: int) -> Scene:
    """Draw an image of part kinds: 1 to 3 parts on their own, or a body of parts that no class combines."""
    canvas = _clutter(_background(int(rng.integers(len(BACKGROUNDS))), rng, size), rng)
    first_torso, first_limb = len(CREATURES), len(CREATURES) + 3
    covers: list[tuple[int, NDArray[np.bool_]]] = []
    if rng.random() < 0.5:
        pose = draw_pose(rng, size, float(rng.uniform(0.8, 1.6)))
        torso_kind, limb_kind, head_kind = int(rng.integers(3)), int(rng.integers(3)), int(rng.integers(len(CREATURES)))
        drawn = [
            (first_limb + limb_kind, limbs(pose, limb_kind, size)),
            (first_torso + torso_kind, torso(pose, torso_kind, size)),
        ]
        if rng.random() < 0.6:
            drawn.append((head_kind, head(pose, head_kind, size)))
    else:
        drawn = []
        for kind in rng.choice(len(PART_KINDS), int(rng.integers(1, 4)), replace=False):
            pose = draw_pose(rng, size, float(rng.uniform(0.8, 1.6)))
            if kind < first_torso:
                part = head(pose, int(kind), size)
            elif kind < first_limb:
                part = torso(pose, int(kind) - first_torso, size)
            else:
                part = limbs(pose, int(kind) - first_limb, size)
            drawn.append((int(kind), part))
    for kind, part in drawn:
        canvas = paint(canvas, part, float(rng.uniform(0.85, 1.15)))
        covers.append((kind, part.cover > 0.5))
    return _finish(rng, canvas, covers)


def write_scenes(root: Path, config: ScenesConfig, classes: Sequence[str] = CREATURES) -> None:
    """Write the scenes of `config` to `root` in VOC 2012 layout, whole or absent; nothing if they are there already.

    Lists: train, trainaug (train and extra), val; every image has its mask. `classes` are names for the first 2 to 6
    creatures: a data set with other classes. InputError for other numbers, and if `root` holds anything else.
    """
    check_classes(classes)
    pooled = config.train + config.extra
    names = {"trainaug": [f"train_{i:05d}" for i in range(pooled)], "val": [f"val_{i:05d}" for i in range(config.val)]}
    names["train"] = names["trainaug"][: config.train]

    def scenes() -> Iterator[tuple[str, Scene]]:
        for stream, listed in ((TRAIN_STREAM, names["trainaug"]), (VAL_STREAM, names["val"])):
            for index, name in enumerate(listed):
                rng = np.random.default_rng([config.seed, stream, index])
                yield name, draw_scene(rng, config.size, config.trace, len(classes))

    own = {} if tuple(classes) == tuple(CREATURES) else {"classes": list(classes)}
    marker = {"kind": "scenes", "version": SCENES_VERSION, **config.model_dump(), **own}
    _write(root, marker, classes, names, scenes())


def check_classes(classes: Sequence[str]) -> None:
    """InputError unless `classes` are 2 to 6 different names of letters, digits, dash and underscore."""
    odd = next((name for name in classes if not re.fullmatch(r"\w[\w-]*", name, re.ASCII) or is_no_class(name)), None)
    if odd is not None:
        raise InputError(f"--classes {odd}: is no name for a class; use letters, digits, - and _")
    if not 2 <= len(classes) <= len(CREATURES) or len(set(map(loose_name, classes))) < len(classes):
        raise InputError(f"--classes {' '.join(classes)}: give 2 to {len(CREATURES)} different names")


def write_parts(root: Path, count: int, size: int, seed: int) -> None:
    """Write `count` part images to `root` in VOC 2012 layout (list `train`), whole or absent, to pretrain on.

    A network that learns their image-level labels knows the textures, but neither which parts make a class nor a mask.
    """
    names = [f"part_{i:05d}" for i in range(count)]
    drawn = ((name, draw_parts(np.random.default_rng([seed, PART_STREAM, i]), size)) for i, name in enumerate(names))
    marker = {"kind": "parts", "version": PARTS_VERSION, "count": count, "size": size, "seed": seed}
    _write(root, marker, PART_KINDS, {"train": names}, drawn)


def _place_creature(
    rng: np.random.Generator, kind: int, size: int, scale: float, trace: float, heads: Sequence[NDArray[np.bool_]]
) -> list[Part] | None:
    """Limbs, torso and head of one creature, no head cut off or hidden by it; None if no try finds room."""
    for _ in range(20):
        pose = draw_pose(rng, size, scale * rng.uniform(0.8, 1.2))
        body = [limbs(pose, LIMB_OF[kind], size), torso(pose, TORSO_OF[kind], size)]
        drawn = [tinted(part, HEADS[kind], trace) for part in body] + [head(pose, kind, size)]
        whole = np.pi * (HEAD_RADIUS * pose.unit) ** 2
        seen = np.logical_or.reduce([part.cover > 0.5 for part in drawn])
        if drawn[-1].cover.sum() >= 0.9 * whole and all((other & ~seen).sum() >= 0.7 * other.sum() for other in heads):
            return drawn
    return None


def _background(kind: int, rng: np.random.Generator, size: int) -> Array:
    """Grass (upright strokes), sand (grains), water (waves) or stone (slabs), (S, S, 3) in 0 to 255."""
    y, x = np.mgrid[:size, :size].astype(np.float32) * (64 / size)
    phase = rng.uniform(0, 6.28, 3)
    if kind == 0:
        texture = 1.2 * _noise(rng, size, 6, 32) + 0.4 * _noise(rng, size, 3, 3)
    elif kind == 1:
        texture = 0.7 * _noise(rng, size, 32, 32) + 0.5 * _noise(rng, size, 4, 4)
    elif kind == 2:
        texture = 0.8 * np.sin(y * 0.9 + 1.5 * np.sin(x * 0.16 + phase[0]) + phase[1]) + 0.4 * _noise(rng, size, 4, 4)
    else:
        joints = (((y + phase[0]) % 13 < 1.3) | ((x + 9 * ((y + phase[0]) // 13 % 2) + phase[1]) % 18 < 1.3)).astype(
            np.float32
        )
        texture = 0.6 * _noise(rng, size, 8, 8) + 0.5 - 2.0 * joints
    tint = rng.normal(0, 8, 3)
    return np.asarray(BACKGROUNDS[kind] + tint + 17 * texture[..., None], np.float32)


def _noise(rng: np.random.Generator, size: int, rows: int, columns: int) -> Array:
    """Smooth noise of unit spread with `rows` x `columns` knots, (S, S)."""
    knots = Image.fromarray(rng.normal(0, 1, (rows, columns)).astype(np.float32))
    return np.asarray(knots.resize((size, size), Image.Resampling.BICUBIC), np.float32)


def _clutter(canvas: Array, rng: np.random.Generator) -> Array:
    """Return a new canvas with 4 to 9 small sticks and pebbles in dull colours."""
    size = canvas.shape[0]
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
    for _ in range(int(rng.integers(4, 10))):
        cy, cx = rng.uniform(0, size, 2)
        half = rng.uniform([1.5, 0.7], [7.0, 2.2]) * size / 64
        turn = rng.uniform(0, np.pi)
        along, across = (
            (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn),
            (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn),
        )
        distance = np.hypot(np.maximum(np.abs(along) - half[0], 0), across) - half[1]
        grey = rng.uniform(50, 200)
        colour = np.broadcast_to(grey + rng.normal(0, 18, 3), canvas.shape).astype(np.float32)
        canvas = paint(canvas, Part(np.asarray(np.clip(0.5 - distance, 0, 1), np.float32), colour))
    return canvas


def _finish(rng: np.random.Generator, canvas: Array, covers: Sequence[tuple[int, NDArray[np.bool_]]]) -> Scene:
    """Light, noise and the masks; later objects hide earlier ones, and a wholly hidden one is not labelled."""
    size = canvas.shape[0]
    light = rng.uniform(0.8, 1.2) * (1 + 0.08 * _noise(rng, size, 2, 2))[..., None]
    image = np.clip(canvas * light + rng.normal(0, 7, canvas.shape), 0, 255).astype(np.uint8)
    mask = np.zeros((size, size), np.uint8)
    owner = np.full((size, size), -1)
    for at, (kind, cover) in enumerate(covers):
        mask[cover], owner[cover] = kind + 1, at
    objects = tuple((kind, owner == at) for at, (kind, _) in enumerate(covers) if (owner == at).any())
    return Scene(image, mask, objects)


def _write(
    root: Path,
    marker: dict[str, Any],
    classes: Sequence[str],
    lists: dict[str, list[str]],
    scenes: Iterator[tuple[str, Scene]],
) -> None:
    if _already_there(root, marker):
        return
    try:
        with whole_folder(root, replace=False) as folder:  # another process may have packed its own by now
            for part in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
                (folder / part).mkdir(parents=True)
            for name, scene in scenes:
                (folder / f"JPEGImages/{name}.jpg").write_bytes(_jpeg(scene.image))
                (folder / f"SegmentationClass/{name}.png").write_bytes(encode_mask(scene.mask))
                (folder / f"Annotations/{name}.xml").write_text(_annotation(name, scene, classes), encoding="utf-8")
            for name, ids in lists.items():
                (folder / f"ImageSets/Segmentation/{name}.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
            (folder / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
            write_json(folder / "scenes.json", marker)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and _already_there(root, marker):
            return  # another process wrote the same scenes in the meantime
        raise InputError(
            f"{root}: the scenes cannot be written ({error.strerror}): choose another folder or make room"
        ) from error


def _already_there(root: Path, marker: dict[str, Any]) -> bool:
    """Return whether `root` holds just these scenes; InputError when it holds anything else, which is never
    overwritten.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        recorded = read_json(root / "scenes.json", f"delete {root}, and the same scenes are made again")
    except DamagedFile:
        raise
    except OSError:
        raise InputError(
            f"{root} is not empty and has no scenes.json: choose a new folder; if it held synthetic scenes, "
            f"delete {root}, and the same scenes are made again"
        ) from None
    if recorded != marker:
        differing = ", ".join(
            key for key in marker if not isinstance(recorded, dict) or recorded.get(key) != marker[key]
        )
        raise InputError(f"{root} holds scenes with another {differing}: choose a new folder or delete this one")
    return True


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def _annotation(name: str, scene: Scene, classes: Sequence[str]) -> str:
    """Return the XML of VOC: name and box of each object, 1-based and inclusive."""
    size = scene.mask.shape[0]
    text = f"<annotation>\n  <filename>{name}.jpg</filename>\n"
    text += f"  <size><width>{size}</width><height>{size}</height><depth>3</depth></size>\n  <segmented>1</segmented>\n"
    for kind, seen in scene.objects:
        rows, columns = np.nonzero(seen.any(1))[0] + 1, np.nonzero(seen.any(0))[0] + 1
        text += f"  <object><name>{escape(classes[kind])}</name><difficult>0</difficult><bndbox>"
        text += f"<xmin>{columns[0]}</xmin><ymin>{rows[0]}</ymin><xmax>{columns[-1]}</xmax><ymax>{rows[-1]}</ymax>"
        text += "</bndbox></object>\n"
    return text + "</annotation>\n"
