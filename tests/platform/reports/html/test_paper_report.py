"""The page over the paper's tables: grey where nothing was run, filled where it was, nothing fetched from anywhere."""

import base64
import json
from pathlib import Path
from platform.base.paths import storage
from platform.report import main
from platform.reports.html.paper_report import header, write_paper_report

import numpy as np
import pytest

from cpn.core.errors import InputError
from cpn.data.voc import encode_mask
from tests.conftest import CHECKOUT

SPACES = CHECKOUT / "search_spaces"
RESULT = {
    "columns": ["miou_train"],
    "rows": [
        {
            "name": "cls",
            "published": {"miou_train": 47.84},
            "columns": {"miou_train": {"values": [50.9, 51.6], "mean": 51.25, "sd": 0.5}},
        },
        {"name": "<b>", "published": {}, "columns": {"miou_train": {"values": [], "mean": None, "sd": None}}},
    ],
    "words": "Run on synthetic scenes.",
    "run_hours": 0.25,
    "runs": {"table2-0000": {"key": "a"}, "table2-0001": {"key": "a"}},
    "seeds": 3,
}


def test_what_was_run_is_filled_and_the_rest_says_its_command(tmp_path: Path) -> None:
    store = storage(str(tmp_path / "sweeps"))
    store.sweep("table2").table.parent.mkdir(parents=True)
    store.sweep("table2").table.write_text(json.dumps(RESULT))
    page, run = write_paper_report(store, SPACES, tmp_path / "page.html")
    assert run["table2"] and sum(run.values()) == 1 and {"table1", "fig1", "fig7", "table5"} < set(run)
    assert {"patch", "beyond_joint"} < set(run), "searches stand behind the tables"
    text = page.read_text()
    assert f"1 of {len(run)} were run here" in text
    assert "1 run, 0.25 hours of training." in text, "two rows that read one network have trained it once"
    assert "51.2 ± 0.5" in text and "47.84" in text and "&lt;b&gt;" in text and "<td><b></td>" not in text
    assert '<section id="table1" class="empty">' in text and '<section id="table2">' in text
    assert "search_spaces/table1.yaml --set data.root=/data/VOC2012" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "`" not in text and "<code>--dry-run</code>" in text, "what stands in backticks is code"
    folded = text.partition('<section id="table1" class="empty">')[2].partition("</section>")[0]
    assert folded.lstrip().startswith("<details><summary><h2>") and "</details>" in folded
    assert "<details>" not in text.partition('<section id="table2">')[2].partition("</section>")[0]


def test_searches_and_pictures_have_their_place(tmp_path: Path) -> None:
    store = storage(str(tmp_path / "sweeps"))
    store.sweep("fig8").table.parent.mkdir(parents=True)
    store.sweep("fig8").table.write_text(json.dumps(RESULT))
    drawn = encode_mask(np.zeros((4, 4), np.uint8))
    (store.sweep("fig8").root / "deeplab.png").write_bytes(drawn)
    joint = store.sweep("beyond_joint")
    joint.root.mkdir()
    joint.summary.write_text(
        json.dumps(
            {"verdict": "no <improvement> shown", "winner": "joint-0001", "trials": {"complete": 18}, "hours": 0.5}
        )
    )
    (joint.root / "report.html").write_text("the report")
    page, run = write_paper_report(store, SPACES, tmp_path / "there" / "page.html")
    text = page.read_text()
    assert run["beyond_joint"] and run["fig8"] and not run["patch"]
    assert base64.b64encode(drawn).decode() in text and "Fig. 8, segmentations of DeepLab: the seg" in text
    assert "Verdict: no &lt;improvement&gt; shown." in text and "18 complete trials in 0.50 hours." in text
    assert 'href="../sweeps/beyond_joint/report.html"' in text
    places = [text.index(part) for part in ('id="table5"', "<h1>Beyond the paper", 'id="beyond_joint"', "<h1>Searches")]
    assert places == sorted(places) and text.index('id="patch"') > places[-1]


def test_a_header_that_goes_on_is_joined() -> None:
    assert header(SPACES / "fig1.yaml")["Question"].endswith("(Fig. 1 and Eq. 4-6 of the paper)")
    assert set(header(SPACES / "table4.yaml")) == {"Question", "Command", "Cost", "Paper"}
    assert set(header(SPACES / "table5.yaml")) == {"Question", "Command", "Cost", "Note", "Paper"}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--paper", "--spaces", str(SPACES), "--storage", str(tmp_path), "--out", str(tmp_path)]
    assert main([*given, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert Path(said["page"]).exists() and not any(said["run"].values())
    with pytest.raises(InputError, match="give a sweep's name, or --paper"):
        main([])
    with pytest.raises(InputError, match="holds no search space with a table"):
        main(["--paper", "--spaces", str(tmp_path)])
