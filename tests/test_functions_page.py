"""docs/functions.md: every example prints what its comment says, every signature is the function's."""

import contextlib
import importlib
import inspect
import io
import re

import numpy as np
import pytest
import torch

from tests.conftest import CHECKOUT

TEXT = (CHECKOUT / "docs" / "functions.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
SIGNATURES = re.findall(r"`(cpn(?:\.\w+)+)\(([\w, ]*)\)`", TEXT)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:60])
def test_every_example_prints_what_its_comment_says(block: str) -> None:
    expected = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
    assert expected, "an example shows something"
    torch.manual_seed(0)
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard):
        exec(compile(block, "docs/functions.md", "exec"), {"np": np, "torch": torch})
    assert heard.getvalue().splitlines() == expected


@pytest.mark.parametrize(("name", "parameters"), SIGNATURES, ids=[name for name, _ in SIGNATURES])
def test_every_signature_is_the_functions(name: str, parameters: str) -> None:
    module, _, attribute = name.rpartition(".")
    function = getattr(importlib.import_module(module), attribute)
    assert list(inspect.signature(function).parameters) == parameters.split(", ")


def test_the_page_says_something_of_every_item() -> None:
    assert re.findall(r"^## \((\w)\)", TEXT, re.MULTILINE) == list("abcdefghij")
    assert len(BLOCKS) >= 14 and len(SIGNATURES) >= 50
