"""What each table of the paper costs on one card, and what fits in its memory: counted, nothing is measured.

    python -m benchmarks price --write docs/price.md
    python -m benchmarks price --tflops 45            what your card sustains, by `python -m benchmarks single_gpu`

A row for each search space with a table (search_spaces/), one seed of each of its rows. Hours are the counted
operations of whole runs on VOC 2012 (cpn/cost/operations.py; trainaug, 8 epochs, then all scales and flips) by what the
card sustains; reading and augmenting images is not in it. Memory is the least that a training step holds
(cpn/cost/training_memory.py): a run needs more, and where this does not fit nothing does. A run that several tables
need is trained once, and counted once in the sum. Table 5, Fig. 8 and the pseudo labels behind them need the later
stages, which are not priced.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.core.errors import InputError

if TYPE_CHECKING:
    from cpn.config import Config

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
GPUS = 8
HEAD = [
    "| table | runs | GPU-hours | most expensive run, h | least GiB, fp32 | least GiB, bf16 |",
    "|---|---|---|---|---|---|",
]


CARD_GIB = 24
PAGE = """# What the paper's tables cost

Written by `python -m benchmarks price --write docs/price.md`. **Estimates, nothing here was measured:** hours are
counted operations at {tflops:g} TFLOP/s, which is what one RTX 3090 is assumed to sustain; memory is the
least that a training step holds, counted from shapes. `benchmarks/sweeps/price.py` says what is in it and what is not.

{body}

All of them, each run once: {runs} runs of one seed and {hours:.0f} GPU-hours; with the seeds that the files ask for,
{seeded_runs} runs and {seeded_hours:.0f} hours on one card, {shared:.0f} on {gpus} that do nothing else. That is
training and scoring CAMs; the random walk and DeepLab of Table 5 and Fig. 8 come on top, and so do the searches, which
price themselves by `--dry-run`. On a card of {card} GiB {fits}.

What a step really holds, and what the card sustains, is measured by `python -m benchmarks single_gpu`, and by
`--dry-run` of any search space on a machine with the card. Put what it sustains in here:
`python -m benchmarks price --tflops ...`.

`search_spaces/single_gpu_3090.yaml` is the search cut to one such card.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--tflops", type=float, default=30.0, help="what the card sustains (%(default)s, assumed)")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="write the table as a page")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Count every table; prints it as it goes."""
    if options.tflops <= 0:
        raise InputError("--tflops: give a number above 0")
    print("\n".join(HEAD), flush=True)
    rate, rows = 1e12 * options.tflops, []
    asked: dict[Config, int] = {}
    for name, (configs, seeds) in list(tables(SPACES).items())[: 1 if options.quick else None]:
        rows.append(price(name, configs, rate))
        print(line(rows[-1]), flush=True)
        asked |= {config: max(seeds, asked.get(config, 0)) for config in configs}
    each = {config: run_hours(config, rate) for config in asked}
    result = {
        "tflops": options.tflops,
        "runs": len(asked),
        "gpu_hours": sum(each.values()),
        "seeded_runs": sum(asked.values()),
        "seeded_gpu_hours": sum(hours * asked[config] for config, hours in each.items()),
        "rows": rows,
    }
    if options.write:
        options.write.write_text(page(result))
        print(f"written: {options.write}")
    return result


def tables(spaces: Path) -> dict[str, tuple[list["Config"], int]]:
    """Title -> the distinct configurations of a search space's table, and its number of seeds."""
    from platform.config.spec import load_spec
    from platform.config.table_spec import row_config, shown_rows

    configs_by_title = {}
    for path in sorted(spaces.glob("*.yaml")):
        spec = load_spec(path)
        if spec.table is not None:
            rows = shown_rows(spec.table, spec.base_config)
            configs = [row_config(spec.base, name, row, path.name) for name, row in rows.items()]
            configs_by_title[spec.table.title] = (list(dict.fromkeys(configs)), spec.table.seeds)
    return configs_by_title


def run_hours(config: "Config", rate: float) -> float:
    """Of one run."""
    from platform.plan.estimate import operations

    return operations(config) / rate / 3600


def price(name: str, configs: list["Config"], rate: float) -> dict[str, Any]:
    """One row, at `rate` operations a second."""
    from cpn.cost.training_memory import GIB, step_bytes
    from cpn.data.voc import VOC_CLASSES

    hours = [run_hours(config, rate) for config in configs]

    def least(precision: str) -> float:
        return max(
            (step_bytes(config_with(config, precision), len(VOC_CLASSES) + 1) or 0.0) / GIB for config in configs
        )

    return {
        "table": name,
        "runs": len(configs),
        "gpu_hours": sum(hours),
        "dearest_h": max(hours),
        "fp32_gib": least("fp32"),
        "bf16_gib": least("bf16"),
    }


def config_with(config: Any, precision: str) -> Any:
    """The configuration in that precision."""
    from cpn.config import with_values

    return with_values(config, {"train.precision": precision}, "price")


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    return (
        f"| {row['table']} | {row['runs']} | {row['gpu_hours']:.1f} | {row['dearest_h']:.2f} "
        f"| {row['fp32_gib']:.1f} | {row['bf16_gib']:.1f} |"
    )


def page(result: dict[str, Any]) -> str:
    """The table as a page."""
    body = "\n".join([*HEAD, *map(line, result["rows"])])
    too_large = [row["table"] for row in result["rows"] if row["bf16_gib"] > CARD_GIB]
    fits = f"too large even in bf16: {', '.join(too_large)}" if too_large else "every row may fit, by this bound"
    return PAGE.format(
        body=body,
        tflops=result["tflops"],
        runs=result["runs"],
        hours=result["gpu_hours"],
        seeded_runs=result["seeded_runs"],
        seeded_hours=result["seeded_gpu_hours"],
        shared=result["seeded_gpu_hours"] / GPUS,
        gpus=GPUS,
        card=CARD_GIB,
        fits=fits,
    )
