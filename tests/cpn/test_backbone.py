"""The command that checks a backbone of one's own: its table, its JSON, and the example of its page."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cpn.backbone import main
from cpn.core.errors import InputError
from tests.bad_input.backbones import Plain
from tests.conftest import CHECKOUT
from tests.cpn.cost.test_backbone_check import Detached

PAGE = (CHECKOUT / "docs" / "own_backbone.md").read_text(encoding="utf-8")
DETACHED = f"{Detached.__module__}:Detached"


def test_the_table_ends_with_what_to_type_next(capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{Plain.__module__}:Plain"
    assert main(["--check", name]) == 0
    text = capsys.readouterr().out
    assert re.search(r"│ gradients +│ passed │", text) and re.search(r"\n\d+ passed, \d notes?, 0 failed\n", text)
    following = f"search_spaces/patch.yaml --dry-run --run-code --set network.backbone={name}"
    assert text.endswith(f"next: python -m platform.sweep {following}\n")
    with pytest.raises(InputError) as refused:
        main(["--check", DETACHED])
    text = capsys.readouterr().out
    assert re.search(r"│ gradients +│ FAILED │", text)
    assert text.endswith(f"next: python -m cpn.backbone --check {DETACHED}\n")
    assert str(refused.value).startswith(f"network.backbone: '{DETACHED}': gradients: of 5 trained")
    assert str(refused.value).endswith("return the top without detach(), no_grad() or .data")


def test_json_has_one_line_per_check_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", f"{Plain.__module__}:Plain", "--json"]) == 0
    streams = capsys.readouterr()
    rows = [json.loads(line) for line in streams.out.splitlines()]
    assert len(rows) == 12 and all(set(row) == {"check", "result", "found", "cure"} for row in rows)
    assert streams.err.startswith("next: ") and streams.err.count("\n") == 1
    with pytest.raises(InputError):
        main(["--check", DETACHED, "--json"])
    streams = capsys.readouterr()
    results = [json.loads(line)["result"] for line in streams.out.splitlines()]
    assert "failed" in results and streams.err == "", "the error is the one line there"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The page's example, as its reader has it: a file in the working folder."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_networks.py").write_text(block)
    return tmp_path


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "cpn.backbone", "--check", "my_networks:Small", *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_pages_example_passes_every_named_check(written: Path) -> None:
    ended = command(written, "--json")
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert {row["check"] for row in rows if row["result"] == "failed"} == set()
    assert ", ".join(row["check"] for row in rows) in " ".join(PAGE.split())


def test_the_pages_error_is_what_a_mistake_in_its_example_gives(written: Path) -> None:
    source = written / "my_networks.py"
    source.write_text(source.read_text().replace("block(32, 64, 2)", "block(33, 64, 2)"))
    ended = command(written)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 2 and "Traceback" not in ended.stdout
    printed = PAGE[PAGE.index("    error: network.backbone: 'my_networks:Small'") :].splitlines()[0].strip()
    start, middle, _ = printed.split(" ...")
    place = middle.strip(" (")
    assert (
        line.startswith(start) and place in line and line.endswith("python -m cpn.backbone --check my_networks:Small")
    )
    assert "self.stage3(" in source.read_text().splitlines()[int(re.findall(r"line (\d+)", place)[0]) - 1]


def test_a_number_of_classes_below_1_is_refused() -> None:
    with pytest.raises(InputError, match="^--classes 0: no number of classes; give 1 or more$"):
        main(["--check", "scene", "--classes", "0"])
