"""Names of classes: the rule for them, and reading those of a data set from its classes.txt."""

import re
from pathlib import Path

from cpn.core.errors import InputError
from cpn.core.plain_file import is_there
from cpn.data.voc import IGNORE, VOC_CLASSES
from cpn.sources.voc_lists import numbered_lines

CLASS_NAME = re.compile(r"\w[\w .,()'&+-]*")
"""A class names metrics and pictures, so it has nothing that could be a path."""
LONGEST_CLASS = 100
"""Characters of a class's name: MLflow's metrics have names of 250 at most, and files are named by them."""
NO_CLASSES = ("background", "bg", "void", "ignore", "unlabeled", "unlabelled")
"""Names of the values 0 and 255 in other tools' lists of classes, without their underscores and capitals."""


def read_classes(root: Path) -> tuple[str, ...]:
    """The foreground class names, from classes.txt or VOC's."""
    path = root / "classes.txt"
    if not is_there(path):
        return VOC_CLASSES
    names = [line for _, line in numbered_lines(path)]
    if not names:
        raise InputError(f"{path} is empty: write one foreground class per line, or delete it for the classes of VOC")
    if len(names) >= IGNORE:
        raise InputError(
            f"{path} has {len(names)} classes: a mask can tell at most {IGNORE - 1} beside background, "
            f"for {IGNORE} means ignore"
        )
    for at, name in enumerate(names):
        if len(name) > LONGEST_CLASS:
            raise InputError(
                f"{path}: class {name} has {len(name)} characters: a name has {LONGEST_CLASS} at most: shorten it"
            )
        if not CLASS_NAME.fullmatch(name):
            raise InputError(
                f"{path}: class {name}: a name has letters, digits and spaces, for it names metrics and pictures: "
                "write it so"
            )
        if name in names[:at]:
            raise InputError(f"{path}: class {name} is there twice: delete one")
        if is_no_class(name):
            raise InputError(
                f"{path}: {name} is no class of its own, background is mask value 0 and what is ignored {IGNORE}: "
                "delete that line; the first class that is left is value 1"
            )
    return tuple(names)


def is_no_class(name: str) -> bool:
    """Whether a name stands for background or for what is ignored, as `_background_` and `void` do."""
    return re.sub(r"[\W_]", "", name).lower() in NO_CLASSES
