"""Write which licence each pinned package has: `.venv/bin/python deploy/licences.py docs/licences.md` (make licences).

What the packages' own metadata say, read by pip-licenses in the environment that `make` set up. The full texts, as an
image or a copy of the environment has to carry them along, lie in each package's *.dist-info folder.
"""

import subprocess
import sys
from pathlib import Path

HEAD = """# Licences of what is installed

Written by `make licences`: the packages pinned in constraints.txt, and the licence that the metadata of each names. The
project itself is under the [MIT licence](../LICENSE). Full texts:
`pip-licenses --with-license-file --format=plain-vertical`, or the `*.dist-info` folders of the environment. The CUDA
build of torch brings NVIDIA's libraries under NVIDIA's terms.

The photographs in docs/photo_maps.png come with scikit-image, whose documentation says of them: chelsea, CC0 by Stefan
van der Walt; camera, CC0 by Lav Varshney; coffee, CC0 by Rachel Michetti; astronaut, by NASA, no known copyright
restrictions, released into the public domain.

"""


def pinned(constraints: Path) -> list[str]:
    """Names of the packages."""
    return [line.split("==")[0] for line in constraints.read_text().splitlines() if "==" in line and line[0] != "#"]


def main() -> int:
    """Write the page."""
    names = pinned(Path(__file__).resolve().parents[1] / "constraints.txt")
    tool = [
        sys.executable,
        "-m",
        "piplicenses",
        "--from=mixed",
        "--with-system",
        "--format=markdown",
        "--packages",
        *names,
    ]
    table = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    Path(sys.argv[1]).write_text(HEAD + table.replace("+cpu", ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
