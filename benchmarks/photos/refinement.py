"""Why the refined map of CPN stands where it does on synthetic scenes: one network, read in several ways.

    python -m benchmarks refinement --data-seeds 2 --seeds 2

For bodies without and with a trace of their class's colour (data.scenes.trace), trained networks are read as the plain
map, as the refined map, as PCM alone where PRCM is on, and through PCM with the classes that the image lacks left out
of Y0, which no preset does: the difference is what absent classes win. For PRCM it tells the height of its peaks.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.photos.ladder import spread

if TYPE_CHECKING:
    from torch import Tensor

SYSTEMS: dict[str, dict[str, Any]] = {
    "cam_baseline": {"preset": "cam_baseline", "network": {"pcm": True}},
    "CPN": {"preset": "table2_row4"},
    "CPN, PRCM": {"preset": "table2_row5", "network": {"prcm_transposed": True}},
}
READINGS = ("plain", "refined", "pcm alone", "absent left out")


def read_network(network: Any, images: "Tensor", present: "Tensor") -> dict[str, "Tensor"]:
    """Each reading of normalised images (B, 3, H, W): raw maps (B, C, h, w); `present` (C,) is 1 for kept classes."""
    import torch
    from torch.nn import functional

    from cpn.models.correlation import background_and_peak, pcm

    stage3, stage4, top = network.backbone(images)
    low = network.fc8(top)
    small = functional.interpolate(images, low.shape[-2:], mode="bilinear", align_corners=True)
    x = torch.cat([small, functional.relu(network.f8_3(stage3)), functional.relu(network.f8_4(stage4))], dim=1)
    g = network.f9(x)
    return {
        "plain": functional.relu(low),
        "refined": network.refine(images, low, stage3, stage4),
        "pcm alone": pcm(background_and_peak(low), g),
        "absent left out": pcm(background_and_peak(functional.relu(low) * present[None, :, None, None]), g),
    }


def score_readings(network: Any, pack: Any, scales: Sequence[float]) -> dict[str, float]:
    """mIoU in percent of each reading at its best beta over list train, and PRCM's peaks: mean and deviation."""
    import numpy as np
    import torch

    from cpn.data.map_files import present_classes
    from cpn.data.transforms import normalise, resize
    from cpn.models.present import upsample
    from cpn.scoring.cam import normalise_sum, sum_passes
    from cpn.scoring.metrics import best_beta, curve_counts
    from cpn.scoring.shown_sizes import size_at_scale

    split, classes = pack.split("train"), len(pack.classes) + 1
    counts: dict[str, Any] = {name: 0 for name in READINGS}
    peaks: list[float] = []
    with torch.no_grad():
        for index in range(len(split)):
            image, truth, present = split.image(index), split.mask(index), present_classes(split.labels[index])
            if truth is None or len(present) == 0:
                continue
            class_mask = torch.zeros(classes)
            class_mask[[0, *present.tolist()]] = 1
            passes: dict[str, list[Tensor]] = {name: [] for name in READINGS}
            for scale in scales:
                size = size_at_scale(*image.shape[:2], scale)
                inputs = normalise(torch.from_numpy(np.ascontiguousarray(resize(image, size))[None]), None)
                maps = read_network(network, torch.cat([inputs, inputs.flip(3)]), class_mask)
                peaks += (maps["refined"] - maps["pcm alone"])[0, torch.as_tensor(present)].amax(dim=(1, 2)).tolist()
                for name, raw in maps.items():
                    passes[name] += list(upsample(raw, size)[:, torch.as_tensor(present)])
            for name, maps_of_passes in passes.items():
                summed = sum_passes(maps_of_passes, [False, True] * len(scales), truth.shape)
                counts[name] = counts[name] + curve_counts(normalise_sum(summed).numpy(), present, truth, classes)
    scores = {name: 100 * best_beta(value)[1] for name, value in counts.items()}
    return {**scores, "peak": statistics.mean(peaks), "peak_deviation": statistics.stdev(peaks)}


def one_run(trace: float, system: str, data_seed: int, seed: int, scenes: int, cache: Path) -> dict[str, Any]:
    """Train one network on one data set and read it in every way."""
    import torch

    from cpn.config import config_from, merge
    from cpn.config.data import ScenesConfig
    from cpn.data.superpixels import maps_for
    from cpn.models.network import build_network
    from cpn.run import load_weights
    from cpn.sources.packing import prepare
    from cpn.sources.scenes import write_scenes
    from cpn.training.cam_training import train
    from cpn.training.loop import TrainingContext

    torch.set_num_threads(1)
    root = cache / f"refinement-{scenes}-{data_seed}-{trace}"
    write_scenes(root, ScenesConfig(train=scenes, seed=data_seed, trace=trace))
    pack = prepare(root)
    own = SYSTEMS[system]
    values = merge({**own, "preset": ["official", "scenes", own["preset"]]}, {"train": {"seed": seed}})
    config = config_from(values, "the readings")
    torch.manual_seed(seed)
    network = build_network(config.network, len(pack.classes) + 1)
    load_weights(network.backbone, config.network.weights, cache)
    split = pack.split(config.data.train)
    maps = maps_for(config, split, cache)
    train(network, split, config, TrainingContext(device=torch.device("cpu"), report=lambda entry: None), maps)
    return {"trace": trace, "system": system, "data_seed": data_seed, "seed": seed} | score_readings(
        network.eval(), pack, config.cam.scales
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: mean and standard deviation of each reading over the runs of a line."""
    lines = [f"| trace | system | runs | {' | '.join(READINGS)} | PRCM's peak |", "|---" * (len(READINGS) + 4) + "|"]
    for trace in sorted({row["trace"] for row in rows}):
        for system in SYSTEMS:
            own = [row for row in rows if (row["trace"], row["system"]) == (trace, system)]
            cells = [spread([row[name] for row in own]) for name in READINGS]
            height, deviation = (statistics.mean(row[key] for row in own) for key in ("peak", "peak_deviation"))
            shown = f"{height:.2f} ± {deviation:.2f}" if height else "-"
            lines.append(f"| {trace} | {system} | {len(own)} | {' | '.join(cells)} | {shown} |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--seeds", type=int, default=2, help="training seeds 0 .. N-1 on each data set (%(default)s)")
    parser.add_argument("--data-seeds", type=int, default=2, help="number of data sets (%(default)s)")
    parser.add_argument("--first-data-seed", type=int, default=20, help="seed of the first data set (%(default)s)")
    parser.add_argument("--traces", nargs="+", type=float, default=[0.0, 0.15], help="values of data.scenes.trace")
    parser.add_argument("--scenes", type=int, default=150, help="training scenes (%(default)s)")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/cache"), help="pretrained proxy and scenes (%(default)s)"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train and read every system; prints the table."""
    from cpn.training.pretrained_proxy import make_standin

    if options.quick:
        options.seeds = options.data_seeds = 1
    make_standin(options.cache, lambda entry: None)
    rows = []
    for trace in options.traces:
        for data_seed in range(options.first_data_seed, options.first_data_seed + options.data_seeds):
            for seed in range(options.seeds):
                for system in SYSTEMS:
                    rows.append(one_run(trace, system, data_seed, seed, options.scenes, options.cache))
                    print(f"trace {trace} {system} data {data_seed} seed {seed}: {rows[-1]['refined']:.1f}", flush=True)
    print(table(rows))
    return {"runs": len(rows), "rows": rows}
