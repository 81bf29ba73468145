"""JPEG files that decode to a whole image although their data are damaged: a flipped bit changes all pixels behind it.

libjpeg goes on after such damage. PIL drops its warning, and OpenCV leaves it to libjpeg, which prints it on standard
error without the file's name. So files are decoded once more, at an eighth of their size, in a process of its own:
`python -m cpn.core.jpeg_warnings` reads paths and prints the warnings.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from cpn.core.errors import WorkError


class JpegWarnings:
    """The process that decodes files, while it is entered."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile()  # and no pipe, which could be full while paths are still written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._output.close()

    def add(self, path: Path) -> None:
        """Have a file decoded, which has to be a whole JPEG for PIL; the first one starts the process."""
        if self._process is None:
            code = [sys.executable, "-P", "-m", "cpn.core.jpeg_warnings"]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(code, stdin=subprocess.PIPE, stdout=self._output, env=environment)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(os.fsencode(path.absolute()).hex().encode() + b"\n")
        except BrokenPipeError:
            raise self._ended() from None

    def result(self) -> dict[Path, str]:
        """Wait until all files are decoded; the damaged ones, each with libjpeg's words.

        Raises WorkError when the process ended before.
        """
        if self._process is None:
            return {}
        self._process.communicate()
        if self._process.returncode != 0:
            raise self._ended()
        self._output.seek(0)
        lines = (line.decode(errors="replace").split(" ", 1) for line in self._output.read().splitlines())
        return {Path(os.fsdecode(bytes.fromhex(path))): words for path, words in lines}

    def _ended(self) -> WorkError:
        assert self._process is not None
        return WorkError(
            f"the process that looks for damaged JPEG data ended with {self._process.wait()}; give the same command "
            "again, with more memory free"
        )


def main() -> None:
    """Decode the file of each line, a path in hex, and print those with a warning: the line, and what was said."""
    import numpy as np

    from cpn.core.opencv import cv2

    cv2.setNumThreads(1)
    flags = cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION
    with tempfile.TemporaryFile() as warnings:
        os.dup2(warnings.fileno(), 2)
        for line in sys.stdin.buffer:
            path = os.fsdecode(bytes.fromhex(line.decode()))
            cv2.imdecode(np.fromfile(path, np.uint8), flags)
            if warnings.tell():
                warnings.seek(0)
                words = warnings.readline().decode(errors="replace").strip()
                print(line.decode().strip(), words.removeprefix("Corrupt JPEG data: "), flush=True)
                warnings.seek(0)
                warnings.truncate()


if __name__ == "__main__":
    main()
