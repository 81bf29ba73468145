"""What a table says beside a confirmed mean: by hand, and the same as the verdict says."""

from platform.search.confirm import judge
from platform.search.confirm_bounds import bounds, mean_interval

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
    assert found["a"]["difference"] == pytest.approx([verdict.low, verdict.high])
    assert found["r"]["difference"] is None and found["c"]["difference"] is None
    low, high = found["b"]["difference"] or [0, 0]
    assert (low + high) / 2 == pytest.approx(-2)
    assert all(found[c.uid]["mean"] is not None for c in (reference, best, worse, once))
    assert bounds(None, [best], 0)["a"]["difference"] is None and bounds(None, [], 0) == {}
