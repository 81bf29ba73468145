"""Names that cannot be files' and links that lead nowhere, wherever a user's text becomes a path."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.bad_input.case import Case, Make, both, nothing, spec, voc
from tests.bad_input.data import FIRST, IMAGE, MASK, TRAIN, XML

LONG = "x" * 5000
START = "platform.sweep s.yaml --set data.root=data"
SWEEP = f"{START} --dry-run"


def linked(part: str, target: str = "../gone") -> Make:
    """Put a link in the place of one file or folder."""

    def make(place: Path) -> None:
        path = place / part
        if os.path.lexists(path):
            os.rename(path, place / "was there")
        path.symlink_to(target)

    return make


def in_circle(part: str) -> Make:
    """Put a link to itself in the place of one file or folder."""
    return linked(part, Path(part).name)


def broken(name: str, part: str, command: str = "cpn.prepare data", made: Make | None = None) -> list[Case]:
    """A link to nowhere and one to itself, for one thing that the user puts somewhere."""
    made = voc() if made is None else made
    kinds: dict[str, tuple[Callable[[str], Make], str]] = {
        "dead": (linked, f"{part} is a link to ../gone, which is not there: lay the link anew"),
        "circular": (in_circle, f"{part} is a link that leads in a circle (it points to {Path(part).name}): lay"),
    }
    return [
        Case(f"names: {kind} link for {name}", command, (words,), both(made, link(part)))
        for kind, (link, words) in kinds.items()
    ]


LINKS = [
    *broken("the classes", "data/classes.txt"),
    *broken("a list", f"data/{TRAIN}"),
    *broken("the list that else is made by rule", "data/ImageSets/Segmentation/trainaug.txt"),
    *broken("a picture", f"data/{IMAGE}"),
    *broken("a mask", f"data/{MASK}"),
    *broken("a mask of a list that needs none", f"data/{MASK}", "cpn.prepare data --lists trainaug"),
    *broken("an annotation", f"data/{XML}"),
    *broken("all pictures", "data/JPEGImages"),
    *broken("all masks", "data/SegmentationClass"),
    *broken("all annotations", "data/Annotations"),
    *broken("all lists", "data/ImageSets"),
    *broken("the masks of SBD", "data/SegmentationClassAug"),
    *broken("the data set", "data"),
    *broken("the data set of a sweep", "data", SWEEP),
    *broken("weights", "w.params", f"{SWEEP} --set network.weights=w.params"),
    *broken("a specification", "s.yaml", SWEEP),
    *broken("the storage", "sweeps", "platform.status", spec()),
    *broken("the storage of a sweep", "sweeps", SWEEP),
    *broken("the records", "mlflow.db", "platform.ui", nothing),
    *broken("the annotations of COCO", "coco/annotations/instances_train2014.json", "cpn.coco coco out",
            lambda place: (place / "coco/annotations").mkdir(parents=True)),
    *broken("a picture to predict", "p.jpg", "cpn.predict m.safetensors p.jpg --out out", nothing),
    *broken("a network", "m.safetensors", "cpn.score m.safetensors --root data", voc()),
]  # fmt: skip


def long_name(name: str, command: str, *words: str, make: Make | None = None, shown: str = "x" * 60) -> Case:
    return Case(f"names: 5,000 letters for {name}", command, (*words, shown), voc() if make is None else make)


def long_in(part: str, content: str) -> Make:
    return voc(lambda root: (root / part).write_text(content))


LENGTHS = [
    long_name("an id", "cpn.prepare data", f"{TRAIN} line 2: the id xxx", "has 5000 bytes", "correct the line",
              make=long_in(TRAIN, f"{FIRST}\n{LONG}\n")),
    long_name("an id in two paths", "cpn.prepare data", f"{TRAIN} line 1: the id xxx", "has 5000 bytes",
              make=long_in(TRAIN, f"/JPEGImages/{LONG}.jpg /SegmentationClass/{LONG}.png\n")),
    long_name("a class", "cpn.prepare data", "classes.txt: class xxx", "has 5000 characters", "shorten it",
              make=long_in("classes.txt", f"{LONG}\ndog\n")),
    long_name("a list", f"cpn.prepare data --lists {LONG}", "is too long for the name of a file", shown=".txt"),
    long_name("the folder of the data set", f"cpn.prepare {LONG}", "is too long for the name of a file"),
    long_name("the data of a sweep", f"{SWEEP} --set data.root={LONG}", "data.root: /", "is too long for the name of"),
    long_name("weights", f"{SWEEP} --set network.weights={LONG}", "network.weights: /", "is too long for the name of"),
    long_name("the storage", f"{SWEEP} --set resources.storage={LONG}", "resources.storage: /", "is too long"),
    long_name("the storage of a report", f"platform.report small --storage {LONG}", "--storage: /", "too long"),
    *(long_name(f"the storage of {command}", f"platform.{command} --storage {LONG}", "error: --storage: /", "too long")
      for command in ("leaderboard small", "compare small-0000 small-0001", "gc small", "export small-0000",
                      "promote small-0000", "status", "stop small", "rollback small --because x")),
    long_name("a sweep to report", f"platform.report {LONG}", f"error: {LONG[:100]}", "is too long for the name of"),
    long_name("the records", f"{SWEEP} --set tracking.uri=sqlite:///{LONG}", "tracking.uri: /", "is too long for"),
    long_name("the study", f"{START} --set tracking.study=sqlite:///{LONG}", "tracking.study: /", "is too long for"),
    long_name("a specification", f"platform.sweep {LONG}", "is too long for the name of a file"),
    long_name("a network", f"cpn.score {LONG} --root data", "is too long for the name of a file"),
    long_name("a picture to predict", f"cpn.predict m.safetensors {LONG} --out out", "is too long for the name of"),
    long_name("what is predicted", f"cpn.predict m.safetensors data/{IMAGE} --out {LONG}", "--out: ", "is too long"),
    long_name("what is packed", f"cpn.prepare data --out {LONG}", "--out: /", "is too long for the name"),
    long_name("COCO", f"cpn.coco {LONG} out", "is too long for the name of a file", shown=".json"),
]  # fmt: skip

CASES = [*LINKS, *LENGTHS]
