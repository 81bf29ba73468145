"""Links by uid in a description become addresses of MLflow's UI."""

from platform.tracking.links import VIEW, resolved

import pytest

RUNS = {"small.sweep": "aaaa", "small-0003": "bbbb"}


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[its run](run:small-0003)", f"[its run](#/experiments/7/runs/bbbb?{VIEW})"),
        (
            "see [report](run:small.sweep/artifacts/report.html), please",
            f"see [report](#/experiments/7/runs/aaaa/artifacts/report.html?{VIEW}), please",
        ),
        (
            "![maps](artifact:small-0003/pictures/cam_panel.png)",
            "![maps](get-artifact?path=pictures%2Fcam_panel.png&run_uuid=bbbb)",
        ),
        ("[trials](view:leaderboard)", f"[trials](#/experiments/7/runs?viewStateShareKey=leaderboard&{VIEW})"),
        (
            "[charts](view:leaderboard/charts)",
            f"[charts](#/experiments/7/runs?viewStateShareKey=leaderboard&compareRunsMode=CHART&{VIEW})",
        ),
        ("[champion](model:cpn-small)", f"[champion](#/models/cpn-small?{VIEW})"),
        ("a fresh seed of [cam_baseline](run:cam_baseline)", "a fresh seed of cam_baseline"),
        ("[elsewhere](https://example.org/run:small-0003)", "[elsewhere](https://example.org/run:small-0003)"),
    ],
)
def test_a_link_becomes_an_address(written: str, shown: str) -> None:
    assert resolved(written, "7", RUNS) == shown
