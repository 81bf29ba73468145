"""README, tour, own_data, voc: their commands are taken, and what runs within seconds is run and says what they say.

What takes minutes is run small: a comment in the page's source, in front of the block, names the commands of the block
that are run, and the words that each gets besides.

    <!-- run small: platform.sweep --dry-run; platform.train --set train.epochs=1; cpn.score -->
"""

import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path
from platform.config.space.domains import drawn
from platform.config.spec import load_spec
from platform.search.sweep_summary import LeaderboardEntry

import pytest

from benchmarks.__main__ import COMPARISONS, TOPICS
from cpn import prepare, synthetic
from tests.conftest import CHECKOUT
from tests.platform.made_sweep import make_sweep
from tests.platform.reports.test_terminal_tables import printed, summary

DOCS = CHECKOUT / "docs"
PAGES = [CHECKOUT / "README.md", DOCS / "tour.md", DOCS / "own_data.md", DOCS / "voc.md"]
LEAST = {"README.md": 8, "tour.md": 7, "own_data.md": 10, "voc.md": 12}
"""Commands of each page: fewer means that they are not found any more."""
COMMAND = re.compile(
    r"(?:^ {4}|`|-> )(?:\w+=\S+ )*((?:\.venv/bin/)?python -m (?:cpn|platform|benchmarks)[ .][^#\n`>]*)", re.M
)
SMALL = re.compile(r"^<!-- run small: (.+?) -->\n\n((?: {4}.*\n)+)", re.MULTILINE)
MINUTES = ("platform.sweep", "platform.train", "cpn.score", "cpn.predict", "cpn.explain")
"""Commands that pass images through a network, or plan to."""
NOT_RUN = {"cpn.score model.safetensors --root data/VOC2012 --paper"}
"""Of a released checkpoint, which is nowhere to be had here."""
LEFT_OUT = ("checking ", "packing ", "next: ")
"""Progress, which depends on the machine, and the next command, which names the folder in full."""


def commands(page: Path) -> list[list[str]]:
    """The words of every command of ours on a page, in blocks and in backticks, without redirection and comment."""
    return commands_in(page.read_text(encoding="utf-8"))


def commands_in(text: str) -> list[list[str]]:
    """The same of a part of a page."""
    text = text.replace("\\\n", " ")
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


def test_voc_prints_the_price_that_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("search_spaces").symlink_to(CHECKOUT / "search_spaces")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a GPU is timed, the page's machine had none
    (command,) = block_after("voc.md", "## What it costs")
    main_of(shlex.split(command, comments=True))
    plan = " ".join(capsys.readouterr().out.split())
    runs, hours, memory, image, disk = (
        float(re.findall(pattern, plan)[0])
        for pattern in (r"about ([\d.]+) GPU-hours a run", r"([\d.]+) in all without pruning",
                        r"at least ([\d.]+) GiB for it", r"CAM ([\d.]+) GiB", r"disk: at most ([\d.]+) GB")
    )  # fmt: skip
    table = (DOCS / "voc.md").read_text(encoding="utf-8").partition("| what | estimate |")[2].partition("\n\n")[0]
    assert "64 trials, the reference first, then 15 confirm runs" in plan
    for said in (
        f"{runs:.2f} GPU-hours", f"63 trials, 15 confirm runs, all at full length | {hours:.0f} GPU-hours",
        f"{hours / 24:.0f} days of one card", f"half way | about {round(hours - 63 / 4 * runs, -1):.0f} GPU-hours",
        f"at least {memory} GiB", f"mirrored | at least {image} GiB", f"at most {disk:.0f} GB",
    ):  # fmt: skip
        assert said in table


def masked(line: str) -> str:
    """A printed line without its numbers and their signs, and without the lines around a table."""
    return " ".join(re.sub(r"-?\d+(\.\d+)?", "#", re.sub(r"[┃│┏┓┡┩╇┳━└┘┴─]", " ", line)).split())


