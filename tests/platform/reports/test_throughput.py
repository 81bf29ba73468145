"""Images a second of the runs that trained here, and the share of a run alone that they reached."""

from dataclasses import replace
from platform.reports.snapshot import SweepSnapshot
from platform.reports.throughput import efficiency, measure, rate

import pytest


def test_medians_by_hand(sweep: SweepSnapshot) -> None:
    found = measure(sweep)
    assert found is not None and (found.images_per_s, found.low, found.high, found.peak_memory_mib) == (
        12.5,
        12.5,
        12.5,
        None,
    )
    assert found.runs == sum(row.miou is not None and "reused_from" not in row.attrs for row in sweep.rows) == 19
    assert measure(replace(sweep, rows=[], again=[])) is None and not found.reused
    reused = [row for row in sweep.rows if "reused_from" in row.attrs]
    alone = measure(replace(sweep, rows=reused, again=[]))
    assert alone is not None and alone.reused and (alone.runs, alone.images_per_s) == (1, 12.5)
    assert rate([{"images_per_s": 1.0}, {"images_per_s": 9.0}, {"images_per_s": 10.0}]) == 9 and rate([{}]) is None
    assert efficiency(30.0, 4, 10.0) == pytest.approx(0.75)
