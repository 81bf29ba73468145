"""The commands promote and rollback, and aliases moved by hand, over a real study and a real MLflow store.

The stages of the runs are laid out as done, so that nothing is trained; tests/test_smoke.py runs them in a sweep.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from platform import promote, rollback
from platform.run.run_stages import StageFailed
from platform.tracking.client import connect
from platform.tracking.read import read_model_state
from platform.tracking.records import CHAMPION
from platform.tracking.registry import ModelState
from typing import Any

import pytest

from cpn.core.errors import InputError, WorkError
from cpn.core.run_files import MODEL
from tests.platform.small_sweep import SmallSweep

NAME = "cpn-small"


@pytest.fixture
def sweep(tmp_path: Path, new_store: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallSweep]:
    """The small sweep with champion small-0001, all stages laid out; nothing may start Ray."""
    monkeypatch.chdir(tmp_path)
    made = SmallSweep(tmp_path, new_store("store"))
    # A version is made of the run's artifact alone: writing its pyfunc has a test of its own.
    monkeypatch.setattr("platform.tracking.store.write_pyfunc", lambda *given: given[-1].mkdir(parents=True))
    made.record()
    for row in [*made.rows[:4], *made.again]:
        made.lay_out_stages(row.uid)
    monkeypatch.setattr("platform.run.sweep_context.ray_cluster", lambda *_: pytest.fail("Ray was to be started"))
    yield made


def state_of(sweep: SmallSweep) -> ModelState:
    state = read_model_state(sweep.uri, NAME)
    assert state is not None
    return state


def moves(sweep: SmallSweep) -> list[tuple[str, str | None, str | None]]:
    return [(entry["kind"], entry["from"], entry["to"]) for entry in state_of(sweep).history]


def said_by(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What `promote ... --json` prints."""
    capsys.readouterr()
    assert promote.main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_becomes_champion_once(sweep: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    found = said_by(capsys, "small-0000")
    assert found["uid"] == "small-0000" and all(gate["holds"] for gate in found["gates"].values())
    assert found["stages"]["deeplab"]["metrics"] == {"miou_val": 51.5} and found["records_waiting"] == 0
    assert Path(found["stages"]["deeplab"]["folder"]).is_dir()
    assert promote.main(["small-0000"]) == 0
    out = capsys.readouterr().out
    assert "deeplab/miou_val" in out and out.splitlines()[-1].startswith("next: python -m cpn.predict sweeps/stages/de")
    assert moves(sweep) == [("promotion", None, "1"), ("promotion", "1", "2")]
    last = state_of(sweep).history[-1]
    assert (last["uid"], last["by"], last["overridden"]) == ("small-0000", "person", [])
    run = connect(sweep.uri).get_run(state_of(sweep).versions["2"]["run_id"])
    assert run.data.tags["promoted"] == "true"


def files_of(sweep: SmallSweep) -> list[Path]:
    """What lies in the storage, but for the files beside a database that reading it may bring."""
    return sorted(p for p in sweep.store.root.rglob("*") if p.is_file() and not p.name.startswith("study.db-"))


def test_a_gate_gives_way_to_a_reason_alone(sweep: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(sweep)
    with pytest.raises(InputError, match="small-0002: gate confirm does not hold: shown to be worse: .*--because"):
        promote.main(["small-0002"])
    assert files_of(sweep) == before
    assert promote.main(["small-0002", "--because", "its edges are what we need"]) == 0
    last = state_of(sweep).history[-1]
    assert (last["why"], last["overridden"]) == ("its edges are what we need", ["confirm"])
    assert "shown to be worse" in last["gates"]["confirm"]
    promote.main(["--history"])
    out = capsys.readouterr().out
    assert (
        "cpn-small  1 to 2: promotion of small-0002 by " in out and ": its edges are what we need\n    overrides" in out
    )
    history = said_by(capsys, "--history")
    assert [entry["to"] for entry in history] == ["1", "2"]


def test_a_damaged_file_needs_a_reason(sweep: SmallSweep) -> None:
    model = sweep.folder(sweep.row("small-0000")) / MODEL
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="gate artifact does not hold: .* is not the file that its run wrote"):
        promote.main(["small-0000"])


def contents(sweep: SmallSweep) -> dict[Path, bytes]:
    """All files but those of the database, which sqlite touches when it is read."""
    return {p: p.read_bytes() for p in sweep.store.root.rglob("*") if p.is_file() and not p.name.startswith("study.db")}


def test_a_dry_run_says_what_would_be_and_does_nothing(sweep: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sweep.lay_out_stages("small-0003")["deeplab"]
    (folder / "manifest.json").unlink()
    before = contents(sweep)
    assert promote.main(["small-0003", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "fails" in out and re.search(rf"{folder.name} +│ runs", out) and "--because" in out.splitlines()[-1]
    found = said_by(capsys, "small-0003", "--dry-run")
    assert found["stages"][folder.name] is False and not found["gates"]["confirm"]["holds"]
    assert contents(sweep) == before


def test_an_mlflow_run_id_is_a_run(sweep: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = state_of(sweep).versions["1"]["run_id"]
    assert said_by(capsys, run_id, "--dry-run")["uid"] == "small-0001"
    parent = connect(sweep.uri).search_runs([connect(sweep.uri).get_experiment_by_name("small").experiment_id],
                                            "tags.kind = 'sweep'")[0].info.run_id  # fmt: skip
    with pytest.raises(InputError, match="is 'sweep small', which has no CAM network"):
        promote.main([parent])


def test_a_server_that_is_down_gets_alias_and_version_later(
    sweep: SmallSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
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
    assert moves(sweep)[:3] == [("promotion", None, "1"), ("promotion", "1", "2"), ("rollback", "2", "1")]
    assert state_of(sweep).aliases == {CHAMPION: "1"}


def by_hand(sweep: SmallSweep, version: str) -> None:
    connect(sweep.uri).set_registered_model_alias(NAME, CHAMPION, version)


def versions_of(sweep: SmallSweep, *uids: str) -> dict[str, str]:
    """Versions as somebody makes them in the MLflow UI, of these runs' artifacts and without tags of ours."""
    client, made = connect(sweep.uri), {}
    experiment = client.get_experiment_by_name("small").experiment_id
    for uid in uids:
        run = client.search_runs([experiment], f"tags.uid = '{uid}'")[0]
        made[uid] = str(client.create_model_version(NAME, f"{run.info.artifact_uri}/model", run.info.run_id).version)
    return made


def test_an_alias_moved_by_hand_is_a_wish(sweep: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert said_by(capsys) == []
    made = versions_of(sweep, "small-0000", "small-0002")
    by_hand(sweep, made["small-0000"])
    (found,) = said_by(capsys)
    assert (found["kind"], found["from"], found["to"], found["uid"]) == ("by hand", "1", "2", "small-0000")
    assert found["stages"]["deeplab"]["metrics"] == {"miou_val": 51.5}
    assert said_by(capsys) == []
    by_hand(sweep, made["small-0002"])
    (found,) = said_by(capsys)
    assert (found["kind"], found["from"], found["to"]) == ("put back", "3", "2")
    assert "moved by hand to version 3, but gate confirm does not hold: shown to be worse" in found["why"]
    assert state_of(sweep).aliases == {CHAMPION: "2"} and said_by(capsys) == []
    assert moves(sweep) == [("promotion", None, "1"), ("by hand", "1", "2"), ("put back", "3", "2")]


def test_a_reason_that_was_kept_holds_for_the_hand_too(sweep: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    promote.main(["small-0002", "--because", "its edges"])
    promote.main(["small-0000"])
    by_hand(sweep, "2")
    (found,) = said_by(capsys)
    assert (found["kind"], found["uid"]) == ("by hand", "small-0002")


def test_a_wish_that_is_no_run_of_the_sweep_is_put_back(sweep: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    version = connect(sweep.uri).create_model_version(NAME, "file:///nowhere").version
    by_hand(sweep, str(version))
    (found,) = said_by(capsys)
    assert found["kind"] == "put back" and "which is no trial of sweep small" in found["why"]
    connect(sweep.uri).delete_registered_model_alias(NAME, CHAMPION)
    (found,) = said_by(capsys)
    assert (found["to"], found["why"]) == (None, "the alias was taken away by hand")
    assert said_by(capsys) == []


def test_a_stop_before_the_stages_are_done_leaves_the_wish(
    sweep: SmallSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand(sweep, versions_of(sweep, "small-0000")["small-0000"])

    def stopped(*_: Any) -> None:
        raise WorkError("the stage failed")

    with monkeypatch.context() as patch:
        patch.setattr("platform.promotion.alias_requests.run_later_stages", stopped)
        with pytest.raises(WorkError):
            promote.main([])
    assert moves(sweep) == [("promotion", None, "1")]
    (found,) = said_by(capsys)
    assert found["uid"] == "small-0000"


def test_a_failed_stage_leaves_the_promotion_and_names_the_cure(
    sweep: SmallSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise StageFailed("deeplab", "k", WorkError("one mask", "deeplab.schedule=by_images"), {})

    monkeypatch.setattr("platform.promotion.promotion.run_later_stages", failing)
    monkeypatch.setattr("sys.argv", ["promote", "small-0000"])
    with pytest.raises(WorkError, match="^stage deeplab: one mask$"):
        promote.main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next: python -m platform.promote small-0000 --set deeplab.schedule=by_images"
    assert moves(sweep) == [("promotion", None, "1"), ("promotion", "1", "2")]


def test_the_watch_goes_on_until_it_is_stopped(
    sweep: SmallSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    real = time.sleep

    def sleep(seconds: float) -> None:
        if seconds != 5.0:  # somebody else's in this process
            return real(seconds)
        looks.append(seconds)
        if len(looks) == 1:
            by_hand(sweep, versions_of(sweep, "small-0000")["small-0000"])
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(promote.time, "sleep", sleep)
    assert promote.main(["--watch", "--every", "5"]) == 130
    assert looks == [5.0] * 3 and moves(sweep)[-1] == ("by hand", "1", "2")
    assert "small-0000 is champion" in capsys.readouterr().out


def test_a_rollback_goes_to_the_champion_before_and_says_why(
    sweep: SmallSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="has no champion before the present one; --to"):
        rollback.main(["small", "--because", "worse"])
    promote.main(["small-0000"])
    capsys.readouterr()
    assert rollback.main(["--because", "worse", "--dry-run"]) == 0
    assert "cpn-small: 2 to 1: nothing was moved" in capsys.readouterr().out and len(moves(sweep)) == 2
    assert rollback.main(["small", "--because", "worse"]) == 0
    assert "cpn-small: 2 to 1: moved\nnext: python -m platform.promote --history" in capsys.readouterr().out
    assert rollback.main(["small", "--because", "worse"]) == 0  # after a kill somebody types it again
    assert "it is there already" in capsys.readouterr().out
    assert state_of(sweep).aliases == {CHAMPION: "1"} and moves(sweep)[-1] == ("rollback", "2", "1")
    assert state_of(sweep).history[-1]["why"] == "worse"
    with pytest.raises(InputError, match="--to 7: cpn-small has no such version; there are 1, 2"):
        rollback.main(["small", "--to", "7", "--because", "x"])
    assert rollback.main(["small", "--to", "2", "--because", "no, it was right", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "moved" and state_of(sweep).aliases == {CHAMPION: "2"}


def test_a_checkpoint_of_no_sweep_goes_on_under_a_new_name(
    sweep: SmallSweep, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    path = tmp_path / "elsewhere/model.safetensors"
    path.parent.mkdir()
    shutil.copy(sweep.folder(sweep.row("small-0003")) / MODEL, path)
    words = [str(path), "--sweep", "released", "--uri", sweep.uri]
    with pytest.raises(InputError, match="gate artifact does not hold: no manifest .*; gate confirm does not hold"):
        promote.main(words)
    found = said_by(capsys, *words, "--because", "published weights")
    assert found["uid"].startswith("released.checkpoint-")
    state = read_model_state(sweep.uri, "cpn-released")
    assert state is not None and state.history[-1]["overridden"] == ["artifact", "confirm"]
    kinds = {row.uid: row.tags["kind"] for row in promotion_runs(sweep.uri)}
    assert kinds["released.sweep"] == "sweep" and kinds[found["uid"]] == "checkpoint"
    assert said_by(capsys, *words, "--because", "again")["uid"] == found["uid"]
    again = read_model_state(sweep.uri, "cpn-released")
    assert again is not None and len(again.history) == 1


def promotion_runs(uri: str) -> list[Any]:
    from platform.tracking.recorder import read_runs

    return read_runs(uri, "released")


def test_the_sweep_does_not_take_back_what_somebody_decided(sweep: SmallSweep) -> None:
    """Only another winner would be promoted by the sweep again."""
    promote.main(["small-0000"])
    assert sweep.promotes("small-0001") is False and state_of(sweep).aliases == {CHAMPION: "2"}
    assert sweep.promotes("small-0000") is True and sweep.promotes("small-0001") is True
    assert state_of(sweep).aliases == {CHAMPION: "1"}


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
