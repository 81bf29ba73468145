"""The audit of the dependencies: it asks where somebody answers, fails on what is known, and says when nobody did."""

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy import audit

CHECKOUT = Path(__file__).resolve().parents[2]


class Index(BaseHTTPRequestHandler):
    """Of advisories, or of packages alone."""

    def do_GET(self) -> None:
        known = {
            "/json": b'{"info": {}, "vulnerabilities": [{"id": "PYSEC-2019-217"}]}',
            "/mirror": b'{"info": {}, "vulnerabilities": []}',
            "/simple": b'{"files": []}',
        }.get(self.path)
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(known or b"<html>")

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def index() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_where_nobody_answers_that_is_said(index: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.silent(f"{index}/json") is None
    assert audit.silent(f"{index}/mirror") == audit.silent(f"{index}/simple") == "it names no vulnerabilities"
    assert "404" in str(audit.silent(f"{index}/other")) and "refused" in str(audit.silent("http://127.0.0.1:9/"))


@pytest.mark.parametrize("found", [0, 1])
def test_its_end_is_that_of_pip_audit(
    found: int, index: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        commands.append(command)
        return SimpleNamespace(returncode=found)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(audit, "ADVISORIES", f"{index}/json")
    assert audit.main() == found and "NOT AUDITED" not in capsys.readouterr().out
    assert commands[-1][1:3] == ["-m", "pip_audit"]
    assert {str(CHECKOUT / "constraints.txt"), "--strict"} <= set(commands[-1])
    monkeypatch.setattr(audit, "ADVISORIES", f"{index}/simple")
    commands.clear()
    assert audit.main() == 0 and "NOT AUDITED: " in capsys.readouterr().out.splitlines()[-1] and not commands
