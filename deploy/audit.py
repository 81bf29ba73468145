"""Audits what constraints.txt pins: `python deploy/audit.py`.

Prints every package with version and licence, for a look by hand. Then pip-audit asks for known weaknesses, where the
index knows of any; where it does not (a mirror of packages has none) that is said, and nothing was audited. Exit code 1
when a weakness is known, or a package could not be asked about.
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from importlib import metadata
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
ADVISORIES = "https://pypi.org/pypi/jinja2/2.10/json"
"""PyPI says with every release which weaknesses are known in it. This one has some: who knows none knows nothing."""
PATIENCE_S = 10


def main() -> int:
    """The command."""
    for name, version in pins(CONSTRAINTS):
        print(f"{name} {version}: {licence(name)}")
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


def pins(constraints: Path) -> list[tuple[str, str]]:
    """Names and versions that a constraints file pins."""
    lines = [line.partition("#")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines()]
    return [(name, version) for name, _, version in (line.partition("==") for line in lines if line)]


def licence(name: str) -> str:
    """The licence that an installed package states."""
    try:
        stated = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "not installed here"
    classified = [c.rpartition(":: ")[2] for c in stated.get_all("Classifier") or [] if c.startswith("License ::")]
    first = (stated.get("License") or "").strip().partition("\n")[0]  # some give the whole text
    return stated.get("License-Expression") or ", ".join(classified) or first or "states none"


def silent(url: str) -> str | None:
    """Why the index of advisories is of no use; None where it answers."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return None if json.load(answer).get("vulnerabilities") else "it names no vulnerabilities"
    except (OSError, ValueError, AttributeError) as error:
        return " ".join(str(error).split())[:100] or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
