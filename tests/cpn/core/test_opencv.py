"""A missing system library is answered with one line that names the package."""

import subprocess
import sys
from pathlib import Path

from cpn.core.opencv import missing_library

BROKEN = "libGL.so.1: cannot open shared object file: No such file or directory"


def test_the_line_names_library_and_package() -> None:
    assert missing_library(BROKEN) == (
        "import cv2: the system library libGL.so.1 is missing; on Debian or Ubuntu: apt-get install libgl1"
    )
    assert "libglib2.0-0" in str(missing_library(BROKEN.replace("libGL.so.1", "libgthread-2.0.so.0")))


def test_an_unknown_library_is_named_too() -> None:
    assert "libodd.so.7" in str(missing_library("libodd.so.7: cannot open shared object file"))


def test_another_failure_is_not_dressed_up() -> None:
    assert missing_library("No module named 'cv2'") is None


def test_a_command_ends_with_that_line(tmp_path: Path) -> None:
    """With a cv2 that cannot be loaded, a command ends with exit code 2 and one line, not a traceback."""
    (tmp_path / "cv2.py").write_text(f"raise ImportError({BROKEN!r})\n")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from cpn.core.errors import run_command\n"
        "def main():\n"
        "    from cpn.core.opencv import cv2\n"
        "run_command(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "apt-get install libgl1" in done.stderr
