"""The commands promote and rollback, and aliases moved by hand, over a real study and a real MLflow store.

The stages of the runs are laid out as done, so that nothing is trained; tests/test_smoke.py runs them in a sweep.
"""

import json
import re
import sys
import time
from pathlib import Path
from platform import promote, rollback
from platform.base.lock import driving
from platform.tracking.client import connect
from platform.tracking.records import CHAMPION

import pytest

from cpn.core.errors import InputError
from cpn.core.run_files import MODEL
from tests.platform.champion import by_hand, moves, said_by, state_of, versions_of
from tests.platform.small_sweep import SmallSweep


def files_of(small: SmallSweep) -> list[Path]:
    """What lies in the storage, but for the files beside a database that reading it may bring."""
    return sorted(p for p in small.store.root.rglob("*") if p.is_file() and not p.name.startswith("study.db-"))


def test_a_gate_gives_way_to_a_reason_alone(small: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(small)
    with pytest.raises(InputError, match="small-0002: gate confirm does not hold: shown to be worse: .*--because"):
        promote.main(["small-0002"])
    assert files_of(small) == before
    assert promote.main(["small-0002", "--because", "its edges are what we need"]) == 0
    last = state_of(small).history[-1]
    assert (last.why, last.overridden) == ("its edges are what we need", ("confirm",))
    assert "shown to be worse" in last.gates["confirm"]
    promote.main(["--history"])
    out = capsys.readouterr().out
    assert (
        "cpn-small  version 1 to 2: promotion of small-0002 by " in out
        and ": its edges are what we need\n    overrides" in out
    )
    history = said_by(capsys, "--history")
    assert [entry["to"] for entry in history] == ["1", "2"]


@pytest.mark.parametrize("words", [("small-0002",), ("--maps", "maps", "--sweep", "small")])
def test_beside_a_driver_it_ends_at_once(
    small: SmallSweep, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Before the gates and the tracking store are asked: neither is there here."""
    (small.store.root.parent / "maps").mkdir()
    monkeypatch.chdir(small.store.root.parent)
    monkeypatch.setitem(sys.modules, "platform.promotion.promotion", None)
    with driving(small.paths, "small", "a command"):
        with pytest.raises(
            InputError, match=r"lock: sweep 'small' is already running \(process .* platform.stop small"
        ):
            promote.main([*words, "--because", "no reason"])
        with pytest.raises(ImportError):  # a dry run looks, whoever drives
            promote.main([*words, "--dry-run"])


def test_a_damaged_file_needs_a_reason(small: SmallSweep) -> None:
    model = small.folder(small.row("small-0000")) / MODEL
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="gate artifact does not hold: .* is not the file that its run wrote"):
        promote.main(["small-0000"])


def contents(small: SmallSweep) -> dict[Path, bytes]:
    """All files but those of the database, which sqlite touches when it is read."""
    return {p: p.read_bytes() for p in small.store.root.rglob("*") if p.is_file() and not p.name.startswith("study.db")}


def test_a_dry_run_says_what_would_be_and_does_nothing(small: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small.lay_out_stages("small-0003")["deeplab"]
    (folder / "manifest.json").unlink()
    before = contents(small)
    assert promote.main(["small-0003", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "fails" in out and re.search(rf"{folder.name} +│ runs", out) and "--because" in out.splitlines()[-1]
    found = said_by(capsys, "small-0003", "--dry-run")
    assert found["stages"][folder.name] is False and not found["gates"]["confirm"]["holds"]
    assert contents(small) == before


def test_an_mlflow_run_id_is_a_run(small: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = state_of(small).versions["1"]["run_id"]
    assert said_by(capsys, run_id, "--dry-run")["uid"] == "small-0001"
    parent = connect(small.uri).search_runs([connect(small.uri).get_experiment_by_name("small").experiment_id],
                                            "tags.kind = 'sweep'")[0].info.run_id  # fmt: skip
    with pytest.raises(InputError, match="is 'sweep small', which has no CAM network"):
        promote.main([parent])


def test_a_server_that_is_down_gets_alias_and_version_later(
    small: SmallSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    dead = ["--uri", "http://127.0.0.1:9"]
    found = said_by(capsys, "small-0000", *dead)
    assert found["records_waiting"] > 0 and found["stages"]["deeplab"]["metrics"]
    history = said_by(capsys, "--history", *dead)
    assert [(e["to"], e["uid"], e.get("waiting", False)) for e in history] == [
        ("1", "small-0001", False),
        (None, "small-0000", True),
    ]
    assert rollback.main(["--because", "x", *dead, "--json"]) == 0
    assert "waits for the tracking store" in json.loads(capsys.readouterr().out)["state"]
    # The store comes back: whoever writes next brings all of it.
    promote.main(["small-0001"])
    assert moves(small)[:3] == [("promotion", None, "1"), ("promotion", "1", "2"), ("rollback", "2", "1")]
    assert state_of(small).aliases == {CHAMPION: "1"}


def test_the_watch_goes_on_until_it_is_stopped(
    small: SmallSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    real = time.sleep

    def sleep(seconds: float) -> None:
        if seconds != 5.0:  # somebody else's in this process
            return real(seconds)
        looks.append(seconds)
        if len(looks) == 1:
            by_hand(small, versions_of(small, "small-0000")["small-0000"])
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(promote.time, "sleep", sleep)
    assert promote.main(["--watch", "--every", "5"]) == 130
    assert looks == [5.0] * 3 and moves(small)[-1] == ("by hand", "1", "2")
    assert "small-0000 is champion" in capsys.readouterr().out


def test_help_opens_with_an_example_and_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    for module in ("promote", "rollback"):
        code = (
            f"import sys; from platform import {module} as m; print(m.parser().format_help()); "
            "assert not {'torch', 'ray', 'mlflow'} & set(sys.modules)"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert said.startswith(f"usage: python -m platform.{module} quickstart")
