"""Read the classes of VOC's XML annotations, from wherever they come.

The parser is expat, fed element by element: nothing is kept but the names of the objects, so memory stays flat, and
entities, which could multiply or read other files, are refused where they are declared, in any encoding.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from xml.parsers import expat

from cpn.core.errors import InputError
from cpn.core.plain_file import MB, read_plain

MAX_BYTES = 4 * MB
"""The most that an annotation may have; those of VOC have some kB."""


def read_annotation(path: Path, classes: Sequence[str]) -> set[int]:
    """The classes (0..F-1) of the objects in a VOC annotation, difficult ones included, as the image labels need.

    Raises InputError naming the file and the cure: not readable, not whole, an object without or of an unknown class.
    """
    try:
        data = read_plain(path, MAX_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): make it readable for this user") from error
    try:
        names = object_names(data)
    except _EntityError:
        raise InputError(
            f"{path} defines entities, which could multiply or read other files: take its DOCTYPE away"
        ) from None
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise InputError(f"{path} is not whole XML ({error}): get the file again") from error
    present = set()
    for number, given in enumerate(names, start=1):
        name = " ".join(given.split())
        if not name:
            raise InputError(f"{path}: object {number} has no name: write its class")
        if name not in classes:
            shown = name if len(name) <= 80 else name[:77] + "..."
            near = difflib.get_close_matches(shown, classes, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the classes are {', '.join(classes)}"
            raise InputError(f"{path}: object {number} is of unknown class {shown}: {hint} (or add it to classes.txt)")
        present.add(classes.index(name))
    return present


def object_names(data: bytes) -> list[str]:
    """The text of `name` in each `object` below the root, empty where there is none.

    Raises expat's error for what is no XML, and `_EntityError` for a declared entity.
    """
    names: list[str | None] = []
    parts: list[str] = []
    depth, inside, listening = 0, False, False
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True

    def start(tag: str, _: dict[str, str]) -> None:
        nonlocal depth, inside, listening
        if listening:
            names[-1] = "".join(parts)
        depth += 1
        if depth == 2:
            inside = tag == "object"
            if inside:
                names.append(None)
        listening = depth == 3 and inside and tag == "name" and names[-1] is None
        if listening:
            names[-1] = ""
            parts.clear()

    def end(_: str) -> None:
        nonlocal depth, listening
        if listening:
            names[-1] = "".join(parts)
        depth, listening = depth - 1, False

    def text(value: str) -> None:
        if listening:
            parts.append(value)

    def entity(*_: object) -> None:
        raise _EntityError

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = text, entity
    parser.Parse(data, True)
    return [name or "" for name in names]


class _EntityError(Exception):
    """The file declares an entity."""
