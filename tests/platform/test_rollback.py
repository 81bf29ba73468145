"""The command rollback, over a real MLflow store: the champion before, any version, and why."""

import json
import shutil
from pathlib import Path
from platform import promote, rollback
from platform.tracking.records import CHAMPION

import pytest

from cpn.core.errors import InputError, WorkError
from tests.platform.champion import moves, state_of
from tests.platform.small_sweep import SmallSweep


def test_a_rollback_goes_to_the_champion_before_and_says_why(
    small: SmallSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="has no champion before the present one; python -m platform.promote RUN"):
        rollback.main(["small", "--because", "worse"])
    promote.main(["small-0000"])
    capsys.readouterr()
    assert rollback.main(["--because", "worse", "--dry-run"]) == 0
    assert (
        "champion of cpn-small, version 2 to 1: nothing was moved" in capsys.readouterr().out and len(moves(small)) == 2
    )
    assert rollback.main(["small", "--because", "worse"]) == 0
    assert (
        "champion of cpn-small, version 2 to 1: moved\nnext: python -m platform.promote --history"
        in capsys.readouterr().out
    )
    assert rollback.main(["small", "--because", "worse"]) == 0  # after a kill somebody types it again
    assert "it is there already" in capsys.readouterr().out
    assert state_of(small).aliases == {CHAMPION: "1"} and moves(small)[-1] == ("rollback", "2", "1")
    assert state_of(small).history[-1].why == "worse"
    with pytest.raises(InputError, match="--to 7: cpn-small has no such version; there are 1, 2"):
        rollback.main(["small", "--to", "7", "--because", "x"])
    assert rollback.main(["small", "--to", "2", "--because", "no, it was right", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "moved" and state_of(small).aliases == {CHAMPION: "2"}


def test_a_store_put_back_to_a_backup_is_told_again_first(
    small: SmallSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Path(small.uri.removeprefix("sqlite:///"))
    shutil.copyfile(database, database.with_name("backup.db"))
    promote.main(["small-0000"])
    shutil.copyfile(database.with_name("backup.db"), database)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(rollback, "FLUSH_S", 0.0)
        with pytest.raises(WorkError, match=r"mlflow.db: is being told again what it has lost, and \d+ records"):
            rollback.main(["small", "--because", "worse"])
    assert rollback.main(["small", "--because", "worse", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["to"] == "1"
    assert moves(small)[-1] == ("rollback", "2", "1")
