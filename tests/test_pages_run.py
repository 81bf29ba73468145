"""README, tour, own_data, voc: their commands are taken, and what runs within seconds is run and says what they say."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.__main__ import COMPARISONS, TOPICS
from cpn import prepare, synthetic
from tests.conftest import CHECKOUT
from tests.platform.made_sweep import make_sweep

DOCS = CHECKOUT / "docs"
PAGES = [CHECKOUT / "README.md", DOCS / "tour.md", DOCS / "own_data.md", DOCS / "voc.md"]
LEAST = {"README.md": 8, "tour.md": 7, "own_data.md": 10, "voc.md": 12}
"""Commands of each page: fewer means that they are not found any more."""
COMMAND = re.compile(
    r"(?:^ {4}|`|-> )(?:\w+=\S+ )*((?:\.venv/bin/)?python -m (?:cpn|platform|benchmarks)[ .][^#\n`>]*)", re.M
)
LEFT_OUT = ("checking ", "packing ", "next: ")
"""Progress, which depends on the machine, and the next command, which names the folder in full."""


def commands(page: Path) -> list[list[str]]:
    """The words of every command of ours on a page, in blocks and in backticks, without redirection and comment."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    named = dict(re.findall(r'^ {4}(\w+)="(.*)"$', text, re.MULTILINE))
    found = [re.sub(r"\$(\w+)", lambda name: named[name[1]], words) for words in COMMAND.findall(text)]
    return [shlex.split(words) for words in dict.fromkeys(found)]


def block_after(page: str, words: str) -> list[str]:
    """The lines of the first indented block behind `words` on a page of docs/."""
    _, found, rest = (DOCS / page).read_text(encoding="utf-8").partition(words)
    block = re.search(r"(?:^|\n)((?: {4}.*\n)+)", rest)
    assert found and block is not None, words
    return [line[4:] for line in block[1].splitlines()]


def main_of(words: list[str]) -> None:
    """Run a command in this process."""
    assert import_module(words[2]).main(words[3:]) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_parsers_take_the_commands_of_a_page(page: Path) -> None:
    found = commands(page)
    assert len(found) >= LEAST[page.name]
    for _, _, module, *words in found:
        if not words:  # a mention: test_readme.py looks whether the module is there
            continue
        if module.startswith("benchmarks"):
            assert "." in module or words[0] in {**COMPARISONS, **TOPICS}, words
        else:
            import_module(module).parser().parse_args(words)


def test_own_data_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made, prepared = block_after("own_data.md", "## Tried here")
    synthetic.main(shlex.split(made, comments=True)[3:])
    capsys.readouterr()
    prepare.main(shlex.split(prepared)[3:])
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(LEFT_OUT)]
    shown = block_after("own_data.md", "\n    python -m cpn.prepare insects\n\nprinted\n")
    assert said == [line for line in shown if not line.startswith(LEFT_OUT)]
    space = block_after("own_data.md", "becomes the description of the records:")
    (tmp_path / "insects.yaml").write_text("\n".join(space) + "\n")
    main_of(shlex.split("python -m platform.sweep insects.yaml --dry-run"))
    plan = " ".join(capsys.readouterr().out.split())
    assert "data: insects" in plan or f"data: {tmp_path}/insects" in plan
    assert "nothing was started; next: python -m platform.sweep insects.yaml" in plan


def test_the_tours_looks_at_a_sweep_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_sweep(tmp_path, "quickstart", 8)
    monkeypatch.chdir(tmp_path)
    report, *_ = block_after("tour.md", "## 3. The report")
    looks = block_after("tour.md", "## 6. Other trials")
    assert len(looks) == 3
    for line in (report, *looks):
        main_of(shlex.split(line.partition(">")[0], comments=True))
    said = capsys.readouterr().out
    assert (tmp_path / "sweeps/quickstart/report.html").is_file() and "sweeps/quickstart/report.html" in said
    assert "leaderboard of quickstart" in said and "what differs in the configuration" in said
    assert "# trial quickstart-0001 of sweep quickstart" in said
