"""Makes the superpixel maps that a trial lacks, spread over Ray tasks; what they are says cpn/data/superpixels.py."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cpn.config import Config
from cpn.data.superpixels import Share, Spread, make_share, maps_for
from cpn.data.voc import Pack, Split

REPORT_S = 2.0
"""At most this often the driver is told how far the making is."""


def make_for_trial(config: Config, pack: Pack, cache: Path, report: Callable[[dict[str, Any]], None]) -> None:
    """Make what is missing before the trial's workers start, which then hold no GPU while they wait for it.

    `report` hears {"epoch": 0, "superpixels": [done, total]} now and then, and a `warning` of maps that were damaged.
    """
    reported = time.monotonic()

    def progress(what: str, done: int, total: int) -> None:
        nonlocal reported
        if time.monotonic() - reported > REPORT_S:
            reported = time.monotonic()
            report({"epoch": 0, what: [done, total]})

    def say(line: str) -> None:
        report({"epoch": 0, "warning": line})

    maps_for(config, pack.split(config.data.train), cache, progress, on_ray, say)


def on_ray(folder: Path, split: Split) -> Spread:
    """Make shares in tasks, one CPU each, wherever the cluster has room."""

    def spread(shares: Sequence[Share]) -> Iterator[tuple[Share, bool]]:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        # The trial's own placement group has no CPU: without None its tasks would wait in there for ever.
        anywhere = PlacementGroupSchedulingStrategy(placement_group=None)  # type: ignore[arg-type]
        task = ray.remote(num_cpus=1, max_retries=3, scheduling_strategy=anywhere)(make_share)
        pictures = ray.put(split)
        tasks = {task.remote(folder, pictures, share): share for share in shares}
        left = list(tasks)
        while left:
            done, left = ray.wait(left)
            for ref in done:
                yield tasks[ref], ray.get(ref)

    return spread
