"""The two sides of the CRF's comparison label a picture alike."""

import numpy as np
import pytest

from benchmarks.method import crf_pool
from benchmarks.method.beta_curve import PRESENT


def test_absent_labels_change_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crf_pool, "HEIGHT", 47)
    monkeypatch.setattr(crf_pool, "WIDTH", 63)
    image, given = crf_pool.scores(0)
    assert image.shape == (47, 63, 3) and given.shape == (3, 47, 63)
    labels = crf_pool.labels_present(0)
    np.testing.assert_array_equal(labels, crf_pool.all_labels(0))
    assert set(np.unique(labels)) <= {0, *PRESENT} and len(np.unique(labels)) > 1
    assert not np.array_equal(labels, crf_pool.labels_present(1))
