"""Print what pyproject.toml needs, one requirement a line: `python3 deploy/requirements.py pyproject.toml [EXTRA...]`.

For the image, which installs them in a layer of their own. Runs before the install: only the standard library.
"""

import sys
import tomllib
from pathlib import Path


def requirements(project: Path, extras: list[str]) -> list[str]:
    """The dependencies of the project file, and those of its extras. Raises KeyError for an unknown extra."""
    table = tomllib.loads(project.read_text())["project"]
    return table["dependencies"] + [line for extra in extras for line in table["optional-dependencies"][extra]]


if __name__ == "__main__":
    print("\n".join(requirements(Path(sys.argv[1]), sys.argv[2:])))
