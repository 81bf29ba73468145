"""What a row of the tables says, and the files that many of them start from."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from platform.base.yaml_files import yaml_text
from typing import Any

from tests.cpn.small_voc import write_small_voc

DRY = "platform.sweep s.yaml --dry-run"
SPEC: dict[str, Any] = {
    "name": "small",
    "base": {"preset": ["official", "scenes"], "network": {"weights": None}, "train": {"epochs": 1}},
    "search": {"patches.p_h": {"float": [0.1, 0.5]}},
    "budget": {"trials": 2},
    "resources": {"gpus_per_worker": 0, "storage": "sweeps"},
}
"""A sweep without fault, but for data.root."""

Make = Callable[[Path], None]


def nothing(_: Path) -> None:
    """An empty folder."""


@dataclass(frozen=True)
class Case:
    """One input: how it is made in an empty working folder, the command, and what has to come of it."""

    name: str
    command: str
    """Module and arguments, as after `python -m`."""
    words: tuple[str, ...] = ()
    """Parts of the one line on standard error; for exit code 0 of what is said on standard output."""
    make: Make = nothing
    code: int = 2
    """2 wrong input, 1 where it can be seen only once the work has begun, 0 where it is no fault at all."""
    check: Make | None = None
    """Looks at the folder afterwards; None: nothing may have changed in it."""
    usage: bool = False
    """argparse says it: the line is the last one, under the usage."""
    process: bool = False
    """Run by a real `python -m` in another process."""
    largest: int | None = None
    """RLIMIT_FSIZE, in bytes: the process can write no larger file, as on a full disk. Needs `process`."""
    other_user: bool = False
    """Run as a user to whom root's files are closed; skipped where the test is not run by root."""

    def at_port(self, port: int) -> "Case":
        """The same with the number of a port in the place of {taken}."""
        words = tuple(word.replace("{taken}", str(port)) for word in self.words)
        return replace(self, command=self.command.replace("{taken}", str(port)), words=words)

    @property
    def arguments(self) -> list[str]:
        return shlex.split(self.command)


def text_file(content: str | bytes, name: str = "s.yaml") -> Make:
    """Write one file, byte for byte."""

    def make(place: Path) -> None:
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def spec(**changes: Any) -> Make:
    """Write SPEC with other sections as s.yaml."""
    return text_file(yaml_text({**SPEC, **changes}))


def searching(**domains: Any) -> Make:
    """Write SPEC with another search: __ in a name stands for the dot."""
    return spec(search={name.replace("__", "."): domain for name, domain in domains.items()})


def voc(damage: Callable[[Path], object] = nothing, sbd: bool = True) -> Make:
    """Write a small VOC 2012 as data/, damaged, and SPEC beside it."""

    def make(place: Path) -> None:
        write_small_voc(place / "data", sbd)
        damage(place / "data")
        spec()(place)

    return make


def both(*makes: Make) -> Make:
    """One after the other."""

    def make(place: Path) -> None:
        for part in makes:
            part(place)

    return make


def listing(place: Path) -> dict[str, bytes | str | None]:
    """Every file with its bytes, every folder and link: what must be the same afterwards."""
    found: dict[str, bytes | str | None] = {}
    for folder, folders, files in os.walk(place):
        for name in (*folders, *files):
            path = Path(folder, name)
            content: bytes | str | None = os.readlink(path) if path.is_symlink() else None
            if path.is_file() and not path.is_symlink():
                size = path.stat().st_size
                content = path.read_bytes() if size < 10**9 else f"{size} bytes, too many to hold"
            found[str(path.relative_to(place))] = content
    return found
