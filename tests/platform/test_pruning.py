"""The pruning rule: by hand, and what it may never do."""

from platform.pruning import Decision, audited, decide, rung_reached, rungs

import pytest
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("epochs", "grace", "reduction", "expected"),
    [
        (8, 0.5, 2, [4]),
        (8, 0.5, 1.25, [4, 5, 7]),  # shares .5, .625, .78; .977 would be the end
        (5, 0.5, 2, [3]),
        (10, 0.7, 2, [7]),
        (1, 0.5, 2, []),
        (2, 0.9, 2, []),
    ],
)
def test_rungs_by_hand(epochs: int, grace: float, reduction: float, expected: list[int]) -> None:
    assert rungs(epochs, grace, reduction) == expected


@given(epochs=st.integers(1, 300), grace=st.floats(0.5, 0.99), reduction=st.floats(1.1, 5))
def test_no_rung_before_half_or_at_the_end(epochs: int, grace: float, reduction: float) -> None:
    found = rungs(epochs, grace, reduction)
    assert all(0.5 * epochs <= rung < epochs for rung in found) and found == sorted(set(found))


def test_a_rung_is_decided_once_and_again_after_a_restart() -> None:
    assert rung_reached(3, [1, 2, 3], [4, 6]) is None
    assert rung_reached(4, [1, 2, 3, 4], [4, 6]) == 4
    assert rung_reached(5, [1, 2, 3, 4, 5], [4, 6]) is None
    assert rung_reached(5, [1, 3, 5], [4, 6]) == 4  # it reports every second epoch
    assert rung_reached(4, [1, 2, 3, 4, 5], [4, 6]) == 4  # epoch 4 came again from a checkpoint
    assert rung_reached(7, [6, 7], [4, 6]) is None


PEERS = [0.1, 0.2, 0.3, 0.4, 0.5]


def verdict(value: float, peers: list[float], reduction: float = 2, audit: float = 0) -> Decision:
    return decide(value, peers, number=1, seed=0, reduction=reduction, audit=audit)


def test_the_better_half_runs_on() -> None:
    assert verdict(0.31, PEERS) is Decision.KEEP  # third of six
    assert verdict(0.29, PEERS) is Decision.PRUNE  # fourth of six
    assert verdict(0.41, PEERS, reduction=3) is Decision.KEEP  # second of six
    assert verdict(0.31, PEERS, reduction=3) is Decision.PRUNE


def test_few_peers_prove_nothing_and_equals_stay() -> None:
    assert verdict(0.0, [0.9, 0.9, 0.9]) is Decision.KEEP
    assert verdict(0.5, [0.5] * 20) is Decision.KEEP


@given(value=st.floats(0, 1), peers=st.lists(st.floats(0, 1), max_size=30), reduction=st.floats(1.1, 20))
def test_the_best_is_never_pruned(value: float, peers: list[float], reduction: float) -> None:
    top = max([value, *peers])
    assert verdict(top, peers, reduction) is Decision.KEEP


def test_the_audit_arm_is_settled_by_seed_and_number() -> None:
    assert verdict(0.0, PEERS, audit=1) is Decision.AUDIT
    chosen = [audited(number, 3, 0.1) for number in range(2000)]
    assert 150 < sum(chosen) < 250
    assert chosen == [audited(number, 3, 0.1) for number in range(2000)]
    assert chosen != [audited(number, 4, 0.1) for number in range(2000)]
    assert not audited(5, 0, 0)
