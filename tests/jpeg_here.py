"""Damaged JPEG data looked for in the test's own process: packing starts an interpreter with OpenCV to look for them.

Most tests that pack ask for something else. The process itself is seen in tests/cpn/core/test_jpeg_warnings.py, in one
test of tests/cpn/sources/test_packing.py, and wherever a command has a process of its own.
"""

import contextlib
import io
import os
import sys
from pathlib import Path

import pytest

from cpn.core import jpeg_warnings
from cpn.core.opencv import cv2


class JpegWarningsHere(jpeg_warnings.JpegWarnings):
    """What the process would do, done here once all files are known."""

    def __init__(self) -> None:
        super().__init__()
        self._paths: list[Path] = []

    def add(self, path: Path) -> None:
        self._paths.append(path.absolute())

    def result(self) -> dict[Path, str]:
        names = {os.fsencode(path).hex(): path for path in self._paths}
        threads, stderr, printed = cv2.getNumThreads(), os.dup(2), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("".join(f"{name}\n" for name in names).encode())))
            try:
                jpeg_warnings.main()
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)
                cv2.setNumThreads(threads)
        return {names[name]: words for name, words in (line.split(" ", 1) for line in printed.getvalue().splitlines())}
