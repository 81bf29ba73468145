"""The goals' arithmetic on counts whose mIoU is known."""

import numpy as np
import pytest

from benchmarks.photos.goals import Goal, Scored, difference, goal, t_interval, table


def counts(hits: float, images: int = 20, spread: int = 0) -> np.ndarray:
    """Two classes of 100 true and 100 predicted pixels an image, `hits` of them right: IoU hits / (200 - hits)."""
    each = hits + spread * np.where(np.arange(images) % 2, 1, -1)
    return np.stack([np.stack([each] * 2, 1), np.full((images, 2), 100), np.full((images, 2), 100)], 1).astype(np.int64)


def iou(hits: float) -> float:
    return 100 * hits / (200 - hits)


def test_a_difference_is_paired_over_seeds_and_averages_inits() -> None:
    of = Scored({0: [counts(80)], 1: [counts(82)], 2: [counts(90)]})
    reference = Scored({1: [counts(70), counts(74)], 0: [counts(72)], 3: [counts(10)]})
    found = difference(of, reference)
    assert found is not None
    expected = (iou(80) - iou(72), iou(82) - (iou(70) + iou(74)) / 2)
    assert found.by_seed == pytest.approx(expected) and found.mean == pytest.approx(sum(expected) / 2)
    assert found.images == pytest.approx((found.mean, found.mean))  # equal images: no draw differs
    assert difference(of, Scored({7: [counts(70)]})) is None


def test_the_interval_grows_with_what_images_disagree_on() -> None:
    steady = difference(Scored({0: [counts(80)]}), Scored({0: [counts(70)]}))
    torn = difference(Scored({0: [counts(80, spread=15)]}), Scored({0: [counts(70)]}))
    together = difference(Scored({0: [counts(80, spread=15)]}), Scored({0: [counts(70, spread=15)]}))
    assert steady is not None and torn is not None and together is not None

    def width(interval: tuple[float, float]) -> float:
        return interval[1] - interval[0]

    # Both on the same draws: what moves both alike moves the difference little.
    assert width(steady.images) < width(together.images) < width(torn.images)
    assert torn.images[0] < torn.mean < torn.images[1] and torn.seeds is None


def test_the_interval_over_seeds_is_students() -> None:
    assert t_interval([5.0]) is None
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (Goal("a", 4, 5.0, (1.0, 9.0), (3.0, 7.0), without_0=True), "met"),
        (Goal("a", 4, 5.0, (-1.0, 11.0), (3.0, 7.0), without_0=True), "undecided"),
        (Goal("a", 4, 5.0, (1.0, 9.0), (-0.1, 7.0), without_0=True), "undecided"),
        (Goal("a", 4, 5.0, None, (3.0, 7.0), without_0=True), "undecided"),
        (Goal("a", 4, 3.9, (1.0, 9.0), (3.0, 7.0), without_0=True), "missed"),
        (Goal("a", 0, 0.2, (-1.0, 1.4), (-1.0, 1.4)), "met"),
        (Goal("a", 12, 12.5, at_most=True), "missed"),
        (Goal("a", 12, 11.5, at_most=True), "met"),
        (Goal("a", 5, None), "not run"),
        (Goal("a", 5, None, why="collapsed"), "missed"),
    ],
)
def test_verdicts(line: Goal, verdict: str) -> None:
    assert line.verdict == verdict and line.row()["verdict"] == verdict


def test_the_table_has_goal_value_and_both_intervals() -> None:
    scored = [Scored({0: [counts(80)], 1: [counts(84)]}), Scored({0: [counts(70)], 1: [counts(74)]})]
    lines = [goal("CPN over x", 4, *scored, without_0=True), goal("walk", 3, None, scored[0])]
    text = table([*lines, Goal("minutes", 12, 11.5, at_most=True), Goal("d", 5, None, why="it collapsed")]).splitlines()
    assert text[2].startswith("| CPN over x | >= 4 | +13.3 | ") and text[2].endswith(" | met |")
    assert text[3] == "| walk | >= 3 | - | - | - | not run |"
    assert text[4] == "| minutes | <= 12 | 11.5 | - | - | met |"
    assert text[5] == "| d | >= 5 | - | - | - | missed: it collapsed |"
