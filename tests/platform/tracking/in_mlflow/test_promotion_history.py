"""The promotion history as a table on a registered model's page: as text, and in a real MLflow store."""

from collections.abc import Callable
from pathlib import Path
from platform.tracking.client import connect
from platform.tracking.in_mlflow.promotion_history import HEAD, LONGEST, Decision, HistoryEntry, description
from platform.tracking.recorder import Recorder
from typing import Any

import pytest

MODEL, ALIAS = "cpn-patch", "champion"


def entry(number: int, **more: Any) -> HistoryEntry:
    told = {"who": "ann", "when": 60.0 * number, "from": str(number) if number else None, "to": str(number + 1)}
    run = {"id": f"{number}", "model": MODEL, "alias": ALIAS, "kind": "promotion", "uid": f"patch-{number:04d}"}
    return HistoryEntry.model_validate({**told, **run, "why": "better", **more})


def test_the_newest_move_stands_first() -> None:
    lines = description(None, [entry(0), entry(1, overridden=["confirm"], why="sharper")]).splitlines()
    assert all(line.count("&emsp; | ") == 5 for line in (lines[2], *lines[4:])), "MLflow leaves no room between columns"
    lines = [line.replace("&emsp;", "") for line in lines]
    assert lines[0] == HEAD and lines[2] == "| when (UTC) | version | what | run | who | why |"
    assert lines[4:] == [
        "| 1970-01-01 00:01 | 1 → 2 | promotion, overrides confirm | patch-0001 | ann | sharper |",
        "| 1970-01-01 00:00 | - → 1 | promotion | patch-0000 | ann | better |",
    ]


def test_what_somebody_wrote_stays_before_it() -> None:
    first = description("Our model for **heads**.", [entry(0)])
    assert first.startswith(f"Our model for **heads**.\n\n{HEAD}\n")
    again = description(first, [entry(0), entry(1)])
    assert again.startswith(f"Our model for **heads**.\n\n{HEAD}\n") and again.count(HEAD) == 1
    assert description(again, [entry(0), entry(1)]) == again, "the same each time"
    full = "x" * LONGEST
    assert description(full, [entry(0)]) == full


def test_a_reason_stays_in_its_cell() -> None:
    (line,) = description(None, [entry(0, why="a | b\n[c](http://d) `e`")]).splitlines()[4:]
    assert line.endswith(r"| a \| b \[c\](http://d) \`e\` |")
    (line,) = description(None, [entry(0, why="x" * 999)]).splitlines()[4:]
    assert line.endswith("x… |") and len(line) < 300
    (line,) = description(None, [entry(0, why="<b>R&D</b> ~~no~~ &lt;")]).splitlines()[4:]
    assert line.endswith(r"| &lt;b&gt;R&amp;D&lt;/b&gt; \~\~no\~\~ &amp;lt; |")


@pytest.mark.parametrize("moves", [30, 300])
def test_it_is_never_longer_than_mlflow_keeps(moves: int) -> None:
    text = description("own", [entry(number, why="w" * 150) for number in range(moves)])
    shown = text.count("\n| 19")
    assert len(text) <= LONGEST and shown > 15 and f"\n{moves - shown} earlier: `python -m platform.promote" in text
    assert f"patch-{moves - 1:04d}" in text and "patch-0000" not in text


def test_promotions_and_rollbacks_are_on_the_models_page(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    uri = new_store("store")
    recorder = Recorder(tmp_path / "records", uri, "patch")
    client = connect(uri)

    def page() -> list[str]:
        """The table's lines as the store has them, without their time."""
        assert recorder.flush(60) == 0
        text = client.get_registered_model(MODEL).description
        lines = [line.replace("&emsp;", "") for line in text.splitlines()]
        return [line.partition(" | ")[2] for line in lines if line.startswith("| 2")]

    for number in range(2):
        uid, weights = f"patch-{number:04d}", tmp_path / f"{number}.safetensors"
        weights.write_bytes(b"%d" % number)
        recorder.start(uid, name="a run", tags={"kind": "trial"})
        recorder.artifact(uid, weights, "model")
        decision = Decision(by="sweep" if number == 0 else "person", kind="promotion", uid=uid)
        recorder.register(MODEL, uid, "model", {"digest": f"d{number}"}, ALIAS, f"why {number}", decision=decision)
        assert page()[0].startswith(f"{'-' if number == 0 else 1} → {number + 1} | promotion | {uid} | ")
    client.update_registered_model(MODEL, f"Mine.\n\n{client.get_registered_model(MODEL).description}")
    recorder.point(MODEL, ALIAS, "1", "loses heads", Decision(kind="rollback"))
    lines = page()
    assert lines[0].startswith("2 → 1 | rollback | - | ") and lines[0].endswith(" | loses heads |")
    assert [line.split(" | ")[1] for line in lines] == ["rollback", "promotion", "promotion"]
    assert client.get_registered_model(MODEL).description.startswith(f"Mine.\n\n{HEAD}\n")
    client.set_registered_model_alias(MODEL, ALIAS, "2")
    recorder.moved(MODEL, ALIAS, "1", "2", "moved in MLflow", Decision(kind="by hand"))
    assert page()[0].startswith("1 → 2 | by hand | ")
    recorder.close(60)
