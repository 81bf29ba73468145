"""An alias that somebody moved in MLflow: it passes the gates and goes on, or is put back with the reason."""

from platform import promote
from platform.tracking.client import connect
from platform.tracking.records import CHAMPION
from typing import Any

import pytest

from cpn.core.errors import WorkError
from tests.platform.champion import NAME, by_hand, moves, said_by, state_of, versions_of
from tests.platform.small_sweep import SmallSweep


def test_an_alias_moved_by_hand_is_a_request(small: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert said_by(capsys) == []
    made = versions_of(small, "small-0000", "small-0002")
    by_hand(small, made["small-0000"])
    (found,) = said_by(capsys)
    assert (found["kind"], found["from"], found["to"], found["uid"]) == ("by hand", "1", "2", "small-0000")
    assert found["stages"]["deeplab"]["metrics"] == {"miou_val": 51.5}
    assert said_by(capsys) == []
    by_hand(small, made["small-0002"])
    (found,) = said_by(capsys)
    assert (found["kind"], found["from"], found["to"]) == ("put back", "3", "2")
    assert "moved by hand to version 3, but gate confirm does not hold: shown to be worse" in found["why"]
    assert state_of(small).aliases == {CHAMPION: "2"} and said_by(capsys) == []
    assert moves(small) == [("promotion", None, "1"), ("by hand", "1", "2"), ("put back", "3", "2")]


def test_a_reason_that_was_kept_holds_for_the_hand_too(small: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    promote.main(["small-0002", "--because", "its edges"])
    promote.main(["small-0000"])
    by_hand(small, "2")
    (found,) = said_by(capsys)
    assert (found["kind"], found["uid"]) == ("by hand", "small-0002")


def test_a_request_for_no_run_of_the_sweep_is_reverted(small: SmallSweep, capsys: pytest.CaptureFixture[str]) -> None:
    version = connect(small.uri).create_model_version(NAME, "file:///nowhere").version
    by_hand(small, str(version))
    (found,) = said_by(capsys)
    assert found["kind"] == "put back" and "which is no trial of sweep small" in found["why"]
    connect(small.uri).delete_registered_model_alias(NAME, CHAMPION)
    (found,) = said_by(capsys)
    assert (found["to"], found["why"]) == (None, "the alias was taken away by hand")
    assert said_by(capsys) == []


def test_a_stop_before_the_stages_leaves_the_request(
    small: SmallSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand(small, versions_of(small, "small-0000")["small-0000"])

    def stopped(*_: Any) -> None:
        raise WorkError("the stage failed")

    with monkeypatch.context() as patch:
        patch.setattr("platform.promotion.alias_requests.run_later_stages", stopped)
        with pytest.raises(WorkError):
            promote.main([])
    assert moves(small) == [("promotion", None, "1")]
    (found,) = said_by(capsys)
    assert found["uid"] == "small-0000"
