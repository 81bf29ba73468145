"""Compare systems on synthetic scenes over several seeds and data sets, and print a table.

    python -m benchmarks.ladder --seeds 4 --data-seeds 2 --systems cam_baseline control_pair control_pcm cpn_superpixel

Every system is trained and scored as a trial is. One run takes 5 to 20 seconds on one free core.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from cpn.errors import InputError, run_command

SYSTEMS = ("cam_baseline", "control_pair", "control_pcm", "cpn_superpixel")
METRICS = ("miou", "miou_confirm", "miou_train")


def one_run(system: str, over: dict[str, Any], seed: int, data_seed: int, scenes: int, cache: Path) -> dict[str, Any]:
    """Train and score one system on one data set: metrics in percent, beta, and CPU seconds of this process."""
    import torch

    from cpn.config import config_from, merge
    from cpn.prepare import prepare
    from cpn.run import run
    from cpn.standin import make_standin
    from cpn.synthetic import write_scenes
    from cpn.voc import ScenesConfig

    torch.set_num_threads(1)
    make_standin(cache, lambda entry: None)
    root = cache / f"scenes-{scenes}-{data_seed}"
    write_scenes(root, ScenesConfig(train=scenes, seed=data_seed))
    pack = prepare(root)
    values = merge({"preset": ["official", "scenes", system], "train": {"seed": seed}}, over)
    config = config_from(values, "the ladder")
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        result = run(config, pack, Path(folder), cache=cache, device=torch.device("cpu"), report=lambda entry: None)
    return {**result["metrics"], "cpu_seconds": time.process_time() - began}


def table(rows: list[dict[str, Any]], systems: list[str]) -> str:
    """Mean and standard deviation of each metric by system, over all seeds and data sets."""
    lines = [f"| system | runs | {' | '.join(METRICS)} | beta_train | CPU s |", "|" + "---|" * (len(METRICS) + 4)]
    for system in systems:
        own = [row for row in rows if row["system"] == system]
        cells = []
        for name in METRICS:
            values = [row[name] for row in own]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ± {spread:.1f}")
        beta = statistics.mean(row["beta_train"] for row in own)
        seconds = statistics.mean(row["cpu_seconds"] for row in own)
        lines.append(f"| {system} | {len(own)} | {' | '.join(cells)} | {beta:.2f} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """The command: run every system on every seed and data set."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ladder",
        usage="python -m benchmarks.ladder --seeds 4 --data-seeds 2 --systems cam_baseline cpn_superpixel",
        description="Compare systems (presets) on synthetic scenes.",
    )
    parser.add_argument("--seeds", type=int, default=4, help="training seeds 0 .. N-1 on each data set (%(default)s)")
    parser.add_argument("--data-seeds", type=int, default=2, help="number of data sets (%(default)s)")
    parser.add_argument("--first-data-seed", type=int, default=4, help="seed of the first data set (%(default)s)")
    parser.add_argument("--scenes", type=int, default=150, help="training scenes (%(default)s)")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), help="presets to compare")
    parser.add_argument("--over", default="{}", help='values laid over each, as JSON: \'{"patches": {"S_N": 10}}\'')
    parser.add_argument("--cache", type=Path, default=Path("build/cache"), help="stand-in and scenes (%(default)s)")
    given = parser.parse_args()
    if given.seeds < 1 or given.data_seeds < 1:
        raise InputError("--seeds and --data-seeds: give at least 1")
    try:
        over = json.loads(given.over)
    except ValueError:
        raise InputError(f"--over: {given.over!r} is not JSON") from None
    rows: list[dict[str, Any]] = []
    for data_seed in range(given.first_data_seed, given.first_data_seed + given.data_seeds):
        for seed in range(given.seeds):
            for system in given.systems:
                row = one_run(system, over, seed, data_seed, given.scenes, given.cache)
                rows.append({"system": system, "data_seed": data_seed, "seed": seed, **row})
                print(json.dumps(rows[-1]), flush=True)
    print(table(rows, given.systems))


if __name__ == "__main__":
    run_command(main)