@pytest.mark.parametrize("page", ["README.md", "tour.md"])
def test_a_page_shows_the_tables_that_a_sweep_prints(page: str) -> None:
    """From the verdict to the steps, by words and their order; a page may leave lines out, and has other numbers."""
    names = list(drawn(load_spec(CHECKOUT / "search_spaces/quickstart.yaml", []).search))
    by_kind = {kind: {name: 1.0 for name in names if not name.endswith(other)}
               for kind, other in (("superpixel", ".K"), ("grid", ".S_N"))}  # fmt: skip
    entries = [
        LeaderboardEntry(
            uid=f"quickstart-{number:04d}", role="search" if number else "reference", miou=50.0, beta=0.5,
            values={**by_kind[kind], "patches.kind": kind, **({"patches.K": "4,8"} if kind == "grid" else {})},
            **({"miou_confirm_mean": 50.0, "interval": [49.0, 51.0], "seeds": 3} if kind == "superpixel" else {}),
        )
        for number, kind in enumerate(("superpixel", "superpixel", "grid"))
    ]  # fmt: skip
    verdict = "no trial beat the reference (best: quickstart-0006, 1.6 points lower [-2.9, -0.3])"
    said = printed(summary(sweep="quickstart", winner="quickstart-0000", leaderboard=entries, verdict=verdict,
                           against_baseline="CPN against cam_baseline: +0.6 [-1.5, 2.6], no gain shown"))  # fmt: skip
    path = CHECKOUT / page if page == "README.md" else DOCS / page
    text = path.read_text(encoding="utf-8")
    _, _, block = text.partition("    verdict: ")
    block, ended, _ = ("verdict: " + block).partition("DeepLab with CRF")
    shown = [masked(line) for line in (block + ended).splitlines() if masked(line) not in ("", "...")]
    printed_lines = iter([masked(line) for line in said.splitlines()])
    ladder_from = shown.index("from CAM to segmentation")
    assert len(shown) > 12 and "configurations" in shown[:ladder_from]
    missing = [line for line in shown[:-1] if line not in printed_lines]
    assert missing == [], "not printed, or not in this order"
    assert any(line.startswith(shown[-1]) for line in printed_lines), shown[-1]


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


def test_what_takes_minutes_is_run_small() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        small = [words for block in SMALL.findall(text) for words in small_commands(*block)]
        blocks = "".join(line for line in text.splitlines(keepends=True) if line.startswith("    "))
        wanted = [words[2:] for words in commands_in(blocks) if words[2] in MINUTES]
        left = [" ".join(words) for words in wanted if not any(run[: len(words)] == words for run in small)]
        assert set(left) <= NOT_RUN, f"{page.name}: say in a comment how it is run small"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_commands_of_minutes_run_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one made data set, which is VOC's, yours and that of the insects; KEY is the newest run's."""
    monkeypatch.chdir(tmp_path)
    Path("search_spaces").symlink_to(CHECKOUT / "search_spaces")
    synthetic.main("insects --classes ant bee moth wasp --train 16 --val 6 --seed 7".split())
    prepare.main(["insects"])
    Path("data").mkdir()
    for name in ("data/VOC2012", "mydata"):
        Path(name).symlink_to(tmp_path / "insects")
    Path("insects.yaml").write_text("\n".join(block_after("own_data.md", "becomes the description of the records:")))
    Path("photos").mkdir()
    image = sorted(Path("insects/JPEGImages").iterdir())[0]
    for copy in ("photos/a.jpg", "cat.jpg"):
        shutil.copy(image, copy)
    done: list[list[str]] = []
    # The pages that train come first: the others use what was trained.
    for page in sorted(PAGES, key=lambda page: page.name not in ("voc.md", "own_data.md")):
        for listed, block in SMALL.findall(page.read_text(encoding="utf-8")):
            for module, *words in small_commands(listed, block):
                if [module, *words] in done:  # another page shows it too
                    continue
                done.append([module, *words])
                runs = sorted(Path("sweeps/runs").glob("*/result.json"), key=lambda path: path.stat().st_mtime)
                model = str(runs[-1].with_name("model.safetensors")) if runs else ""
                told = [re.sub(r"sweeps/(runs/|stages/deeplab-)KEY/model.safetensors", model, word) for word in words]
                assert import_module(module).main(told) == 0, (page.name, module, told)
    assert len(runs) >= 2 and list(Path("predictions").rglob("*.png")), "two pages train, and two predict"


def small_commands(listed: str, block: str) -> list[list[str]]:
    """The module and words of each command of a block that a comment lists, with the words that it adds."""
    added = {module: words for module, *words in (shlex.split(one) for one in listed.split(";"))}
    return [[*words, *added[words[0]]] for _, _, *words in commands_in(block) if words[0] in added]
