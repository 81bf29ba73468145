"""The command `report`: what it prints, where it writes, and what it says before the end of a sweep."""

import errno
import json
import tempfile
from pathlib import Path
from platform.base.paths import Storage
from platform.report import main

import pytest

from cpn.core.errors import InputError
from tests.platform.made_sweep import make_sweep
from tests.platform.reports.test_page import Page


def test_so_far(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_sweep(tmp_path, "early", 2, ended=False)
    assert main(["early", "--storage", str(store.root)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "so far: stopped, 2 trials have ended and there is no verdict yet" in said
    assert said[-1] == f"next: open {store.sweep('early').report.as_uri()} in a browser"
    words = Page(store.sweep("early").report.read_text()).words
    assert "no verdict yet" in words and "Best on the select images:" in words and "Winner:" not in words
    assert "Importances are left out: they need 8 full trials, there are 2." in words


def test_where_it_goes_and_json(made: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["made", "--storage", str(made.root), "--out", str(tmp_path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [Path(file).name for file in found["files"]] == ["report.html", "leaderboard.md", "leaderboard.tex"]
    assert all(Path(file).is_file() and Path(file).parent == tmp_path for file in found["files"])
    assert not made.sweep("made").report.exists()


@pytest.mark.parametrize(
    ("words", "place"), [("made", "sweeps/made"), ("made --out o", "o"), ("--paper", "."), ("--paper --out o", "o")]
)
def test_a_place_that_cannot_be_written_is_one_line(
    words: str, place: str, made: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dir: Path) -> None:  # noqa: A002
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.chdir(made.root.parent)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"cannot be written \(Read-only file system\); choose another folder") as said:
        main(words.split())
    assert str(said.value).startswith("--out: ") and f"{place} cannot" in str(said.value)
    assert not made.sweep("made").report.exists()
