"""The command `sweep`: options that do not go together. What it runs: tests/platform/sweeps, tests/test_smoke.py."""

from pathlib import Path
from platform.sweep import main

import pytest

from cpn.core.errors import InputError

QUICKSTART = str(Path(__file__).resolve().parents[2] / "search_spaces" / "quickstart.yaml")


def test_measure_goes_with_the_dry_run() -> None:
    with pytest.raises(InputError, match="--measure: goes with --dry-run"):
        main([QUICKSTART, "--measure"])


def test_events_go_with_a_sweep_that_runs() -> None:
    with pytest.raises(InputError, match="--json: goes with a sweep that runs; leave out --dry-run"):
        main([QUICKSTART, "--json", "--dry-run"])
