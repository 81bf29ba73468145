"""A checkpoint on its way to champion and through the later stages, each once, over a real MLflow store."""

from pathlib import Path
from platform import promote
from platform.run.run_stages import StageFailed
from platform.tracking.client import connect
from platform.tracking.read import read_model_state
from platform.tracking.records import CHAMPION
from typing import Any

import pytest

from cpn.core.errors import InputError, WorkError
from cpn.core.run_files import MODEL
from tests.platform.champion import moves, said_by, state_of
from tests.platform.small_sweep import SmallSweep


def test_a_run_becomes_champion_once(small: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    found = said_by(capsys, "small-0000")
    assert found["uid"] == "small-0000" and all(gate["holds"] for gate in found["gates"].values())
    assert found["stages"]["deeplab"]["metrics"] == {"miou_val": 51.5} and found["records_waiting"] == 0
    assert Path(found["stages"]["deeplab"]["folder"]).is_dir()
    assert promote.main(["small-0000"]) == 0
    out = capsys.readouterr().out
    assert "deeplab/miou_val" in out and out.splitlines()[-1].startswith("next: python -m cpn.predict sweeps/stages/de")
    assert moves(small) == [("promotion", None, "1"), ("promotion", "1", "2")]
    last = state_of(small).history[-1]
    assert (last.uid, last.by, last.overridden) == ("small-0000", "person", ())
    run = connect(small.uri).get_run(state_of(small).versions["2"]["run_id"])
    assert run.data.tags["promoted"] == "true"


def test_a_failed_stage_leaves_the_promotion_and_names_the_cure(
    small: SmallSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise StageFailed("deeplab", "k", WorkError("one mask", "deeplab.schedule=by_images"), {})

    monkeypatch.setattr("platform.promotion.promotion.run_later_stages", failing)
    monkeypatch.setattr("sys.argv", ["promote", "small-0000"])
    with pytest.raises(WorkError, match="^stage deeplab: one mask$"):
        promote.main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next: python -m platform.promote small-0000 --set deeplab.schedule=by_images"
    assert moves(small) == [("promotion", None, "1"), ("promotion", "1", "2")]


def test_a_checkpoint_of_no_sweep_goes_on_under_a_new_name(
    small: SmallSweep, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    path = tmp_path / "elsewhere/model.safetensors"
    path.parent.mkdir()
    shutil.copy(small.folder(small.row("small-0003")) / MODEL, path)
    words = [str(path), "--sweep", "released", "--uri", small.uri]
    with pytest.raises(InputError, match="gate artifact does not hold: no manifest .*; gate confirm does not hold"):
        promote.main(words)
    found = said_by(capsys, *words, "--because", "published weights")
    assert found["uid"].startswith("released.checkpoint-")
    state = read_model_state(small.uri, "cpn-released")
    assert state is not None and state.history[-1].overridden == ("artifact", "confirm")
    kinds = {row.uid: row.tags["kind"] for row in promotion_runs(small.uri)}
    assert kinds["released.sweep"] == "sweep" and kinds[found["uid"]] == "checkpoint"
    assert said_by(capsys, *words, "--because", "again")["uid"] == found["uid"]
    again = read_model_state(small.uri, "cpn-released")
    assert again is not None and len(again.history) == 1


def test_the_sweep_does_not_take_back_what_somebody_decided(small: SmallSweep) -> None:
    """Only another winner would be promoted by the sweep again."""
    promote.main(["small-0000"])
    assert small.promotes("small-0001") is False and state_of(small).aliases == {CHAMPION: "2"}
    assert small.promotes("small-0000") is True and small.promotes("small-0001") is True
    assert state_of(small).aliases == {CHAMPION: "1"}


def promotion_runs(uri: str) -> list[Any]:
    from platform.tracking.recorder import read_runs

    return read_runs(uri, "released")
