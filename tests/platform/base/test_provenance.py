"""Each start that changes command, commit or versions is kept once."""

import subprocess
from pathlib import Path
from platform.base.provenance import PACKAGES, keep_start, provenance, read_starts

import pytest


def test_where_results_come_from() -> None:
    told = provenance("python -m platform.sweep s.yaml")
    assert set(told) == {"command", "commit", "versions", "python"} and told["command"].endswith("s.yaml")
    assert [part.partition("=")[0] for part in told["versions"].split()] == list(PACKAGES) and told["commit"]


def test_a_start_like_the_last_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "starts.json"
    assert read_starts(path) == []
    one, two = ({"command": "a", "commit": at, "versions": "v", "python": "3"} for at in "12")
    for told in (one, one, two, two, one):
        keep_start(path, told)
    assert [entry["commit"] for entry in read_starts(path)] == ["1", "2", "1"]
    assert all(entry["started"] > 1e9 for entry in read_starts(path))
    path.write_text("{")
    keep_start(path, two)
    assert [entry["commit"] for entry in read_starts(path)] == ["2"]


OTHERS = ("{}", "null", "5", "[5]", "[{}]", '[{"command": "a", "commit": "1", "versions": "v", "python": "3"}]')


@pytest.mark.parametrize("content", OTHERS)
def test_what_holds_no_starts_is_said(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "starts.json").write_text(content)
    assert read_starts(tmp_path / "starts.json") == []
    assert "starts.json: is damaged (it holds no starts); the sweep's next start" in capsys.readouterr().err


def test_a_wheel_inside_somebody_s_repository_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a project's .venv: git looks for a repository above, and finds theirs."""
    from platform.base import provenance as module

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    installed = tmp_path / ".venv" / "lib" / "platform" / "provenance.py"
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(installed))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("git was asked"))
    assert module.provenance("a command")["commit"] == "unknown"
