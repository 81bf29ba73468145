"""One damage of each kind of file that a sweep writes; all of them by `python -m benchmarks damage`."""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from platform import leaderboard, report, status
from platform.reports.snapshot import say_once

import pytest

from benchmarks.chaos import damage as campaign
from benchmarks.chaos.damage import BAD, Ended, follow, named, outcome
from benchmarks.chaos.damage_files import DAMAGES, KINDS, file_of
from cpn.core.errors import InputError
from tests.platform.made_sweep import make_sweep

FILES = {
    "clock.json": "made/clock.json",
    "driver.json": "made/driver.json",
    "starts.json": "made/starts.json",
    "summary.json": "made/summary.json",
    "spec.yaml": "made/spec.yaml",
    "study.db": "study.db",
    "result.json": "runs/*/result.json",
    "cam_panel.png": "runs/*/pictures/cam_panel.png",
}
"""File -> where it lies below sweeps."""
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "report": report.main,
    "leaderboard": leaderboard.main,
    "status": status.main,
}
READS = {
    "report": set(FILES),
    "leaderboard": {"clock.json", "driver.json", "summary.json", "spec.yaml", "study.db"},
    "status": {"driver.json", "summary.json", "spec.yaml", "study.db"},
}
"""Command -> the files that it reads."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    make_sweep(folder / "work", trials=8)
    shutil.copytree(folder / "work", folder / "whole")
    return folder


@pytest.mark.parametrize("damage", ["half", "one byte"])
@pytest.mark.parametrize("name", FILES)
def test_commands_name_a_damaged_file(
    made: Path, name: str, damage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = made / "work"
    shutil.rmtree(work)
    shutil.copytree(made / "whole", work)
    monkeypatch.chdir(work)
    pattern = FILES[name]
    # Of several runs the best one's, which the report shows.
    best = max(
        (work / "sweeps").glob(pattern), key=lambda path: path.stat().st_size if "*" not in pattern else len(str(path))
    )
    for path in (work / "sweeps").glob(pattern) if "*" in pattern else [best]:
        assert DAMAGES[damage](path, Path("none"))
    for command, main in COMMANDS.items():
        say_once.cache_clear()
        words = ["made"] if command != "leaderboard" else ["made", "--json"]
        try:
            assert main(words) == 0
            error = ""
        except InputError as refused:
            error = str(refused)
            assert "; " in error and "\n" not in error
        told = capsys.readouterr()
        said = told.out + told.err + error
        assert "Traceback" not in said
        whole_database = name == "study.db" and damage == "one byte"  # which may hit a page that nobody reads
        if name in READS[command] and not whole_database:
            assert name in said, (command, said)


OTHERS = ("{}", "[]", "null", "5", '{"name": "made", "budget": 5}')


@pytest.mark.parametrize("content", OTHERS)
@pytest.mark.parametrize("name", ["clock.json", "driver.json", "summary.json", "spec.yaml"])
def test_a_file_that_holds_something_else_is_damaged(
    made: Path, name: str, content: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(made / "work")
    shutil.copytree(made / "whole", made / "work")
    monkeypatch.chdir(made / "work")
    (made / f"work/sweeps/made/{name}").write_text(content)
    for command in ("leaderboard", "status"):
        say_once.cache_clear()
        error = ""
        try:
            assert COMMANDS[command](["made", "--json"]) == 0
        except InputError as refused:
            error = f"error: {refused}"
        told = capsys.readouterr()
        if name in READS[command]:
            lines = [line for line in (error + told.out + told.err).splitlines() if f"{name}: is damaged" in line]
            assert lines and all("command again" in line or "next start" in line for line in lines)


def test_the_damages(tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.write_text("{}")
    for name, damage in DAMAGES.items():
        path = tmp_path / "a.json"
        path.write_text('{"miou": 44.25}')
        assert damage(path, older), name
        assert not path.exists() if name == "missing" else path.read_text() != '{"miou": 44.25}'
    path.write_text("{}")
    assert not DAMAGES["older copy"](path, older) and not DAMAGES["older copy"](path, tmp_path / "none")
    (tmp_path / "empty").write_text("")
    assert not any(DAMAGES[name](tmp_path / "empty", older) for name in ("empty", "half", "one byte", "zeros"))


def test_kinds_name_a_file_each(tmp_path: Path) -> None:
    (tmp_path / "sweeps/runs/abc").mkdir(parents=True)
    (tmp_path / "sweeps/runs/abc/result.json").write_text("{}")
    keys = {"winner": "abc", "confirm": "def"}
    found = {kind: file_of(kind, tmp_path, keys) for kind in KINDS}
    assert found["run: result.json"] == tmp_path / "sweeps/runs/abc/result.json" and found["clock"] is None


def test_what_a_line_names_and_what_its_cure_does(tmp_path: Path) -> None:
    path = tmp_path / "sweeps/runs/abc/model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert named(path, f"error: {path}: is damaged; delete it") and named(path, "run abc is damaged")
    assert not named(path, "error: something is damaged")
    assert not follow(f"error: {path}: is damaged", path, tmp_path), "no cure"
    assert follow("a: is damaged; delete it, and give the same command again", path, tmp_path) and not path.exists()
    path.write_text("")
    assert follow(f"move it away (mv {path} {path}.damaged; rm -f {path}-wal) and so on", path, tmp_path)
    assert not path.exists() and path.with_name("model.safetensors.damaged").exists()
    assert (
        outcome("gc", Ended(2, "", "error"), tmp_path) == 2
        and Ended(1, "", "Traceback (most recent call last):").traceback
    )
    assert set(BAD) == {"silent", "unnamed", "traceback", "dead_end"}


def test_the_same_command_goes_on_and_tries_again_what_was_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole/sweeps/smoke").mkdir(parents=True)
    for name in ("clock", "driver"):
        (tmp_path / f"whole/sweeps/smoke/{name}.json").write_text('{"a": 1}')
    monkeypatch.setattr(campaign, "keys_of", lambda folder: {"winner": "a", "confirm": "b"})
    monkeypatch.setattr(campaign, "outcome", lambda name, ended, work: ended.out)
    tried: list[str] = []
    broken = {"clock"}

    def command(words: str, work: Path) -> Ended:
        damaged = [name for name in ("clock", "driver") if "1" not in (work / f"sweeps/smoke/{name}.json").read_text()]
        tried.extend(damaged)
        return Ended(0, "wrong" if broken & set(damaged) else "right", "")

    def came(**changes: object) -> tuple[list[str], int]:
        options = {"files": ["clock", "driver"], "damages": ["half"], "commands": ["gc"], "hours": None, **changes}
        tries, left_out = campaign.campaign(tmp_path, argparse.Namespace(**options))
        return [each.came for each in tries], left_out

    monkeypatch.setattr(campaign, "command", command)
    assert came() == (["silent", "same"], 0) and tried == ["clock", "driver"]
    broken.clear()
    assert came(hours=0) == (["same"], 1) and came() == (["same", "same"], 0) and tried == ["clock", "driver", "clock"]
    assert came() == (["same", "same"], 0) and len(tried) == 3
    assert len((tmp_path / campaign.TRIES).read_text().splitlines()) == 3


def test_the_folder_is_restored_and_whole_files_stay(tmp_path: Path) -> None:
    whole, work = tmp_path / "whole", tmp_path / "work"
    (whole / "a/b").mkdir(parents=True)
    for name in ("a/b/one", "a/two", "three"):
        (whole / name).write_text(name)
    campaign.restore(tmp_path)
    stays = (work / "three").stat().st_ino
    (work / "a/two").write_text("TWO")
    shutil.rmtree(work / "a/b")
    (work / "a/new/folder").mkdir(parents=True)
    (work / "a/new/file").touch()
    (work / "a/link").symlink_to(work / "a/new")
    campaign.restore(tmp_path)
    files = {str(path.relative_to(work)): path.read_text() for path in work.rglob("*") if path.is_file()}
    assert files == {name: name for name in ("a/b/one", "a/two", "three")}
    assert (work / "three").stat().st_ino == stays and not (work / "a/new").exists()
