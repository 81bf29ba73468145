"""What each table of the paper costs on one card, and what fits in its memory: counted, nothing is measured.

    python -m benchmarks price --write docs/price.md
    python -m benchmarks price --tflops 45            what your card sustains, by `python -m benchmarks single_gpu`

Hours are the counted operations of whole runs on VOC 2012 (cpn/operations.py; trainaug, 8 epochs, then all scales and
flips) by what the card sustains; reading and augmenting images is not in it. Memory is the least that a training step
holds (cpn/memory.py): a run needs more, and where this does not fit nothing does. One seed a row; three seeds cost
three times as much. Tables 1 and 3 come from the same runs; Table 5 and the pseudo labels behind it need the later
stages, which are not priced.
"""

import argparse
from pathlib import Path
from typing import Any

from cpn.errors import InputError

TABLES: dict[str, list[dict[str, Any]]] = {
    "Tables 1 and 3: systems": [{"preset": name} for name in ("cam_baseline", "seam", "seam_prcm", "cpn_superpixel")],
    "Table 2: what each part brings": [{"preset": f"table2_row{row}"} for row in (1, 2, 3, 4, 5)],
    "Table 4: p_h": [{"patches": {"p_h": p_h}} for p_h in (0.1, 0.2, 0.3, 0.4, 0.5)],
    "Figure 6: S_N": [{"patches": {"S_N": n}} for n in (5, 20, 50, 100, 200, 500, 1000, 2000, 8000)],
    "Figure 7: K": [{"preset": "cpn_grid", "patches": {"K": [low, 2 * low]}} for low in (7, 14, 28, 56, 112, 224)],
}
"""Table -> its runs, beside the preset official."""
HEAD = [
    "| table | runs | GPU-hours | dearest run, h | least GiB, fp32 | least GiB, bf16 |",
    "|---|---|---|---|---|---|",
]


CARD_GIB = 24
PAGE = """# What the paper's tables cost

Written by `python -m benchmarks price --write docs/price.md`. **Estimates, nothing here was measured:** hours are
counted operations at {tflops:g} TFLOP/s, which is what one RTX 3090 is assumed to sustain; memory is the
least that a training step holds, counted from shapes. `benchmarks/price.py` says what is in it and what is not.

{body}

{hours:.0f} GPU-hours in all, one seed each. On a card of {card} GiB {fits}.

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
    rows = []
    for name, runs in list(TABLES.items())[: 1 if options.quick else None]:
        rows.append(price(name, runs, 1e12 * options.tflops))
        print(line(rows[-1]), flush=True)
    result = {"tflops": options.tflops, "gpu_hours": sum(row["gpu_hours"] for row in rows), "rows": rows}
    if options.write:
        options.write.write_text(page(result))
        print(f"written: {options.write}")
    return result


def price(name: str, runs: list[dict[str, Any]], rate: float) -> dict[str, Any]:
    """One row, at `rate` operations a second."""
    from platform.plan import operations

    from cpn.config import config_from
    from cpn.memory import GIB, step_bytes
    from cpn.voc import VOC_CLASSES

    configs = [
        config_from({**given, "preset": ["official", given.get("preset", "cpn_superpixel")]}, name) for given in runs
    ]
    hours = [operations(config) / rate / 3600 for config in configs]

    def least(precision: str) -> float:
        return max(
            (step_bytes(config_with(config, precision), len(VOC_CLASSES) + 1) or 0.0) / GIB for config in configs
        )

    return {
        "table": name,
        "runs": len(runs),
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
    return PAGE.format(body=body, tflops=result["tflops"], hours=result["gpu_hours"], card=CARD_GIB, fits=fits)
