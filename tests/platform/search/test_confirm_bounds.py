"""What is said beside the verdict: by hand, and the same as the verdict says."""

from platform.search.confirm import Confirmed, judge
from platform.search.confirm_bounds import against_baseline, bounds, mean_interval

import numpy as np
import pytest
from scipy import stats

from tests.platform.search.test_confirm import configuration


def test_a_means_interval_by_hand() -> None:
    """Equal images: only the seeds spread. s^2 is pooled over both, ((1 + 0 + 1) + (4 + 0 + 4)) / 4 = 2.5."""
    one, two = configuration("a", [50.0, 51.0, 52.0]), configuration("b", [48.0, 50.0, 52.0])
    half = stats.t.ppf(0.975, 4) * np.sqrt(2.5 / 3)
    assert mean_interval(one, [one, two], 0) == pytest.approx((51 - half, 51 + half))
    assert mean_interval(configuration("a", [50.0]), [configuration("a", [50.0])], 0) is None


def test_bounds_hold_for_the_best_and_the_others() -> None:
    reference = configuration("r", [50.0, 51.0, 52.0])
    best, worse, once = (
        configuration(u, m) for u, m in (("a", [60.0, 61.0, 62.5]), ("b", [49.0, 50.0, 48.0]), ("c", [55.0]))
    )
    found = bounds(reference, [reference, best, worse, once], 0)
    verdict = judge(reference, [best, worse, once], 0)
    assert found["a"].difference == pytest.approx((verdict.low, verdict.high))
    assert found["r"].difference is None and found["c"].difference is None
    low, high = found["b"].difference or [0, 0]
    assert (low + high) / 2 == pytest.approx(-2)
    assert all(found[c.uid].mean is not None for c in (reference, best, worse, once))
    assert bounds(None, [best], 0)["a"].difference is None and bounds(None, [], 0) == {}


# The winner against cam_baseline, in one line

IMAGES = np.tile(np.array([[[3, 1], [5, 2], [4, 3]]]), (4, 1, 1))


def imaged(uid: str, mious: list[float], images: int = 4) -> Confirmed:
    return Confirmed(uid, {}, mious, [IMAGES[:images]] * len(mious))


BASELINE = imaged("cam_baseline", [40.0, 41.0, 39.0])


@pytest.mark.parametrize(
    ("winner", "baseline", "line"),
    [
        (None, None, "CPN against cam_baseline: not compared, no run of cam_baseline finished"),
        (None, BASELINE, "CPN against cam_baseline: not compared, the winner did not run again (confirm.top_k)"),
        (
            imaged("w", [50.0, 51.0]),
            BASELINE,
            "CPN against cam_baseline: +10.5, not tested: 2 fresh seeds, 3 are needed",
        ),
        (
            imaged("w", [50.0]),
            BASELINE,
            "CPN against cam_baseline: +10.0, not tested: 1 fresh seed, 3 are needed",
        ),
        (
            imaged("w", [50.0] * 3, 1),
            imaged("cam_baseline", [40.0] * 3, 1),
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
    winner = imaged("w", [mean - 1, mean, mean + 1])
    line = against_baseline(winner, BASELINE, [winner], "seam", 0)
    assert line.startswith(f"SEAM against cam_baseline: {mean - 40:+.1f} [") and line.endswith(f"]{words}")
