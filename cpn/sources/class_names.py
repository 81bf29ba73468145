"""Names of classes: the rule for them, and reading those of a data set from its classes.txt."""

import difflib
import re
import unicodedata
from pathlib import Path

from cpn.core.errors import InputError
from cpn.core.plain_file import is_there
from cpn.data.voc import IGNORE, VOC_CLASSES
from cpn.sources.image_ids import loose_name
from cpn.sources.voc_lists import numbered_lines

CLASS_NAME = re.compile(r"\w[\w .,()'&+-]*")
"""A class names metrics and pictures, so it has nothing that could be a path."""
LONGEST_CLASS = 100
"""Characters of a class's name: MLflow's metrics have names of 250 at most, and files are named by them."""
BACKGROUND = (
    "background", "backgrounds", "bg", "bgd", "bkg", "bkgd", "hintergrund", "fond", "arriereplan", "fondo", "sfondo",
    "achtergrond", "фон", "背景", "배경", "none", "null", "nothing", "noclass", "noobject",
)  # fmt: skip
"""What other tools' lists of classes call mask value 0, in small letters alone."""
IGNORED = (
    "void", "voids", "ignore", "ignored", "ignoring", "unlabeled", "unlabelled", "nolabel", "unannotated", "dontcare",
    "nodata",
)  # fmt: skip
"""What they call the value of pixels that count nowhere."""
BESIDE = ("class", "classes", "label", "region", "regions", "area", "areas", "pixel", "pixels", "index", "value")
"""Words that may stand beside such a name without changing what it says."""
OTHER_LISTS = re.compile(
    r"(classes|class[ _-]?(list|names?)|labels?|label[ _-]?(list|map|names?)|categories|obj|names)"
    r"\.(txt|names|csv|tsv|json|ya?ml|pbtxt)",
    re.IGNORECASE,
)
"""Files in which other tools keep the names of classes."""


def read_classes(root: Path) -> tuple[str, ...]:
    """Return the foreground class names, from classes.txt or VOC's."""
    path = root / "classes.txt"
    if not is_there(path):
        if (other := _other_list(root)) is not None:
            raise InputError(
                f"{path} is missing, but {other.name} is there: write its foreground classes into classes.txt, one per "
                "line in the order of the masks' values, or move it away for the classes of VOC"
            )
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
        if (twin := same_but_for_capitals(name, names[:at])) is not None:
            raise InputError(
                f"{path}: classes {twin} and {name} are one name but for capitals, and would share files and metrics: "
                "rename one, or delete it"
            )
        if is_no_class(name):
            raise InputError(
                f"{path}: {name} is no class of its own, background is mask value 0 and what is ignored {IGNORE}: "
                "delete that line; the first class that is left is value 1"
            )
    return tuple(names)


def is_no_class(name: str) -> bool:
    """Return whether a name stands for background or for what is ignored, as `_background_`, `0 Background` and `void`
    do.
    """
    return is_background(name) or any(form in IGNORED for form in _forms(name))


def is_background(name: str) -> bool:
    """Return whether a name stands for background, a slip of the keyboard in the word itself included."""
    forms = _forms(name)
    return any(form in BACKGROUND for form in forms) or bool(
        difflib.get_close_matches(forms[0], BACKGROUND[:1], cutoff=0.88)
    )


def same_but_for_capitals(name: str, others: list[str]) -> str | None:
    """Return the first of `others` that is `name` in other capitals or another Unicode form; None if there is none."""
    return next((other for other in others if loose_name(other) == loose_name(name)), None)


def _forms(name: str) -> tuple[str, str]:
    """Return the letters of a name, whole and without the words of `BESIDE`."""
    words = re.findall(r"[^\W\d_]+", unicodedata.normalize("NFKC", name).casefold())
    return "".join(words), "".join(word for word in words if word not in BESIDE)


def _other_list(root: Path) -> Path | None:
    """Return a file under another usual name that lists classes; None where there is none, or it lists VOC's."""
    there = sorted(root.iterdir()) if root.is_dir() else []
    for path in there:
        if OTHER_LISTS.fullmatch(path.name) and path.is_file():
            names = [line for _, line in numbered_lines(path)]
            if tuple(name for name in names if not is_no_class(name)) != VOC_CLASSES:
                return path
    return None
