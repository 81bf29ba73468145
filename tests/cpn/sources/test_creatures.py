import numpy as np
import pytest

from cpn.sources import creatures
from cpn.sources.creatures import Part, Pose, head, limbs, paint, tinted, torso

STRAIGHT = np.zeros((4, 2))
"""Limbs that hang straight down."""


def pose(angle: float = 0.0, mirror: float = 1.0, unit: float = 1.0) -> Pose:
    """A creature in the middle of 64 pixels."""
    return Pose(y=32.0, x=32.0, angle=angle, mirror=mirror, unit=unit, bends=STRAIGHT)


def test_head_is_nine_percent_of_a_creature() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(20):
        pose = creatures.draw_pose(rng, 256, 0.7)
        parts = [creatures.limbs(pose, 0, 256), creatures.torso(pose, 0, 256), creatures.head(pose, 0, 256)]
        drawn = [part.cover > 0.5 for part in parts]
        shares.append(drawn[2].sum() / np.logical_or.reduce(drawn).sum())
    assert 0.08 < np.mean(shares) < 0.10


def test_one_body_part_alone_leaves_two_classes() -> None:
    for texture in range(3):
        assert creatures.TORSO_OF.count(texture) == 2 and creatures.LIMB_OF.count(texture) == 2
    pairs = {frozenset(k for k in range(6) if creatures.TORSO_OF[k] == t) for t in range(3)}
    assert pairs == {frozenset({0, 1}), frozenset({2, 3}), frozenset({4, 5})}
    pairs = {frozenset(k for k in range(6) if creatures.LIMB_OF[k] == t) for t in range(3)}
    assert pairs == {frozenset({1, 2}), frozenset({3, 4}), frozenset({5, 0})}


def test_the_part_replaced_is_a_mixture() -> None:
    part = Part(np.ones((1, 1), np.float32), np.array([[[100.0, 0.0, 200.0]]], np.float32))
    assert tinted(part, np.array([0.0, 100.0, 200.0]), 0.25).colour.tolist() == [[[75.0, 25.0, 200.0]]]


def test_a_torso_covers_its_ellipse() -> None:
    cover = torso(pose(), 0, 64).cover
    assert cover.sum() == pytest.approx(np.pi * 13.5 * 8.5, rel=0.02)
    rows, columns = np.nonzero(cover > 0.5)
    assert (rows.min(), rows.max()) == (24, 39) and (columns.min(), columns.max()) == (19, 44)


def test_a_head_is_a_disc_in_front_and_above() -> None:
    cover = head(pose(), 0, 64).cover
    rows, columns = np.nonzero(cover > 0.5)
    assert cover.sum() == pytest.approx(np.pi * 4.4**2, rel=0.03)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == (pytest.approx(26.0), pytest.approx(46.5))


@pytest.mark.parametrize("part", [lambda p: torso(p, 2, 64), lambda p: limbs(p, 1, 64), lambda p: head(p, 3, 64)])
def test_a_mirrored_creature_is_its_mirror_image(part: object) -> None:
    right, left = (part(pose(angle=0.0, mirror=m)) for m in (1.0, -1.0))  # type: ignore[operator]
    np.testing.assert_allclose(right.cover, left.cover[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(right.colour, left.colour[:, ::-1], atol=0.1)


def test_straight_limbs_hang_down_from_the_hips() -> None:
    cover = limbs(pose(), 0, 64, which=(3,)).cover
    rows, columns = np.nonzero(cover > 0.5)
    assert columns.min() >= 32 + 9 - 3 and columns.max() <= 32 + 9 + 2  # the hip is 9 in front, 2.3 to each side
    assert rows.max() == 54  # hip 5 below the centre, two segments of 8, radius 2.3: down to 55.3
    whole = limbs(pose(), 0, 64).cover
    alone = [limbs(pose(), 0, 64, which=(limb,)).cover for limb in range(4)]
    np.testing.assert_allclose(whole, np.max(alone, axis=0), atol=1e-6)


def test_a_drawn_pose_keeps_its_centre_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        drawn = creatures.draw_pose(rng, 64, 0.7)
        assert 13 * 0.7 <= min(drawn.x, drawn.y) and max(drawn.x, drawn.y) <= 64 - 13 * 0.7
        assert abs(drawn.mirror) == 1 and np.abs(np.diff(drawn.bends, axis=1)).max() <= 0.55


def test_painting_mixes_by_coverage_and_leaves_the_canvas() -> None:
    canvas = np.full((1, 3, 3), 100.0, np.float32)
    part = Part(np.array([[0.0, 0.5, 1.0]], np.float32), np.full((1, 3, 3), 50.0, np.float32))
    assert paint(canvas, part, gain=2.0)[0, :, 0].tolist() == [100.0, 100.0, 100.0]
    assert paint(canvas, part)[0, :, 0].tolist() == [100.0, 75.0, 50.0]
    assert (canvas == 100).all()
