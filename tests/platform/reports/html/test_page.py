"""The report as a file: whole, of one piece, nothing fetched, nothing believed that somebody else wrote."""

import base64
import gzip
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from platform.base.paths import Storage
from platform.reports.html.page import html, single_run, write_report
from platform.reports.snapshot import SweepSnapshot, read_sweep
from typing import Any

import pytest

from cpn.core.errors import InputError
from cpn.scoring.run_manifest import RunManifest
from tests.platform.made_sweep import make_sweep

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """What stands in a page: open tags are closed in order, text by section, attributes by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words += data


@pytest.fixture(scope="module")
def text(sweep: SweepSnapshot, tmp_path_factory: pytest.TempPathFactory) -> str:
    [page, *_] = write_report(sweep, tmp_path_factory.mktemp("report"))
    return page.read_text()


def test_the_verdict_stands_first_and_everything_follows(text: str) -> None:
    page = Page(text)
    heads = ["beats the reference by 1.9 [0.7, 3.1]", "Leaderboard", "From CAM to segmentation", "Pictures",
             "What was searched", "Importances", "Parallel coordinates", "Slices", "Contours", "Pruning and its audit",
             "Cost", "The best configuration", "Provenance", "Commands"]  # fmt: skip
    body = page.words[page.words.index("24 trials (20 complete, 3 pruned, 1 failed, 1 reused), 15 confirm runs") :]
    at = [
        body.index(head, body.index("intervals") if head in ("Pictures", "Cost", "Provenance") else 0) for head in heads
    ]
    assert at[0] == min(at) and at[1:] and body.index("42.9 [40.9, 44.9]") > at[1]
    for words in ("made-0019", "audited at 50%", "w_tcp: 1.5", "0123abc", "f00df00df00df00d", "images/s a trial",
                  "not measured: train one run alone", "python -m platform.train config.yaml"):  # fmt: skip
        assert words in page.words, words


def test_nothing_is_fetched(text: str) -> None:
    page = Page(text)
    fetched = [
        v for _, attrs in page.tags for k, v in attrs.items() if k in ("src", "href") and v and not v.startswith("#")
    ]
    assert fetched and all(value.startswith("data:") for value in fetched)
    [policy] = [str(attrs["content"]) for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "http" not in policy and "connect-src" not in policy
    assert not re.search(r"@import|url\(", text[: text.index("<script>")])


def test_plotly_is_there_once_and_every_picture_has_words(text: str) -> None:
    page = Page(text)
    [packed] = re.findall(r'<script type="text/plain" id="plotly">([^<]+)</script>', text)
    assert gzip.decompress(base64.b64decode(packed)).count(b"plotly.js v") == 1 and text.count("plotly.js v") == 0
    assert len(text) < 3e6
    assert [tag for tag, _ in page.tags].count("script") >= 8
    pictures = [attrs for tag, attrs in page.tags if tag == "img" and attrs.get("id") not in ("under", "over")]
    assert len(pictures) == 6  # the panels of the best one, of the reference and of three more, the contours
    assert all(attrs["alt"] and re.match(r"data:image/(png|webp);base64,", str(attrs["src"])) for attrs in pictures)
    assert {str(attrs["width"]) for attrs in pictures[:2]} == {"600"}
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [str(attrs["href"])[1:] for tag, attrs in page.tags if tag == "a"]
    assert links and set(links) <= set(ids)


def test_what_a_sweep_says_is_no_markup(text: str) -> None:
    assert "epoch 1 &lt;b&gt;&amp;" in text and "epoch 1 <b>" not in text


def test_no_password_is_in_it(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, "hidden", 1)
    starts = [{"command": "python -m platform.sweep s --set tracking.uri=http://me:geheim@host", "commit": "1",
               "versions": "", "python": "3", "started": 1.0}]  # fmt: skip
    store.sweep("hidden").starts.write_text(json.dumps(starts))
    [page, *tables] = write_report(read_sweep(store, "hidden"), tmp_path / "out")
    assert "http://me:***@host" in page.read_text()
    assert all("geheim" not in path.read_text() for path in (page, *tables))


def test_a_sweep_without_any_result(sweep: SweepSnapshot, tmp_path: Path) -> None:
    nothing = replace(sweep, rows=[], again=[], summary=None, state="running")
    [page, *_] = write_report(nothing, tmp_path / "out")
    words = Page(page.read_text()).words
    assert "0 trials (none yet)" in words and "The best configuration" not in words


def test_the_users_own_run_is_what_throughput_is_relative_to(
    sweep: SweepSnapshot, made: Storage, tmp_path: Path
) -> None:
    key = next(made.root.glob("runs/*/result.json")).parent.name
    assert single_run(made, key).key == key == single_run(made, str(made.run(key))).key
    with pytest.raises(InputError, match="^--single-gpu nowhere: no finished run there"):
        single_run(made, "nowhere")
    [page, *_] = write_report(
        sweep, tmp_path, RunManifest(key="k", history=({"images_per_s": 25.0},), metrics={}, digests={})
    )
    assert "50%: 12.5 images/s on 1 worker, 25.0 by the run alone" in page.read_text()


def test_a_name_that_is_missing_is_no_blank() -> None:
    told: dict[str, Any] = {"name": "s"}
    with pytest.raises(Exception, match="is undefined"):
        html(told)
