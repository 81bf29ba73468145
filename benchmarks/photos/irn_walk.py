"""IRN's walk at several exponents, numbers of steps and thresholds, on one CAM run and its data.

    python -m benchmarks irn_walk --model sweeps/runs/KEY/model.safetensors --root DATA [--json]

Makes the maps, the confident labels and IRN's edges of the run as the stages do (below --out, kept and taken up again),
then walks every scored image once for each exponent and number of steps. mIoU in percent at each threshold, on the
select images, which choose, and on the confirm images. The maps are raised to the power at which the run's beta becomes
.15 (irn.map_power: auto). Other settings of the later stages come from the run's configuration and --set.
"""

import argparse
from itertools import product
from typing import Any

from benchmarks.photos.walk_rule import CHUNK, add_run_arguments, stages_of

EXPONENTS, LOGTS = (3.0, 5.0, 10.0), (5, 6, 8)
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)

add_arguments = add_run_arguments


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Make what the walk reads, walk, and compare with the CAM at the run's beta."""
    import numpy as np

    from cpn.data.map_files import load_maps
    from cpn.propagation.irn_walk import EDGE_STRIDE, irn_walk, strided_maps
    from cpn.propagation.random_walk import upsample
    from cpn.scoring.metrics import curve_counts, miou
    from cpn.scoring.selection import select_and_confirm
    from cpn.stages.irn_stages import edge_network, irn_maps

    inputs = stages_of(options, {"random_walk.kind": "irn", "irn.map_power": "auto"})
    network, scored = edge_network(inputs), inputs.pack.split(inputs.config.data.score)
    settings, radius = list(product(EXPONENTS, LOGTS)), inputs.config.irn.walk_radius
    count = 4 if options.quick else len(scored)
    walks, cams = [], []
    for index in range(count):
        name, image, truth = scored.ids[index], scored.image(index), scored.mask(index)
        maps, present = load_maps(inputs.folders["cam"] / f"{name}.npz")
        edge, small = network.image_edge(image), strided_maps(irn_maps(inputs, maps))
        of_image = []
        for exponent, logt in settings:
            scores = upsample(irn_walk(small, edge, radius, exponent, logt), EDGE_STRIDE, *maps.shape[1:])
            scores = (scores / max(float(scores.max(initial=0)), 1e-9)).astype(np.float32)
            of_image.append(curve_counts(scores, present, truth, inputs.classes, THRESHOLDS))
        walks.append(np.stack(of_image))
        cams.append(curve_counts(maps, present, truth, inputs.classes, [inputs.beta])[0])
        if (index + 1) % CHUNK == 0 or index + 1 == count:
            print(f"walked {index + 1} of {count}", flush=True)
    if options.quick:
        return {"images": count, "settings": len(settings) * len(THRESHOLDS), "beta": inputs.beta}
    sets = dict(zip(("select", "confirm"), select_and_confirm(scored.ids, inputs.config.cam), strict=True))
    scores_of = {name: 100 * miou(np.stack(walks)[indices].sum(0)) for name, indices in sets.items()}
    result: dict[str, Any] = {"images": count, "beta": inputs.beta}
    result |= {f"miou_cam_{name}": float(100 * miou(np.stack(cams)[at].sum(0))) for name, at in sets.items()}
    at, column = np.unravel_index(int(scores_of["select"].argmax()), scores_of["select"].shape)
    best = {"walk_beta": settings[at][0], "steps": 2 ** settings[at][1], "walk_threshold": THRESHOLDS[column]}
    result |= best | {f"miou_best_{name}": float(rows[at, column]) for name, rows in scores_of.items()}
    print(table(settings, scores_of["select"], scores_of["confirm"]), flush=True)
    return {**result, "grid": {name: rows.tolist() for name, rows in scores_of.items()}}


def table(settings: list[tuple[float, int]], select: Any, confirm: Any) -> str:
    """mIoU on select / confirm images: a row for each exponent and number of steps, a column for each threshold."""
    lines = ["| walk_beta, steps | " + " | ".join(map(str, THRESHOLDS)) + " |", "|---" * (len(THRESHOLDS) + 1) + "|"]
    for (exponent, logt), one, other in zip(settings, select, confirm, strict=True):
        cells = (f"{a:.1f} / {b:.1f}" for a, b in zip(one, other, strict=True))
        lines.append(f"| {exponent:g}, {2**logt} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
