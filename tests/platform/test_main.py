"""`python -m platform` is what the standard library's module is."""

import subprocess
import sys

from tests.conftest import CHECKOUT


def test_python_m_platform_prints_what_it_always_did() -> None:
    def printed(*options: str) -> str:
        command = [sys.executable, *options]
        return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout

    expected = printed("-I", "-S", "-m", "platform")
    assert expected.count("\n") == 1
    assert printed("-m", "platform") == expected
    assert printed("-S", "-m", "platform") == expected  # -S: as in a checkout that is not installed
