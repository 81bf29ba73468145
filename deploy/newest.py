"""Test the project against the newest libraries that the index has: `make newest`.

An environment of its own gets what pyproject.toml asks for without its upper bounds and without constraints.txt. The
tests run in it, and what breaks is listed: each library whose version lies outside of the range that pyproject.toml
allows, then each failed test. Nothing of the project changes. The exit code is that of the tests, or 2 where the
libraries do not install together.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
TESTS = ("-m", "not long and not browser and not cluster")
NAME = re.compile(r"^\s*([A-Za-z0-9._-]+(?:\[[^\]]*\])?)([^;]*)(;.*)?$")


def unbounded(requirement: str) -> str:
    """A requirement without what holds it back: `ray[tune]>=2.60,<2.61` -> `ray[tune]>=2.60`."""
    match = NAME.match(requirement)
    assert match is not None, requirement
    bounds = [part.strip() for part in match[2].split(",")]
    lower = [bound for bound in bounds if bound.startswith((">", "!="))]
    return match[1] + ",".join(lower) + (match[3] or "")


def requirements() -> tuple[list[str], list[str]]:
    """What the project and its tests ask for, and the same without upper bounds."""
    table = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*table["dependencies"], *(line for lines in table["optional-dependencies"].values() for line in lines)]
    return asked, [unbounded(line) for line in asked]


def outside(asked: Sequence[str], versions: dict[str, str]) -> list[str]:
    """A line for each library whose installed version the project does not allow; names are as pip lists them."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    installed = {canonicalize_name(name): version for name, version in versions.items()}
    lines = set()
    for requirement in map(Requirement, asked):
        version = installed.get(canonicalize_name(requirement.name))
        if version is not None and not requirement.specifier.contains(version, prereleases=True):
            lines.add(f"{requirement.name} {version}: pyproject.toml allows {requirement.specifier}")
    return sorted(lines)


def broken(output: str) -> list[str]:
    """The failed tests in what pytest printed, with the first words of why."""
    return [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Install, test, list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--venv", type=Path, default=CHECKOUT / "build" / "newest", help="the environment (%(default)s)"
    )
    parser.add_argument("tests", nargs="*", help="what pytest is asked for; all quick tests where nothing is said")
    options = parser.parse_args(arguments)
    asked, free = requirements()
    venv.create(options.venv, with_pip=True)
    python = str(options.venv / "bin" / "python")
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for words in (["--upgrade", *free], ["--no-deps", "--editable", str(CHECKOUT)]):
        if subprocess.run([*pip, "install", *words]).returncode:
            print("the newest libraries do not install together: pip says above which", file=sys.stderr)
            return 2
    listed = subprocess.run([*pip, "list", "--format", "json"], check=True, capture_output=True, text=True).stdout
    versions = {row["name"]: row["version"] for row in json.loads(listed)}
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-rfE", *(options.tests or TESTS)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = [*outside(asked, versions), *broken(done.stdout)]
    print("\n".join(lines) or "nothing breaks")
    if done.returncode not in (0, 1):
        print(done.stdout[-2000:], file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
