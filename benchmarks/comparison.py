"""What topics that compare ours with the usual way have in common: taking turns, the result, and its row on the page.

The two sides run in turns in one process, and the medians are divided: whatever else the machine does meets both. What
one thread computes is measured in CPU seconds, which other programs change little; what is spread over processes in
seconds of the clock. A speed without `equal` beside it is no result.
"""

import functools
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpn.core.errors import InputError
from cpn.core.files import write_bytes

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
HEAD = "| topic | ours | the usual way | unit | ratio | target | equal | more | measured |\n" + "|---" * 9 + "|"


class NotMeasuredError(InputError):
    """This machine cannot measure a topic."""


@dataclass(frozen=True)
class Comparison:
    """Ours against the usual way, on the same input, in the same run."""

    ours: float
    other: float
    unit: str
    equal: bool
    """Whether both gave the same numbers, by the measure that the topic's docstring names."""
    target: float | None
    """The ratio that was promised at most; None: none was."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else was measured: plain values."""

    def result(self) -> dict[str, Any]:
        """As plain values for a line of JSON."""
        return {
            "ratio": self.ours / self.other,
            "ours": self.ours,
            "other": self.other,
            "unit": self.unit,
            "equal": self.equal,
            "target": self.target,
            **self.more,
        }


def take_turns(
    ours: Callable[[], Any],
    other: Callable[[], Any],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> tuple[float, float]:
    """Median seconds of both, A B A B ...; each ran once before, for what is only done the first time."""
    ours(), other()
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side, work in zip(spent, (ours, other), strict=True):
            began = clock()
            work()
            side.append(clock() - began)
    return statistics.median(spent[0]), statistics.median(spent[1])


@functools.cache  # a row that is written changes the tree
def conditions(quick: bool) -> str:
    """Name the conditions of a measurement: `quick, commit 8545a7a12345, 2 x AMD EPYC`; -dirty: of a changed tree."""
    from platform.base.provenance import provenance

    cpu_info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    cpu_model = re.search(r"model name\s*: (.*)", cpu_info)
    cores = f"{len(os.sched_getaffinity(0))} x {cpu_model[1].strip() if cpu_model else 'core'}"
    return f"{'quick, ' if quick else ''}commit {provenance('')['commit']}, {cores}"


def row(result: Mapping[str, Any], measured: str) -> str:
    """One topic's row on the page, with how it was `measured`."""
    standard = ("name", "ratio", "ours", "other", "unit", "equal", "target")
    plain = [f"{key} {brief(value)}" for key, value in result.items() if key not in standard]
    target = "-" if result["target"] is None else f"at most {brief(result['target'])}"
    cells = [
        f"`{result['name']}`",
        *(brief(result[key]) for key in ("ours", "other", "unit", "ratio")),
        target,
        "yes" if result["equal"] else "NO",
        "; ".join(plain).replace("|", "/"),
        measured,
    ]
    return f"| {' | '.join(cells)} |"


def brief(value: Any) -> str:
    """A value for people."""
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("_", " ")


def write_page(page: Path, results: Sequence[Mapping[str, Any]], measured: str) -> None:
    """Put the rows between the page's marks; rows of topics that were not run now stay as they are."""
    text = page.read_text(encoding="utf-8") if page.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    old_rows, _, after = rest.partition(END)
    rows = {name: line for line in old_rows.splitlines() if (name := topic_of(line))}
    rows |= {str(result["name"]): row(result, measured) for result in results}
    body = "\n".join([HEAD, *(rows[name] for name in sorted(rows))])
    write_bytes(page, f"{before}{BEGIN}\n{body}\n{END}{after}".encode())


def topic_of(line: str) -> str | None:
    """The topic whose row a line is."""
    topic = re.match(r"\| `(\w+)` \|", line)
    return topic[1] if topic else None
