"""The winner against cam_baseline, in one line."""

from platform.search.against_baseline import against_baseline
from platform.search.confirm import Confirmed

import numpy as np
import pytest

IMAGES = np.tile(np.array([[[3, 1], [5, 2], [4, 3]]]), (4, 1, 1))


def configuration(uid: str, mious: list[float], images: int = 4) -> Confirmed:
    return Confirmed(uid, {}, mious, [IMAGES[:images]] * len(mious))


BASELINE = configuration("cam_baseline", [40.0, 41.0, 39.0])


@pytest.mark.parametrize(
    ("winner", "baseline", "line"),
    [
        (None, None, "CPN against cam_baseline: not compared, no run of cam_baseline finished"),
        (None, BASELINE, "CPN against cam_baseline: not compared, the winner did not run again (confirm.top_k)"),
        (
            configuration("w", [50.0, 51.0]),
            BASELINE,
            "CPN against cam_baseline: +10.5, not tested: 2 fresh seeds, 3 are needed",
        ),
        (
            configuration("w", [50.0]),
            BASELINE,
            "CPN against cam_baseline: +10.0, not tested: 1 fresh seed, 3 are needed",
        ),
        (
            configuration("w", [50.0] * 3, 1),
            configuration("cam_baseline", [40.0] * 3, 1),
            "CPN against cam_baseline: +10.0, not tested: a single confirm image",
        ),
    ],
)
def test_what_cannot_be_compared_says_why(winner: Confirmed | None, baseline: Confirmed | None, line: str) -> None:
    assert against_baseline(winner, baseline, [c for c in (winner,) if c], "cpn", 0) == line


@pytest.mark.parametrize(
    ("mean", "words"), [(50.0, ""), (40.1, ", no gain shown"), (39.9, ", no gain shown"), (30.0, ", it is worse")]
)
def test_the_interval_decides_the_words(mean: float, words: str) -> None:
    winner = configuration("w", [mean - 1, mean, mean + 1])
    line = against_baseline(winner, BASELINE, [winner], "seam", 0)
    assert line.startswith(f"SEAM against cam_baseline: {mean - 40:+.1f} [") and line.endswith(f"]{words}")
