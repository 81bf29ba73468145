"""The surroundings that tests/conftest.py makes, where no other test would notice that they are gone."""

import gc


def test_the_garbage_collector_leaves_what_was_collected() -> None:
    """And looks after what tests make: a file that is left open is a warning, and so an error."""
    assert gc.get_freeze_count() > 10_000 and gc.isenabled()
