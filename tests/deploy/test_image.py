"""The Dockerfile: linted, pinned, not root; what it copies is there and is let through. Its install steps run here."""

import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

FILE = CHECKOUT / "deploy" / "Dockerfile"
LINES = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", FILE.read_text())).splitlines()
STEPS = [tuple(line.split(" ", 1)) for line in LINES if line]
"""(instruction, rest) in their order."""


def test_the_linter_has_nothing_to_say() -> None:
    done = subprocess.run([str(Path(sys.executable).with_name("hadolint")), str(FILE)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_is_pinned_watched_and_not_root() -> None:
    bases = [rest.split()[0] for what, rest in STEPS if what == "FROM"]
    assert len(bases) == 2 and len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", bases[0])
    assert [rest for what, rest in STEPS if what == "USER"] == ["1000"]
    assert "HEALTHCHECK" in dict(STEPS)
    installs = [rest for what, rest in STEPS if what == "RUN" and "pip install" in rest]
    assert installs and all("--constraint constraints.txt" in rest or "--no-deps" in rest for rest in installs)


def test_what_is_copied_is_there_and_let_through() -> None:
    rules = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    let = [rule[1:].removesuffix("/**") for rule in rules if rule[0] == "!"]
    copied = [name for what, rest in STEPS if what == "COPY" and "--from" not in rest for name in rest.split()[:-1]]
    assert copied
    for name in copied:
        assert (CHECKOUT / name).exists(), name
    assert sorted(set(copied)) == sorted(let)
    assert not any(fnmatch("deploy/.env", rule) for rule in let)


def test_the_tag_is_the_versions() -> None:
    version = re.search(r'(?m)^version = "(.*)"$', (CHECKOUT / "pyproject.toml").read_text())
    assert version
    for path in (CHECKOUT / "deploy").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert set(re.findall(r"cpn-platform:(?:\$\{CPN_VERSION:-)?(\d[\d.]*\d)", path.read_text())) <= {version[1]}


@pytest.mark.cluster
@pytest.mark.extra
@pytest.mark.timeout(1800)
def test_its_install_steps_work_in_a_virtual_environment(tmp_path: Path) -> None:
    """Runs the first stage's pip steps as they stand, with a folder of this test in the place of /opt/venv."""
    stage = STEPS[: [what for what, _ in STEPS].index("FROM", 1)]
    build = tmp_path / "build"
    build.mkdir()
    # The caller's settings of pip, and its cache; nothing else, least of all this checkout's PYTHONPATH.
    environment = {name: value for name, value in os.environ.items() if name == "HOME" or name.startswith("PIP_")}
    environment |= {"PATH": f"{tmp_path}/venv/bin:/usr/local/bin:/usr/bin:/bin", "DEVICE": "cuda"}
    for what, rest in stage:
        if what == "COPY":
            *names, target = rest.split()
            subprocess.run(["cp", "-r", *[str(CHECKOUT / name) for name in names], str(build / target)], check=True)
        elif what == "RUN" and "apt-get" not in rest:
            step = rest.replace("/opt/venv", f"{tmp_path}/venv").replace("python3 -m venv", f"{sys.executable} -m venv")
            subprocess.run(["sh", "-ec", step], cwd=build, env=environment, check=True)
    python = tmp_path / "venv" / "bin" / "python"
    for module in ("platform.sweep", "platform.train", "cpn.prepare"):
        done = subprocess.run(
            [python, "-m", module, "--help"], cwd="/", env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0 and "python -m" in done.stdout, done.stderr
    wanted = (
        "import cpn.run, cpn.propagation.crf, boto3, mlflow, optuna, psycopg2, ray.train.torch, platform\n"
        "print(platform.node())"
    )
    subprocess.run([python, "-c", wanted], cwd="/", env=environment, check=True)
