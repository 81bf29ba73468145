"""The loop over resamples: by hand, and against the product's."""

from platform.search import confirm

import numpy as np
import pytest

from benchmarks.method import bootstrap


def counts(images: int, classes: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    true = rng.integers(5, 40, (images, classes))
    hits = (true * rng.uniform(0.2, 0.9, true.shape)).astype(np.int64)
    return np.stack([hits, hits + rng.integers(0, 9, true.shape), true], axis=1)


def test_of_one_image_every_resample_is_its_own() -> None:
    one = np.array([[[3, 1], [4, 2], [6, 2]]])  # IoU 3 / 7 and 1 / 3
    assert bootstrap.looped(one, 5, 0) == pytest.approx([100 * (3 / 7 + 1 / 3) / 2] * 5)


def test_the_product_draws_and_scores_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "RESAMPLES", 50)
    given = counts(30)
    found = confirm.bootstrap(confirm.Confirmed("c", {}, [0.0], [given]), 7)[0]
    expected = bootstrap.looped(given, 50, 7)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert expected.std() > 0.1


def test_measuring_leaves_the_product_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import argparse

    before = confirm.RESAMPLES
    monkeypatch.setattr(bootstrap, "IMAGES", 20)
    found = bootstrap.run(argparse.Namespace(quick=True))
    assert found["equal"] and found["resamples"] == 500 and before == confirm.RESAMPLES
