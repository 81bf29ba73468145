"""Read the classes of VOC's XML annotations, and which image they are of, from wherever they come.

The parser is expat, fed element by element: nothing is kept but a few texts, so memory stays flat, and entities, which
could multiply or read other files, are refused where they are declared, in any encoding.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from cpn.core.errors import InputError
from cpn.core.plain_file import MB, read_input

MAX_BYTES = 4 * MB
"""The most that an annotation may have; those of VOC have some kB."""


IMAGE = ("filename", "size/width", "size/height")
"""What an annotation says of its image; paths below the root."""
DEEPEST = 3
"""Depth of the deepest elements that are read; the root's is 1."""


@dataclass(frozen=True)
class Annotation:
    """What an annotation holds."""

    classes: frozenset[int]
    """Classes of its objects, 0..F-1."""
    file: str | None
    """Name of the image's file, without folders; None where it is not given."""
    size: tuple[int, int] | None
    """Height and width of the image in pixels; None where they are not given, or 0."""


def read_annotation(path: Path, classes: Sequence[str]) -> Annotation:
    """Return the classes of the objects in a VOC annotation, difficult ones included, as the image labels need, and its
    image.

    Raises InputError naming the file and the cure: not readable, not whole, an object without or of an unknown class.
    """
    data = read_input(path, MAX_BYTES)
    try:
        names, image = texts(data)
    except _EntityError:
        raise InputError(
            f"{path} defines entities, which could multiply or read other files: take its DOCTYPE away"
        ) from None
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise InputError(f"{path} is not whole XML ({error}): get the file again") from error
    present = set()
    for number, text in enumerate(names, start=1):
        name = " ".join(text.split())
        if not name:
            raise InputError(f"{path}: object {number} has no name: write its class")
        if name not in classes:
            shown = name if len(name) <= 80 else name[:77] + "..."
            near = difflib.get_close_matches(shown, classes, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the classes are {', '.join(classes)}"
            raise InputError(f"{path}: object {number} is of unknown class {shown}: {hint} (or add it to classes.txt)")
        present.add(classes.index(name))
    file = image.get("filename", "").strip().replace("\\", "/").rsplit("/", 1)[-1]
    sides = [image.get(name, "").strip() for name in ("size/height", "size/width")]
    known = all(re.fullmatch("[0-9]{1,9}", side) and int(side) for side in sides)
    return Annotation(frozenset(present), file or None, (int(sides[0]), int(sides[1])) if known else None)


def texts(data: bytes) -> tuple[list[str], dict[str, str]]:
    """Return the text of `name` in each `object` below the root, empty where there is none; and by path the first text
    of each element of IMAGE that is there.

    Raises expat's error for what is no XML, and `_EntityError` for a declared entity.
    """
    names: list[str | None] = []
    image: dict[str, str] = {}
    parts: list[str] = []
    path: list[str] = []
    depth = 0
    heard: str | None = None  # path below the root of the element whose text is being read
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True

    def keep() -> None:
        if heard == "object/name":
            names[-1] = "".join(parts)
        elif heard is not None:
            image[heard] = "".join(parts)

    def start(tag: str, _: dict[str, str]) -> None:
        nonlocal depth, heard
        keep()
        del path[depth:]
        depth += 1
        if depth <= DEEPEST:
            path.append(tag)
        heard, place = None, "/".join(path[1:]) if depth <= DEEPEST else ""
        if place == "object":
            names.append(None)
        elif place == "object/name" and names[-1] is None:
            names[-1] = ""
            heard = place
        elif place in IMAGE and place not in image:
            heard = place
        if heard is not None:
            parts.clear()

    def end(_: str) -> None:
        nonlocal depth, heard
        keep()
        depth, heard = depth - 1, None

    def text(value: str) -> None:
        if heard is not None:
            parts.append(value)

    def entity(*_: object) -> None:
        raise _EntityError

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = text, entity
    parser.Parse(data, True)
    return [name or "" for name in names], image


class _EntityError(Exception):
    """The file declares an entity."""
