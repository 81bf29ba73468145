"""constraints.txt pins all that pyproject.toml asks for, directly or not."""

import itertools
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(line) for line in [*PROJECT["dependencies"], *itertools.chain(*EXTRAS.values())]]
PINS = {
    canonicalize_name(name): version
    for name, _, version in (
        line.partition("==") for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if line[0] != "#"
    )
}


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_a_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_what_optuna_imports_for_importances_is_asked_for() -> None:
    """Its fANOVA needs scikit-learn, which is none of its own requirements."""
    assert "scikit-learn" in {Requirement(line).name for line in PROJECT["dependencies"]}


def test_no_pin_names_one_build() -> None:
    """torch==2.13.0+cpu would shut out the GPU builds: which one comes is for the index to say."""
    assert [version for version in PINS.values() if not version or "+" in version or "@" in version] == []


def test_what_the_dependencies_need_is_pinned_too() -> None:
    """Walks the metadata of what is installed here. torch's CUDA packages are left to torch, which pins them itself."""
    waiting, seen, loose = list(DIRECT), set(), set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        if name not in PINS:
            loose.add(name)
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # an environment from before its pin; `make` brings it up to date before it runs this
        for line in needs:
            child = Requirement(line)
            if child.marker is None or any(
                child.marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras}
            ):
                waiting.append(child)
    assert {name for name in loose if not name.startswith(("nvidia-", "cuda-", "triton"))} == set()
