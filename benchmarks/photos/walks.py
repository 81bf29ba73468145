"""Compare the two random walks on synthetic scenes: AffinityNet's and IRN's, each from the same CAM run.

    python -m benchmarks.photos.walks --first-data-seed 8 --data-seeds 2

Trains one CAM network per data set with preset scenes, then runs the stages crf, affinity and random_walk with either
kind. About a CPU minute per data set.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from cpn.core.errors import InputError, run_command

KINDS = ("affinity", "irn")


def one_data_set(data_seed: int, seed: int, scenes: int, system: str, cache: Path) -> dict[str, Any]:
    """mIoU in percent of the CAMs (at their own best beta on the same images) and of both walks, with CPU seconds."""
    import torch

    from cpn.config import config_from, with_values
    from cpn.config.data import ScenesConfig
    from cpn.run import run
    from cpn.sources.packing import prepare
    from cpn.sources.scenes import write_scenes
    from cpn.stages import pipeline
    from cpn.stages.inputs import Inputs
    from cpn.training.pretrained_proxy import make_standin

    torch.set_num_threads(1)
    make_standin(cache, lambda entry: None)
    root = cache / f"scenes-{scenes}-{data_seed}"
    write_scenes(root, ScenesConfig(train=scenes, seed=data_seed))
    pack = prepare(root)
    values = {"preset": ["official", "scenes", system], "train": {"seed": seed}}
    config, device = config_from(values, "the walks"), torch.device("cpu")
    row: dict[str, Any] = {"data_seed": data_seed, "seed": seed, "system": system}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        metrics = run(config, pack, folder / "run", cache=cache, device=device, report=lambda entry: None).metrics
        row |= {"cam": metrics["miou_train"], "cam_confirm": metrics["miou_confirm"], "beta": metrics["beta_train"]}
        for kind in KINDS:
            own = with_values(config, {"random_walk.kind": kind}, "the walks")
            folders = {stage: folder / kind / stage for stage in ("crf", "affinity", "random_walk")}
            inputs = Inputs(folder / "run" / "model.safetensors", own, pack, cache, device, folders)
            folders["cam"] = folder / "cam"
            everything = range(len(inputs.split))
            pipeline.make_cams(inputs, everything, folders["cam"])
            began = time.process_time()
            pipeline.make_crf(inputs, everything, folders["crf"])
            pipeline.make_affinity(inputs, folders["affinity"], lambda entry: None)
            pipeline.make_pseudo_labels(inputs, everything, folders["random_walk"])
            row[f"{kind}_seconds"] = time.process_time() - began
            scores = pipeline.score_pseudo_labels(inputs, folders["random_walk"])
            row |= {kind: scores["miou_train"], f"{kind}_confirm": scores["miou_confirm"]}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """One line per run: mIoU over all training scenes and, behind the bar, over the confirm scenes."""
    lines = ["| data seed / seed | CAM | affinity | irn | CPU s affinity, irn |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [f"{row[name]:.1f} / {row[f'{name}_confirm']:.1f}" for name in ("cam", *KINDS)]
        seconds = f"{row['affinity_seconds']:.0f}, {row['irn_seconds']:.0f}"
        lines.append(f"| {row['data_seed']} / {row['seed']} | {' | '.join(cells)} | {seconds} |")
    return "\n".join(lines)


def main() -> None:
    """The command: both walks on every data set."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.photos.walks",
        usage="python -m benchmarks.photos.walks --first-data-seed 8 --data-seeds 2",
        description="Compare AffinityNet's and IRN's random walk on synthetic scenes.",
    )
    parser.add_argument("--seeds", type=int, default=1, help="training seeds 0 .. N-1 on each data set (%(default)s)")
    parser.add_argument("--data-seeds", type=int, default=2, help="number of data sets (%(default)s)")
    parser.add_argument("--first-data-seed", type=int, default=8, help="seed of the first data set (%(default)s)")
    parser.add_argument("--scenes", type=int, default=150, help="training scenes (%(default)s)")
    parser.add_argument("--system", default="cpn_superpixel", help="preset of the CAM run (%(default)s)")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/cache"), help="pretrained proxy and scenes (%(default)s)"
    )
    options = parser.parse_args()
    if min(options.seeds, options.data_seeds, options.scenes) < 1:
        raise InputError("--seeds, --data-seeds and --scenes: give at least 1")
    rows: list[dict[str, Any]] = []
    for data_seed in range(options.first_data_seed, options.first_data_seed + options.data_seeds):
        for seed in range(options.seeds):
            rows.append(one_data_set(data_seed, seed, options.scenes, options.system, options.cache))
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    run_command(main)
