"""How fast the runs of a sweep trained, and how that compares with one run alone on one card."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..search.study import State
from .snapshot import SweepSnapshot

MOST = 50
"""Runs that are asked, the newest: hundreds of manifests take seconds to read, and say nothing new."""


@dataclass(frozen=True)
class Throughput:
    """Training throughput of the finished runs of a sweep."""

    runs: int
    images_per_s: float
    """Median over runs, each the median over its epochs."""
    low: float
    high: float
    peak_memory_mib: float | None
    """The largest of the runs; None on the CPU."""
    reused: bool = False
    """Whether all of them were made by another sweep, maybe on other machines."""


def rate(history: Iterable[Mapping[str, Any]]) -> float | None:
    """Return images a second of a run: the median over its epochs, for the first one warms up; None where none was
    kept.
    """
    rates = [float(entry["images_per_s"]) for entry in history if entry.get("images_per_s")]
    return median(rates) if rates else None


def measure(sweep: SweepSnapshot) -> Throughput | None:
    """Of the newest finished runs that trained in this sweep, or where all are reused of these; None without any."""
    every = [row for row in (*sweep.rows, *sweep.again) if row.state is State.COMPLETE]
    own = [row for row in every if row.reused_from is None]
    done = own or every
    results = [result for row in done[-MOST:] if (result := sweep.result(row)) is not None]
    rates = [images_per_s for result in results if (images_per_s := rate(result.history)) is not None]
    if not rates:
        return None
    peaks = [float(e["peak_memory_mib"]) for r in results for e in r.history if e.get("peak_memory_mib")]
    return Throughput(len(rates), median(rates), min(rates), max(rates), max(peaks, default=None), not own)


def efficiency(images_per_s: float, workers: int, single_gpu: float) -> float:
    """Return the share of `workers` times the images a second of one run alone on one card that a trial reached."""
    return images_per_s / (workers * single_gpu)
