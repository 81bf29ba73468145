"""Audits what constraints.txt pins: `python deploy/audit.py`.

pip-audit asks for known weaknesses, where the index knows of any; where it does not (a mirror of packages has none)
that is said, and nothing was audited. Exit code 1 when a weakness is known, or a package could not be asked about.
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
ADVISORIES = "https://pypi.org/pypi/jinja2/2.10/json"
"""PyPI says with every release which weaknesses are known in it. This one has some: who knows none knows nothing."""
PATIENCE_S = 10


def main() -> int:
    """The command."""
    trouble = silent(ADVISORIES)
    if trouble is not None:
        print(f"NOT AUDITED: {ADVISORIES} does not answer here ({trouble}); run this where it does, before a release")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "pip-audit"], check=True)
        asked = ["--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip", "--strict", "--progress-spinner=off"]
        return subprocess.run([python, "-m", "pip_audit", *asked], check=False).returncode


def silent(url: str) -> str | None:
    """Why the index of advisories is of no use; None where it answers."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return None if json.load(answer).get("vulnerabilities") else "it names no vulnerabilities"
    except (OSError, ValueError, AttributeError) as error:
        return " ".join(str(error).split())[:100] or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
